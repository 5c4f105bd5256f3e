"""What `penstock serve` prints once it is ready: what is served, where, and a line to try it with."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence

from penstock import __version__
from penstock.models.model import Model
from penstock.tensors import Kind, TensorSpec

LISTED = 20  # models shown in full
MOST_VALUES = 16  # in the line to try
EXAMPLES = {
    Kind.BOOL: ("bool_values", True),
    Kind.INT: ("int_values", 1),
    Kind.UINT: ("uint_values", 1),
    Kind.FLOAT: ("float_values", 0.5),
    Kind.DOUBLE: ("double_values", 0.5),
    Kind.BYTES: ("string_values", "text"),
}


def address(host: str, port: int) -> str:
    """Host and port as gRPC, URLs and people write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def summary(
    models: Sequence[Model], grpc_address: str, ops_address: str, transport: str, processes: str = ""
) -> str:
    """The text.

    Args:
        models: what is served.
        grpc_address: "host:port" of gRPC.
        ops_address: "host:port" of operations.
        transport: the road in use.
        processes: how many serve and what each has of the machine; "" where there is only one.
    """
    return "\n".join(_lines(models, grpc_address, ops_address, transport, processes)) + "\n"


def _lines(
    models: Sequence[Model], grpc_address: str, ops_address: str, transport: str, processes: str
) -> Iterator[str]:
    yield f"Penstock {__version__}"
    for model in models[:LISTED]:
        yield ""
        yield from _model(model)
    if len(models) > LISTED:
        yield ""
        yield f"  and {len(models) - LISTED} more: penstock.v1.ModelService/ListModels lists them"
    yield ""
    if processes:
        yield f"processes   {processes}"
    yield f"gRPC        {grpc_address}  ({transport})"
    yield f"operations  http://{ops_address}  (/metrics /livez /readyz)"
    yield ""
    yield "Try it:"
    yield f"  {_try_line(models, grpc_address)}"


def _model(model: Model) -> Iterator[str]:
    default = ", the default" if model.is_default else ""
    labels = f", also {', '.join(model.labels)}" if model.labels else ""
    yield f"  {model.name}  version {model.version}{default}{labels}"
    yield f"    takes    {_listed(model.signature.inputs.values())}"
    yield f"    gives    {_listed(model.signature.outputs.values())}"
    if model.kept is not None:
        yield f"    keeps    {model.kept}"
    if model.batching.enabled:
        yield f"    batched  up to {model.batcher.policy.max_rows} rows: {model.batching.reason}"
    else:
        yield f"    alone    {model.batching.reason}"


def _listed(specs: object) -> str:
    return ", ".join(map(str, specs)) or "nothing"  # type: ignore[call-overload]


def _try_line(models: Sequence[Model], address: str) -> str:
    for model in models:
        inputs = {spec.name: _example(spec) for spec in model.signature.inputs.values()}
        if None not in inputs.values():
            step = {"sequence": {"id": "try", "start": True}} if model.kept else {}
            request = json.dumps({"model": model.name, "inputs": inputs, **step})
            method = "penstock.v1.PredictionService/Predict"
            return f"grpcurl -plaintext -d {shlex.quote(request)} {address} {method}"
    return f"grpcurl -plaintext {address} penstock.v1.ModelService/ListModels"


def _example(spec: TensorSpec) -> dict[str, object] | None:
    """A value a person could send for one row; None where it would be too long to read."""
    shape = [1 if isinstance(size, str) else size for size in spec.shape or ()]
    count = math.prod(shape)
    if count > MOST_VALUES:
        return None
    field, value = EXAMPLES[spec.datatype.kind]
    example: dict[str, object] = {field: [value] * count}
    if sum(isinstance(size, str) for size in spec.shape or ()) > 1 or not count:
        example["shape"] = shape
    return example
