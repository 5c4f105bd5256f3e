"""What `penstock serve` prints once it is ready: what is served, where, and a line to try it with."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from penstock import __version__
from penstock.models.model import Model
from penstock.models.samples import Sample
from penstock.tensors import Kind, TensorSpec

LISTED = 20  # models shown in full
SHORT_VALUES = 16  # of an input, written out in the line to try
MOST_VALUES = 4096  # repeated in it by the shell; much longer lines are more than a shell takes
EXAMPLES: Mapping[Kind, tuple[str, bool | int | float | str]] = {
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
    yield f"    takes    {_listed(_taken(model))}"
    yield f"    gives    {_listed(model.signature.outputs.values())}"
    if model.kept is not None:
        yield f"    keeps    {model.kept}"
    if model.batching.enabled:
        yield f"    batched  up to {model.batcher.policy.max_rows} rows: {model.batching.reason}"
    else:
        yield f"    alone    {model.batching.reason}"


def _taken(model: Model) -> Iterator[str]:
    for name, spec in model.signature.inputs.items():
        yield f"{spec} (optional)" if name in model.optional_inputs else str(spec)


def _listed(specs: Iterable[object]) -> str:
    return ", ".join(map(str, specs)) or "nothing"


def _try_line(models: Sequence[Model], address: str) -> str:
    """A command for a shell that asks the first model whose request is short, or else not all too long."""
    for most in (SHORT_VALUES, MOST_VALUES):
        for model in models:
            examples = {
                name: _example(model.sample, spec)
                for name, spec in model.signature.inputs.items()
                if name not in model.optional_inputs
            }
            if all(each.size <= most for each in examples.values()):
                return _predict_line(model, examples, address)
    return f"grpcurl -plaintext {address} penstock.v1.ModelService/ListModels"


def _predict_line(model: Model, examples: Mapping[str, _Example], address: str) -> str:
    step = {"sequence": {"id": "try", "start": True}} if model.kept else {}
    marks = {name: f"\0{place}" for place, name in enumerate(examples)}  # where a shell puts many values
    inputs = {name: each.tensor(marks[name]) for name, each in examples.items()}
    request = shlex.quote(json.dumps({"model": model.name, "inputs": inputs, **step}))
    for name, each in examples.items():
        request = request.replace(json.dumps(marks[name]), f"'{each.repeated()}'")
    return f"grpcurl -plaintext -d {request} {address} penstock.v1.PredictionService/Predict"


class _Example(NamedTuple):
    """What a person could send as an input of one row.

    Attributes:
        field: the list of a tensor that the values go into.
        value: each of them.
        size: how many there are.
        shape: what the tensor has to say of its shape.
    """

    field: str
    value: object
    size: int
    shape: Sequence[int]

    def tensor(self, mark: str) -> dict[str, object]:
        """The tensor as JSON has it, with the mark in place of many values."""
        values = [self.value] * self.size if self.size <= SHORT_VALUES else [mark]
        return {self.field: values, **({"shape": self.shape} if self.shape else {})}

    def repeated(self) -> str:
        """The values as a shell is asked for them."""
        value = json.dumps(self.value)
        value = shlex.quote(f" {value}" if value.startswith("-") else value)  # not to be taken for an option
        return f'"$(yes {value} | head -n {self.size} | paste -sd, -)"'


def _example(sample: Sample, spec: TensorSpec) -> _Example:
    field, value = EXAMPLES[spec.datatype.kind]
    known = sample.shape(spec, alone=True)
    shape = [1 if isinstance(size, str) else size for size in known or ()]
    count = math.prod(shape)
    # The server works one open axis out, of a shape that it knows.
    is_told = sum(isinstance(size, str) for size in spec.shape or ()) > 1 or spec.shape is None or not count
    said = type(value)(sample.said.get(spec.name, value))
    return _Example(field, said, count, shape if is_told else ())
