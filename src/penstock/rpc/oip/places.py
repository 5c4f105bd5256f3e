"""Where the parts of a serialized ModelInferRequest are that differ from one to the next."""

from __future__ import annotations

from penstock.rpc import wire
from penstock.rpc.places import NOWHERE, Places, Span, once
from penstock_proto.inference import grpc_service_pb2 as pb

# Keys: a parser passes over a field of another wire type, as over one that it does not know.
ID = pb.ModelInferRequest.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
NAME = pb.ModelInferRequest.InferInputTensor.NAME_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED


def places_of(data: bytes) -> Places:
    """Finds them.

    Raises:
        ValueError: one is there more than once, or the encoding is not as expected.
    """
    places = Places()
    names: list[str] = []
    raws: list[Span] = []
    for key, start, end in wire.fields(data, 0, len(data)):
        if key == INPUTS:
            names.append(_name(data, start, end))
        elif key == RAW:
            raws.append(once(NOWHERE, start, end))
        elif key == ID:
            places.id = once(places.id, start, end)
    places.inputs = dict(zip(names, raws, strict=True))
    if len(places.inputs) != len(names):
        raise ValueError("an input is there twice")
    return places


def _name(data: bytes, start: int, end: int) -> str:
    name = NOWHERE
    for key, first, last in wire.fields(data, start, end):
        if key == NAME:
            name = once(name, first, last)
    return data[slice(*name)].decode()
