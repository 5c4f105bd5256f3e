"""Finds the spans in a serialized PredictRequest that differ between similar requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.core import wire
from penstock.protocols.fast_path.spans import Kind, Span, Spans, entry
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

# Keys of fields. A parser skips a field with another wire type, as it skips unknown fields.
ID = pb.PredictRequest.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
TAG = pb.PredictRequest.TAG_FIELD_NUMBER << 3 | wire.VARINT
INPUTS = pb.PredictRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
TIMEOUT = pb.PredictRequest.TIMEOUT_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
SEQUENCE = pb.PredictRequest.SEQUENCE_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
SEQUENCE_ID = pb.Sequence.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
METADATA = pb.PredictRequest.METADATA_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
VALUES: Mapping[int, Kind] = {
    tensor_pb2.Tensor.RAW_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.RAW,
    tensor_pb2.Tensor.INT_VALUES_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.INTEGERS,
    tensor_pb2.Tensor.FLOAT_VALUES_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.FLOATS,
    tensor_pb2.Tensor.DOUBLE_VALUES_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.DOUBLES,
    tensor_pb2.Tensor.STRING_VALUES_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED: Kind.STRING,
}


def spans_of(data: bytes) -> Sequence[Span]:
    """Finds the spans of a request.

    Raises:
        ValueError: a field appears more than once, or the encoding is not as expected.
    """
    spans = Spans()
    for key, start, end in wire.fields(data, 0, len(data)):
        if key == INPUTS:
            _add_input(spans, data, start, end)
        elif key == ID:
            spans.add(Kind.ID, "", (start, end), (start, end))
        elif key == TAG:
            spans.add(Kind.TAG, "", (start, end))
        elif key == TIMEOUT:
            spans.add(Kind.DURATION, "", (start, end), (start, end))
        elif key == SEQUENCE:
            for inner, first, last in wire.fields(data, start, end):
                if inner == SEQUENCE_ID:
                    spans.add(Kind.SEQUENCE, "", (start, end), (first, last), (first, last))
        elif key == METADATA:
            name, value = entry(data, start, end)
            spans.add(Kind.TEXT, name, (start, end), value, value)
    return spans.found


def _add_input(spans: Spans, data: bytes, start: int, end: int) -> None:
    """Adds the values of an input."""
    name, value = entry(data, start, end)
    for key, first, last in wire.fields(data, *value):
        kind = VALUES.get(key)
        if kind is not None:
            spans.add(kind, name, (start, end), value, (first, last), (first, last))
