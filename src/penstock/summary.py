"""The summary that `penstock serve` prints once it is ready: models, addresses and a command to try."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from penstock import __version__
from penstock.core.minifloats import BY_BITS, widened
from penstock.core.names import many, on_lines
from penstock.core.tensors import Array, Kind, TensorSpec
from penstock.models.model import Model

LISTED = 20  # models shown in full
SHORT_VALUES = 16  # of an input, written out in the command to try
MOST_WRITTEN = 256  # of an input, written out if no model has a shorter request
MOST_VALUES = 4096  # of an input, repeated by the shell in that command; shells limit the length of a command
MOST_PIPED = 1 << 20  # of an input, repeated by the shell and piped into that command
FIELDS: Mapping[Kind, str] = {
    Kind.BOOL: "bool_values",
    Kind.INT: "int_values",
    Kind.UINT: "uint_values",
    Kind.FLOAT: "float_values",
    Kind.DOUBLE: "double_values",
    Kind.BYTES: "string_values",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the summary says about a server besides its models.

    Attributes:
        grpc_address: "host:port" of gRPC.
        ops_address: "host:port" of operations.
        transport: the transport in use.
        processors: how many the server may use, and why not all.
        processes: how many processes serve, and the cores of each; "" if there is only one.
        http_address: "host:port" of HTTP; "" if it is switched off.
        has_docs: whether HTTP has the page `/docs`, which needs an extra.
    """

    grpc_address: str
    ops_address: str
    transport: str
    processors: str
    processes: str = ""
    http_address: str = ""
    has_docs: bool = False


def summary(models: Sequence[Model], facts: Facts) -> str:
    """The text of the summary.

    Args:
        models: the loaded models.
        facts: everything else.
    """
    return "\n".join(_lines(models, facts)) + "\n"


def _lines(models: Sequence[Model], facts: Facts) -> Iterator[str]:
    yield f"Penstock {__version__}"
    for model in models[:LISTED]:
        yield ""
        yield from _model(model)
    if len(models) > LISTED:
        yield ""
        yield f"  and {len(models) - LISTED} more: penstock.v1.ModelService/ListModels lists them"
    yield ""
    yield f"processors  {facts.processors}"
    if facts.processes:
        yield f"processes   {facts.processes}"
    yield f"gRPC        {facts.grpc_address}  ({facts.transport})"
    if facts.http_address:
        page = " /docs" if facts.has_docs else ""
        yield f"HTTP        http://{facts.http_address}  (/predict /v2 /openapi.json{page} /health)"
    yield f"operations  http://{facts.ops_address}  (page at /, /metrics /livez /readyz)"
    yield ""
    yield "Try it:"
    yield f"  {_try_line(models, facts.grpc_address)}"


def _model(model: Model) -> Iterator[str]:
    default = ", the default" if model.is_default else ""
    labels = f", also {', '.join(model.labels)}" if model.labels else ""
    yield f"  {model.name}  version {model.version}{default}{labels}"
    yield on_lines("    inputs     ", list(_inputs(model)))
    yield on_lines("    outputs    ", [str(spec) for spec in model.signature.outputs.values()])
    if model.sequence_state is not None:
        yield f"    state      {model.sequence_state}"
    for change in model.backend.file.changes:
        yield f"    changed    {change}"
    if model.golden:
        yield f"    golden     {model.golden}"
    if model.batching.enabled:
        yield f"    batched    up to {many(model.batcher.policy.max_rows, 'row')}: {model.batching.reason}"
    else:
        yield f"    alone      {model.batching.reason}"


def _inputs(model: Model) -> Iterator[str]:
    for name, spec in model.signature.inputs.items():
        yield f"{spec} (optional)" if name in model.optional_inputs else str(spec)


