"""How much work a ModelInferRequest is; see `penstock.protocols.work`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from penstock.core import wire
from penstock.core.request import Response
from penstock.core.wire import Names
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
from penstock_proto.inference import grpc_service_pb2 as pb

Request = pb.ModelInferRequest
Tensor = Request.InferInputTensor
Output = Request.InferRequestedOutputTensor

INPUTS = Request.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
OUTPUTS = Request.OUTPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
PARAMETERS = Request.PARAMETERS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
RAW = Request.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
OF_INPUT = Tensor.PARAMETERS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
OF_OUTPUT = Output.PARAMETERS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
DATATYPE = Tensor.DATATYPE_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
SHAPE = Tensor.SHAPE_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
CONTENTS = Tensor.CONTENTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
NUMBER_LISTS = {
    getattr(pb.InferTensorContents, f"{name}_CONTENTS_FIELD_NUMBER") << 3
    | wire.LENGTH_DELIMITED: NUMBER_SECONDS
    for name in ("BOOL", "INT", "INT64", "UINT", "UINT64", "FP32", "FP64")
}
TEXT = b"BYTES"
RANKED_SECONDS = 200e-9
"""For each element that is ranked for a classification."""
CLASS_SECONDS = 1.5e-6
"""For each class that is written."""


def seconds_of(data: bytes) -> float:
    """How long decoding a request takes, at most about; infinity for too long to find out.

    Raises:
        ValueError: it cannot be parsed.
    """
    seconds, may_be_text = len(data) * BYTE_SECONDS, False
    raws: list[tuple[int, int]] = []
    for number, (key, start, end) in enumerate(wire.fields(data, 0, len(data))):
        if number == LOOKED_AT:
            return math.inf
        seconds += FIELD_SECONDS
        if key == INPUTS:
            more, is_text = _input_seconds(data, start, end)
            seconds += more
            may_be_text = may_be_text or is_text
        elif key in (OUTPUTS, PARAMETERS):
            seconds += list_seconds(data, start, end, {})
        elif key == RAW:
            raws.append((start, end))
    if may_be_text:
        seconds += sum(packed_text_seconds(data, start, end) for start, end in raws)
    return seconds


def _input_seconds(data: bytes, start: int, end: int) -> tuple[float, bool]:
    """How long it takes to read a tensor without its raw values, and whether these may be texts."""
    seconds, datatype = 0.0, b""
    for number, (key, first, last) in enumerate(wire.fields(data, start, end)):
        if number == LOOKED_AT:
            return math.inf, True
        seconds += FIELD_SECONDS
        if key == CONTENTS:
            seconds += list_seconds(data, first, last, NUMBER_LISTS)
        elif key == SHAPE:
            seconds += (last - first) * NUMBER_SECONDS
        elif key == DATATYPE:
            datatype = data[first:last]
    return seconds, datatype in (b"", TEXT)


def answer_seconds(response: Response, classes: Mapping[str, int] | None) -> float:
    """How long it takes to write an answer."""
    seconds = text_seconds(response)
    for name, count in (classes or {}).items():
        elements, array = elements_of(response, name), response.run.outputs[name]
        rows = len(array) if array.ndim > 1 else 1
        seconds += elements * RANKED_SECONDS + min(elements, rows * count) * CLASS_SECONDS
    return seconds


NAMES: Names = {INPUTS: {OF_INPUT: {}}, OUTPUTS: {OF_OUTPUT: {}}, PARAMETERS: {}}
WORK = Work(guarded(seconds_of), NAMES, answer_seconds, reader_of_labels(Request.ID_FIELD_NUMBER))
"""How much work requests are."""
