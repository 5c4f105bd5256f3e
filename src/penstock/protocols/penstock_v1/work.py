"""How much work a PredictRequest is; see `penstock.protocols.work`."""

from __future__ import annotations

import math

from penstock.core import wire
from penstock.core.request import Response
from penstock.core.tensors import DataType
from penstock.protocols.penstock_v1.encoder import NUMBERS
from penstock.protocols.work import (
    BYTE_SECONDS,
    FIELD_SECONDS,
    LOOKED_AT,
    NUMBER_SECONDS,
    Work,
    elements_of,
    guarded,
    list_seconds,
    packed_text_seconds,
    reader_of_labels,
    text_seconds,
)
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

INPUTS = pb.PredictRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
OUTPUTS = pb.PredictRequest.OUTPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
METADATA = pb.PredictRequest.METADATA_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
VALUE = 2 << 3 | wire.LENGTH_DELIMITED  # of an entry of a map
DATATYPE = tensor_pb2.Tensor.DATATYPE_FIELD_NUMBER << 3 | wire.VARINT
RAW = tensor_pb2.Tensor.RAW_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
NUMBER_LISTS = {
    getattr(tensor_pb2.Tensor, f"{name}_FIELD_NUMBER") << 3 | wire.LENGTH_DELIMITED: NUMBER_SECONDS
    for name in ("SHAPE", "BOOL_VALUES", "INT_VALUES", "UINT_VALUES", "FLOAT_VALUES", "DOUBLE_VALUES")
}
WRITTEN_NUMBER_SECONDS = 20e-9
MAYBE_TEXT = (0, NUMBERS[DataType.BYTES])


def seconds_of(data: bytes) -> float:
    """How long decoding a request takes, at most about; infinity for too long to find out.

    Raises:
        ValueError: it cannot be parsed.
    """
    seconds = len(data) * BYTE_SECONDS
    for number, (key, start, end) in enumerate(wire.fields(data, 0, len(data))):
        if number == LOOKED_AT:
            return math.inf
        seconds += FIELD_SECONDS
        if key == INPUTS:
            seconds += _input_seconds(data, start, end)
    return seconds


def _input_seconds(data: bytes, start: int, end: int) -> float:
    seconds = 0.0
    for number, (key, first, last) in enumerate(wire.fields(data, start, end)):
        if number == LOOKED_AT:
            return math.inf
        if key == VALUE:
            seconds += list_seconds(data, first, last, NUMBER_LISTS) + _raw_seconds(data, first, last)
    return seconds


def _raw_seconds(data: bytes, start: int, end: int) -> float:
    """How long it takes to read a tensor's raw values, if they may be texts."""
    datatype, raw = 0, (0, 0)
    for number, (key, first, last) in enumerate(wire.fields(data, start, end)):
        if number == LOOKED_AT:
            return math.inf
        if key == DATATYPE:
            datatype = wire.read_varint(data, first)[0]
        elif key == RAW:
            raw = first, last
    return packed_text_seconds(data, *raw) if datatype in MAYBE_TEXT else 0.0


def answer_seconds(response: Response, typed: bool) -> float:
    """How long it takes to write an answer."""
    seconds = text_seconds(response)
    if typed:
        seconds += sum([elements_of(response, name) for name in response.names]) * WRITTEN_NUMBER_SECONDS
    return seconds


LABELS = reader_of_labels(pb.PredictRequest.ID_FIELD_NUMBER, pb.PredictRequest.TAG_FIELD_NUMBER)
WORK = Work(guarded(seconds_of), {INPUTS: {}, OUTPUTS: None, METADATA: {}}, answer_seconds, LABELS)
"""How much work requests are."""
