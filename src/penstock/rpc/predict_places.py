"""Where the parts of a serialized PredictRequest are that differ from one to the next."""

from __future__ import annotations

from penstock.rpc import wire
from penstock.rpc.places import NOWHERE, Places, Span, once
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

WIDEST_TAG = 8  # bytes: of larger ones only some bits count

# Keys: a parser passes over a field of another wire type, as over one that it does not know.
ID = pb.PredictRequest.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
TAG = pb.PredictRequest.TAG_FIELD_NUMBER << 3 | wire.VARINT
INPUTS = pb.PredictRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
RAW = tensor_pb2.Tensor.RAW_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
KEY, VALUE = 1 << 3 | wire.LENGTH_DELIMITED, 2 << 3 | wire.LENGTH_DELIMITED  # of an entry of a map


def places_of(data: bytes) -> Places:
    """Finds them.

    Raises:
        ValueError: one is there more than once, or the encoding is not as expected.
    """
    places = Places()
    for key, *span in wire.fields(data, 0, len(data)):
        start, end = span
        if key == INPUTS:
            name, raw = _input(data, start, end)
            if name in places.inputs:
                raise ValueError(f"input {name} is there twice")
            places.inputs[name] = raw
        elif key == ID:
            places.id = once(places.id, start, end)
        elif key == TAG:
            places.tag = once(places.tag, start, end)
            if end - start > WIDEST_TAG:
                raise ValueError("the tag is too large")
    return places


def _input(data: bytes, start: int, end: int) -> tuple[str, Span]:
    """The name of an input, and the place of its values."""
    name = value = raw = NOWHERE
    for key, first, last in wire.fields(data, start, end):
        if key == KEY:
            name = once(name, first, last)
        elif key == VALUE:
            value = once(value, first, last)
    for key, first, last in wire.fields(data, *value):
        if key == RAW:
            raw = once(raw, first, last)
    if raw == NOWHERE:
        raise ValueError("an input has no raw values")
    return data[slice(*name)].decode(), raw
