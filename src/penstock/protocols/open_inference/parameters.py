"""Reads the parameters of a request.

The reserved names and their types are Triton's; a request that breaks its rules is rejected, as in Triton.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from penstock.core.errors import InvalidRequest
from penstock.protocols.codec import SequenceStep
from penstock_proto.inference import grpc_service_pb2 as pb

MICROS = 1_000_000
PRIORITY, TIMEOUT, CLASSES = "priority", "timeout", "classification"
RESERVED = "triton_"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
SHARED_MEMORY = "shared_memory_region"
SEQUENCE = {
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
}
"""The parameters of sequences; a model without a state ignores them."""
LOWEST_PRIORITY = 1_000_000  # all larger levels are treated as this one

NORMAL_LEVEL = 2
"""The level of normal requests: level 1 runs before it, level 3 and above after it."""


def of_request(message: pb.ModelInferRequest) -> tuple[int, float]:
    """The priority in the core's form (above 0 runs first), and the timeout in seconds.

    Raises:
        InvalidRequest: a parameter has the wrong type, or a reserved name.
    """
    priority, seconds = 0, math.inf
    for name, value in message.parameters.items():
        if name == PRIORITY:
            priority = _priority(value)
        elif name == TIMEOUT:
            seconds = _timeout(value)
        elif name in SEQUENCE:
            _kind(name, value, *SEQUENCE[name])
        elif name == EMPTY_FINAL_RESPONSE:
            # Each request has one response, which is marked as final: so there are no empty responses.
            _kind(name, value, "bool_param")
        elif name.startswith(RESERVED):
            raise InvalidRequest(
                f"parameter {name}: names that start with {RESERVED} are reserved; "
                f"the only known one is {EMPTY_FINAL_RESPONSE}"
            )
    return priority, seconds


def sequence_of(message: pb.ModelInferRequest) -> SequenceStep | None:
    """The sequence of the request: its id, "" for none, and whether this is its first or last step.

    Returns:
        None if the request has no such parameter.

    Raises:
        InvalidRequest: a parameter has the wrong type.
    """
    given: dict[str, Any] = {}
    for name, kinds in SEQUENCE.items():
        if name in message.parameters:
            value = message.parameters[name]
            given[name] = getattr(value, _kind(name, value, *kinds))
    if not given:
        return None
    id = str(given.get("sequence_id") or "")  # 0 means no sequence, as in Triton
    return SequenceStep(id, bool(given.get("sequence_start")), bool(given.get("sequence_end")))


def classes_of(message: pb.ModelInferRequest) -> Mapping[str, int]:
    """The outputs of which only the largest values are wanted, and how many of them.

    Raises:
        InvalidRequest: a parameter has the wrong type or value.
    """
    wanted: dict[str, int] = {}
    for output in message.outputs:
        parameters = output.parameters
        if not parameters:
            continue
        if SHARED_MEMORY in parameters:
            raise InvalidRequest(
                f"output {output.name} is to go to shared memory, which this server does not write"
            )
        if CLASSES in parameters:
            value = parameters[CLASSES]
            kind = _kind(CLASSES, value, "int64_param", "uint64_param")
            count = int(getattr(value, kind))
            if count < 1:
                raise InvalidRequest(
                    f"parameter {CLASSES} of output {output.name} is {count}, expected 1 or more"
                )
            wanted[output.name] = count
    return wanted


def _priority(value: pb.InferParameter) -> int:
    """The core's priority for a level of Triton: 1 is the highest, larger ones lower, 0 the default."""
    level = int(getattr(value, _kind(PRIORITY, value, "uint64_param", "int64_param")))
    if level < 0:
        raise InvalidRequest(
            f"parameter {PRIORITY} is {level}, expected 0 (the default) or a positive number"
        )
    return NORMAL_LEVEL - min(level, LOWEST_PRIORITY) if level else 0


def _timeout(value: pb.InferParameter) -> float:
    micros = int(getattr(value, _kind(TIMEOUT, value, "int64_param", "uint64_param")))
    if micros < 0:
        raise InvalidRequest(
            f"parameter {TIMEOUT} is {micros} µs, expected 0 (no timeout) or a positive number"
        )
    return micros / MICROS if micros else math.inf


def _kind(name: str, value: pb.InferParameter, *expected: str) -> str:
    """The field that holds a parameter's value; it must be one of those expected."""
    kind = value.WhichOneof("parameter_choice")
    if kind not in expected:
        raise InvalidRequest(f"parameter {name} is {kind or 'empty'}, expected {' or '.join(expected)}")
    return str(kind)
