"""Finds the spans in a serialized ModelInferRequest that differ between similar requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.core import wire
from penstock.protocols.fast_path.spans import NOWHERE, Kind, Range, Span, Spans, entry, once
from penstock.protocols.open_inference.parameters import RESERVED, SEQUENCE, TIMEOUT
from penstock_proto.inference import grpc_service_pb2 as pb

# Keys of fields. A parser skips a field with another wire type, as it skips unknown fields.
ID = pb.ModelInferRequest.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
PARAMETERS = pb.ModelInferRequest.PARAMETERS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
NAME = pb.ModelInferRequest.InferInputTensor.NAME_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
CONTENTS = pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
STRING = pb.InferParameter.STRING_PARAM_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
INT64 = pb.InferParameter.INT64_PARAM_FIELD_NUMBER << 3 | wire.VARINT
UINT64 = pb.InferParameter.UINT64_PARAM_FIELD_NUMBER << 3 | wire.VARINT
VALUES: Mapping[int, Kind] = {
    pb.InferTensorContents.FP32_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.FLOATS,
    pb.InferTensorContents.FP64_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.DOUBLES,
    pb.InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.STRING,
}


def spans_of(data: bytes) -> Sequence[Span]:
    """Finds the spans of a request.

    Raises:
        ValueError: a field appears more than once, or the encoding is not as expected.
    """
    spans = Spans()
    names: list[str] = []
    raws: list[Range] = []
    named: set[str] = set()
    for key, start, end in wire.fields(data, 0, len(data)):
        if key == INPUTS:
            names.append(_add_input(spans, data, start, end))
        elif key == RAW:
            raws.append((start, end))
        elif key == ID:
            spans.add(Kind.ID, "", (start, end), (start, end))
        elif key == PARAMETERS:
            _add_parameter(spans, named, data, start, end)
    if len(set(names)) != len(names):
        raise ValueError("an input appears twice")
    if raws:
        for name, raw in zip(names, raws, strict=True):
            spans.add(Kind.RAW, name, raw, raw)
    return spans.found


def _add_input(spans: Spans, data: bytes, start: int, end: int) -> str:
    """Adds the values of an input, if they are in its `contents`; returns its name."""
    name = contents = NOWHERE
    for key, first, last in wire.fields(data, start, end):
        if key == NAME:
            name = once(name, first, last)
        elif key == CONTENTS:
            contents = once(contents, first, last)
    text = data[slice(*name)].decode()
    for key, first, last in wire.fields(data, *contents):
        if key in VALUES:
            spans.add(VALUES[key], text, (start, end), contents, (first, last), (first, last))
    return text


def _add_parameter(spans: Spans, named: set[str], data: bytes, start: int, end: int) -> None:
    """Adds the value of a parameter, if it is the timeout or a text that is only passed along.

    Args:
        spans: takes it.
        named: the names of the parameters so far.
        data: the request.
        start: where the parameter begins.
        end: where it ends.
    """
    name, value = entry(data, start, end)
    if name in named:  # the last one counts
        raise ValueError("a parameter appears twice")
    named.add(name)
    fields = list(wire.fields(data, *value))
    if len(fields) != 1:  # the last one counts: it is compared
        return
    ((key, first, last),) = fields
    if name == TIMEOUT and key in (INT64, UINT64):
        spans.add(Kind.MICROS, name, (start, end), value, (first, last))
    elif key == STRING and name not in SEQUENCE and name != TIMEOUT and not name.startswith(RESERVED):
        spans.add(Kind.TEXT, name, (start, end), value, (first, last), (first, last))
