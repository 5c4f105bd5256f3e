"""What the parameters of a request ask for.

The reserved names and their types are Triton's: a client that breaks its rules is told so here as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from penstock.errors import InvalidRequest
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
"""Of requests that belong together: they make no difference to a model without a state."""
LOWEST_PRIORITY = 1_000_000  # further ones are all alike

NORMAL_LEVEL = 2
"""The priority level that says nothing: 1 goes before it, 3 and up come after it."""


def of_request(message: pb.ModelInferRequest) -> tuple[int, float]:
    """The priority as the core has it (above 0 goes first), and the seconds a request may take.

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
            # There is one response to a request here, and it is marked as the final one: none is empty.
            _kind(name, value, "bool_param")
        elif name.startswith(RESERVED):
            raise InvalidRequest(
                f"parameter {name}: names that start with {RESERVED} are reserved; "
                f"the only known one is {EMPTY_FINAL_RESPONSE}"
            )
    return priority, seconds


def sequence_of(message: pb.ModelInferRequest) -> tuple[str, bool, bool]:
    """The id of the sequence, "" for none, and whether the request is its first and its last step.

    Raises:
        InvalidRequest: a parameter has the wrong type.
    """
    given: dict[str, Any] = {}
    for name, kinds in SEQUENCE.items():
        if name in message.parameters:
            value = message.parameters[name]
            given[name] = getattr(value, _kind(name, value, *kinds))
    id = str(given.get("sequence_id") or "")  # 0 is none, as in Triton
    return id, bool(given.get("sequence_start")), bool(given.get("sequence_end"))


def classes_of(message: pb.ModelInferRequest) -> Mapping[str, int]:
    """How many of the largest values of which outputs are wanted, instead of all.

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
    """Triton's 1 is the highest, larger ones are lower, and 0 is the default."""
    level = int(getattr(value, _kind(PRIORITY, value, "uint64_param", "int64_param")))
    if level < 0:
        raise InvalidRequest(f"parameter {PRIORITY} is {level}, expected 0 (for the default) or more")
    return NORMAL_LEVEL - min(level, LOWEST_PRIORITY) if level else 0


def _timeout(value: pb.InferParameter) -> float:
    micros = int(getattr(value, _kind(TIMEOUT, value, "int64_param", "uint64_param")))
    if micros < 0:
        raise InvalidRequest(f"parameter {TIMEOUT} is {micros} µs, expected 0 (for none) or more")
    return micros / MICROS if micros else math.inf


def _kind(name: str, value: pb.InferParameter, *expected: str) -> str:
    """The field that holds a parameter's value, which is one of those expected."""
    kind = value.WhichOneof("parameter_choice")
    if kind not in expected:
        raise InvalidRequest(
            f"parameter {name} came as {kind or 'nothing'}, expected {' or '.join(expected)}"
        )
    return str(kind)