def _try_line(models: Sequence[Model], address: str) -> str:
    """A shell command that asks a model for a prediction, the one with the shortest command that is known.

    Of such, one that has real rows comes first. A request without a version goes to the default one.
    """
    ordered = sorted(models, key=lambda model: (not model.is_default, not model.golden))
    for form in _FORMS:
        for model in ordered:
            wanted = {
                name: spec
                for name, spec in model.signature.inputs.items()
                if name not in model.optional_inputs or name in model.start_inputs
            }
            if not wanted.keys() <= model.example.keys():
                continue  # no run of it is known
            inputs = {name: _Input(spec, model.example[name]) for name, spec in wanted.items()}
            if all(form.fits(each) for each in inputs.values()):
                return _predict_line(model, inputs, address, form)
    return f"grpcurl -plaintext {address} penstock.v1.ModelService/ListModels"


def _predict_line(model: Model, inputs: Mapping[str, _Input], address: str, form: _Form) -> str:
    step = {"sequence": {"id": "try", "start": True}} if model.sequence_state else {}
    marks = {name: f"\0{place}" for place, name in enumerate(inputs)}  # where a shell puts many values
    tensors = {name: each.tensor(marks[name]) for name, each in inputs.items()}
    request = shlex.quote(_json({"model": model.name, "inputs": tensors, **step}))
    for name, each in inputs.items():
        request = request.replace(_json(marks[name]), f"'{each.repeated()}'")
    method = f"{address} penstock.v1.PredictionService/Predict"
    if form.is_piped:
        return f"printf %s {request} | grpcurl -plaintext -d @ {method}"
    return f"grpcurl -plaintext -d {request} {method}"


class _Form(NamedTuple):
    """A form of the command.

    Attributes:
        written: the most values of an input that are written out.
        repeated: the most values of an input that the shell repeats, if they are all the same.
        is_piped: whether the request comes from a pipe, since shells limit the length of a command.
    """

    written: int
    repeated: int
    is_piped: bool = False

    def fits(self, given: _Input) -> bool:
        """Whether the values of an input are not too many."""
        return given.size <= (self.repeated if given.is_repeated else self.written)


_FORMS = (
    _Form(SHORT_VALUES, SHORT_VALUES),
    _Form(MOST_WRITTEN, MOST_VALUES),
    _Form(MOST_VALUES, MOST_PIPED, is_piped=True),
)
"""The forms of the command, the shortest first."""


class _Input:
    """An input of an example, as JSON has it.

    Args:
        spec: the input.
        array: its values.

    Attributes:
        size: the number of its elements.
        is_repeated: whether there are many elements, all with the same value.
    """

    def __init__(self, spec: TensorSpec, array: Array) -> None:
        self.size = array.size
        self._field = FIELDS[spec.datatype.kind]
        self._datatype = spec.datatype
        self._flat = array.reshape(-1)
        self.is_repeated = self.size > SHORT_VALUES and bool((self._flat == self._flat[0]).all())
        # The server derives the length of one open axis, if it knows the rest of the shape.
        is_open = sum(isinstance(length, str) for length in spec.shape or ())
        self._shape = list(array.shape) if is_open > 1 or spec.shape is None or not array.size else []

    def tensor(self, mark: str) -> dict[str, object]:
        """The tensor as JSON has it, with the mark in place of values that are repeated."""
        values = [mark] if self.is_repeated else self._values(self._flat)
        return {self._field: values, **({"shape": self._shape} if self._shape else {})}

    def repeated(self) -> str:
        """A shell command that prints the values, with commas between them."""
        value = _json(self._values(self._flat[:1])[0])
        value = shlex.quote(f" {value}" if value.startswith("-") else value)  # not to be taken for an option
        return f'"$(yes {value} | head -n {self.size} | paste -sd, -)"'

    def _values(self, array: Array) -> list[object]:
        if self._datatype in BY_BITS:
            array = widened(self._datatype, array)
        if array.dtype.kind != "f":
            return list(array.tolist())
        # The shortest decimals that become the same value again; JSON has no words for what is not finite.
        return [float(str(each)) if np.isfinite(each) else _NOT_FINITE[str(each)] for each in array]


def _json(value: object) -> str:
    """JSON as people read it; with escapes where the terminal may not show it as it is."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text if text.isprintable() else json.dumps(value)


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
