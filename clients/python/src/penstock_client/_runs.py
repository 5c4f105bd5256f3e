"""Reads runs of similar results all at once, with numpy.

A server answers similar requests with results that differ only in their tags and values. If the first of them
has been parsed, and every other one has the same bytes outside of these spans, none of them needs parsing:
numpy compares them, and each waiter gets its row of one array.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from penstock_client._errors import PenstockError
from penstock_client._tensors import decode
from penstock_client._types import Array, Prediction
from penstock_client._wire import Layout, layout_of, parsed, read_varint
from penstock_proto.v1 import prediction_pb2

LEAST = 8
"""Fewer results are read faster one by one."""
MOST_BYTES = 1 << 16
"""Limit on results that are read together: a caller that keeps its row keeps the memory of all of them."""

TAG_KEY = prediction_pb2.PredictResult.TAG_FIELD_NUMBER << 3
RESPONSE_KEY = prediction_pb2.PredictResult.RESPONSE_FIELD_NUMBER << 3 | 2
_REMEMBERED = 64  # lengths of results


class Run(NamedTuple):
    """Results that were read together.

    Attributes:
        slots: the tags.
        predictions: their predictions; the ids are empty.
        stop: the end of the last one.
    """

    slots: list[int]
    predictions: list[Prediction]
    stop: int


class _Spans(NamedTuple):
    """The spans in each result of a run: the answer, and what differs: tags (two bytes) and values."""

    response: int
    tags: tuple[int, ...]
    values: tuple[int, ...]


class _Kind(NamedTuple):
    """The bytes of a kind of results, and a mask (uint8) of the bits that must be equal in all of them."""

    layout: Layout
    spans: _Spans
    mask: Array


class Runs:
    """Reads runs of results, and remembers their kinds."""

    def __init__(self) -> None:
        self._known: dict[int, _Kind] = {}  # by the length of a result

    def read(self, data: bytes, at: int, start: int, stop: int) -> Run | None:
        """The results that match the first one; None if they are too few, or not simple enough.

        Args:
            data: a serialized PredictStreamResponse.
            at: the start of the field of the first result.
            start: the start of the result itself.
            stop: its end.
        """
        stride = stop - at
        count = min(len(data) - at, MOST_BYTES) // stride
        if count < LEAST or data[stop : stop + start - at] != data[at:start]:
            return None
        try:
            kind = self._kind(data, at, start, stop)
        except (IndexError, PenstockError):  # reading it alone raises the proper error
            return None
        if kind is None:
            return None
        rows = np.frombuffer(data, np.uint8, count * stride, at).reshape(count, stride)
        different = (rows ^ rows[0]) & kind.mask
        if different.any():
            count = int(different.any(axis=1).argmax())
            if count < LEAST:
                return None
            rows = rows[:count]
        # The serialized answer is kept for its timing, which is the same in all.
        predictions = _predictions(kind, rows, data[at + kind.spans.response : stop])
        return Run(_slots(rows, kind.spans.tags[0]), predictions, at + count * stride)

    def _kind(self, data: bytes, at: int, start: int, stop: int) -> _Kind | None:
        """The kind of results that match this one."""
        if data[start] != TAG_KEY or data[start + 3] != RESPONSE_KEY or not _is_tag(data, start + 1):
            return None
        size, response = read_varint(data, start + 4)
        if response + size != stop:
            return None
        stride = stop - at
        known = self._known.get(stride)
        layout = None if known is None else known.layout
        spans = None if layout is None else _spans(layout, data, at, start, response, stop)
        if spans is None:
            layout = _learned(data[response:stop])
            spans = None if layout is None else _spans(layout, data, at, start, response, stop)
        if layout is None or spans is None:
            return None
        if known is not None and known.spans == spans and known.layout is layout:
            return known
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        kind = self._known[stride] = _Kind(layout, spans, _mask(stride, layout, spans))
        return kind


def _learned(response: bytes) -> Layout | None:
    """The layout of an answer; None if results with it cannot form a run."""
    message = parsed(response)
    for name, tensor in message.outputs.items():
        decode(name, tensor)  # checks that shape and bytes agree
    layout = layout_of(response, message)
    if layout is None or any(not output.shape for output in layout.outputs):
        return None  # rows of scalars would be numbers, not arrays
    return layout


def _spans(  # noqa: PLR0913 - the parts of a result
    layout: Layout, data: bytes, at: int, start: int, response: int, stop: int
) -> _Spans | None:
    """The spans in which results with this layout differ; None if this one has another layout."""
    found = layout.spans(data, response, stop)
    if found is None:
        return None
    tag, values = found
    tags: tuple[int, ...] = (start + 1 - at,)
    if tag is not None:
        if not _is_tag(data, tag):
            return None
        tags += (tag - at,)
    return _Spans(response - at, tags, tuple(each - at for each in values))


def _is_tag(data: bytes, at: int) -> bool:
    """Whether the number that starts here has two bytes, as every tag of this client."""
    return data[at] > 0x7F >= data[at + 1]


def _mask(stride: int, layout: Layout, spans: _Spans) -> Array:
    mask = np.full(stride, 0xFF, np.uint8)
    for at in spans.tags:
        mask[at : at + 2] = 0x80  # the bits for the length of the number
    for at, output in zip(spans.values, layout.outputs, strict=True):
        mask[at : at + output.size] = 0
    return mask


def _slots(rows: Array, at: int) -> list[int]:
    low, high = rows[:, at] & 0x7F, rows[:, at + 1].astype(np.uint16)
    slots: list[int] = (low | high << 7).tolist()
    return slots


def _predictions(kind: _Kind, rows: Array, said: bytes) -> list[Prediction]:
    """The predictions of results [count, bytes of each]."""
    _, model, version, outputs = kind.layout
    arrays: list[Any] = [
        np.frombuffer(rows[:, at : at + output.size].tobytes(), output.dtype).reshape(-1, *output.shape)
        for at, output in zip(kind.spans.values, outputs, strict=True)
    ]
    if len(outputs) == 1:
        name = outputs[0].name
        return [Prediction(model, version, "", {name: row}, said) for row in arrays[0]]
    names = [output.name for output in outputs]
    return [
        Prediction(model, version, "", dict(zip(names, each, strict=True)), said)
        for each in zip(*arrays, strict=True)
    ]
