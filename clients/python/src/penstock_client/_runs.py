"""Reads runs of similar results all at once, with numpy.

A server answers similar requests with results that differ only in their tags, ids, timings and values. If the
first of them has been parsed, and every other one has the same bytes outside of these spans, the others need
no parsing: numpy compares them, and each waiter gets its row of one array.
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
ID_KEY = prediction_pb2.PredictResult.ID_FIELD_NUMBER << 3 | 2
_DURATIONS = {
    prediction_pb2.Timing.QUEUE_FIELD_NUMBER << 3 | 2,
    prediction_pb2.Timing.COMPUTE_FIELD_NUMBER << 3 | 2,
}
_LONGEST = 5  # bytes of a number in a timing
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
    """The spans in each result of a run: starts and ends.

    Attributes:
        response: of the answer.
        tags: the starts of the tags, of two bytes.
        ids: of the ids, which are ASCII.
        numbers: of the numbers of the timing.
        values: the starts of the outputs' bytes.
    """

    response: tuple[int, int]
    tags: tuple[int, ...]
    ids: tuple[tuple[int, int], ...]
    numbers: tuple[tuple[int, int], ...]
    values: tuple[int, ...]


class _Kind(NamedTuple):
    """A kind of results.

    Attributes:
        layout: of its answers.
        spans: where its results differ.
        mask: the bits that must be equal in all of them, uint8.
        first: the bytes of one of them with its field, uint8.
    """

    layout: Layout
    spans: _Spans
    mask: Array
    first: Array


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
        rows = np.frombuffer(data, np.uint8, count * stride, at).reshape(count, stride)
        kind = self._known.get(stride)
        if kind is None or ((rows[0] ^ kind.first) & kind.mask).any():
            try:
                kind = self._kind(data, at, start, stop)
            except (IndexError, PenstockError):  # reading it alone raises the proper error
                return None
        if kind is None:
            return None
        different = (rows ^ rows[0]) & kind.mask
        if different.any():
            count = int(different.any(axis=1).argmax())
            if count < LEAST:
                return None
            rows = rows[:count]
        stop = at + count * stride
        said = _said(data[at:stop], rows, kind.spans)
        return Run(_slots(rows, kind.spans.tags[0]), _predictions(kind, rows, said), stop)

    def _kind(self, data: bytes, at: int, start: int, stop: int) -> _Kind | None:
        """The kind of results that match this one."""
        if data[start] != TAG_KEY or data[start + 3] != RESPONSE_KEY or not _is_tag(data, start + 1):
            return None
        size, response = read_varint(data, start + 4)
        end = response + size
        ids: tuple[tuple[int, int], ...] = ()
        if end != stop:
            if not is_id(data, end, stop):
                return None
            ids = ((end + 2, stop),)
        stride = stop - at
        known = self._known.get(stride)
        layout = None if known is None else known.layout
        spans = None if layout is None else _spans(layout, data, at, (start, response, end), ids)
        if spans is None:
            layout = _learned(data[response:end])
            spans = None if layout is None else _spans(layout, data, at, (start, response, end), ids)
        if layout is None or spans is None:
            return None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        first = np.frombuffer(data, np.uint8, stride, at).copy()
        kind = self._known[stride] = _Kind(layout, spans, _mask(stride, layout, spans), first)
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


def _spans(
    layout: Layout,
    data: bytes,
    at: int,
    places: tuple[int, int, int],
    ids: tuple[tuple[int, int], ...],
) -> _Spans | None:
    """The spans in which results with this layout differ; None if this one has another layout.

    Args:
        layout: of the answer.
        data: the message.
        at: where the result's field starts.
        places: where the result, its answer, and what comes after the answer start.
        ids: the result's own id, if it has one.
    """
    start, response, end = places
    found = layout.spans(data, response, end)
    if found is None:
        return None
    tags: tuple[int, ...] = (start + 1 - at,)
    if found.tag is not None:
        if not _is_tag(data, found.tag):
            return None
        tags += (found.tag - at,)
    ids = (*ids, found.id)
    numbers = _numbers(data, *found.timing, at)
    if numbers is None or not all(data[first:last].isascii() for first, last in ids):
        return None
    return _Spans(
        (response - at, end - at),
        tags,
        tuple((first - at, last - at) for first, last in ids if first != last),
        numbers,
        tuple(each - at for each in found.values),
    )


def is_id(data: bytes, at: int, stop: int) -> bool:
    """Whether a short id of a result is all that stands between these places, and is ASCII."""
    length = stop - at - 2
    return (
        0 <= length < 0x80 and data[at] == ID_KEY and data[at + 1] == length and data[at + 2 : stop].isascii()
    )


def _numbers(data: bytes, at: int, stop: int, base: int) -> tuple[tuple[int, int], ...] | None:
    """The spans, from `base`, of the numbers in a serialized timing; None if it has other fields."""
    found = []
    depth: list[int] = []  # the end of the timing, while a duration in it is read
    while at < stop:
        kind = data[at] & 7
        if not 8 <= data[at] <= 0x7F or kind not in (0, 2):
            return None
        if kind == 2:
            inner = at + 2 + data[at + 1]
            if depth or data[at] not in _DURATIONS or inner > stop:
                return None
            depth.append(stop)
            at, stop = at + 2, inner
        else:
            first = at + 1
            _, at = read_varint(data, first)
            if at > stop or at - first > _LONGEST:
                return None
            found.append((first - base, at - base))
        if at == stop and depth:
            stop = depth.pop()
    return tuple(found)


def _is_tag(data: bytes, at: int) -> bool:
    """Whether the number that starts here has two bytes, as every tag of this client."""
    return data[at] > 0x7F >= data[at + 1]


def _mask(stride: int, layout: Layout, spans: _Spans) -> Array:
    mask = np.full(stride, 0xFF, np.uint8)
    for at in spans.tags:
        mask[at : at + 2] = 0x80  # the bits for the length of the number
    for first, last in (*spans.ids, *spans.numbers):
        mask[first:last] = 0x80  # so all ids are ASCII, which needs no check
    for at, output in zip(spans.values, layout.outputs, strict=True):
        mask[at : at + output.size] = 0
    return mask


def _slots(rows: Array, at: int) -> list[int]:
    low, high = rows[:, at] & 0x7F, rows[:, at + 1].astype(np.uint16)
    slots: list[int] = (low | high << 7).tolist()
    return slots


def _said(data: bytes, rows: Array, spans: _Spans) -> list[bytes]:
    """The serialized answers, which are kept for their timings: one for all where these are equal."""
    first, last = spans.response
    said = data[first:last]
    if spans.numbers:
        start, stop = spans.numbers[0][0], spans.numbers[-1][1]
        if (rows[1:, start:stop] != rows[0, start:stop]).any():
            stride = rows.shape[1]
            return [data[at + first : at + last] for at in range(0, len(data), stride)]
    return [said] * len(rows)


def _predictions(kind: _Kind, rows: Array, said: list[bytes]) -> list[Prediction]:
    """The predictions of results [count, bytes of each]."""
    _, model, version, outputs = kind.layout
    arrays: list[Any] = [
        np.frombuffer(rows[:, at : at + output.size].tobytes(), output.dtype).reshape(-1, *output.shape)
        for at, output in zip(kind.spans.values, outputs, strict=True)
    ]
    if len(outputs) == 1:
        name = outputs[0].name
        return [
            Prediction(model, version, "", {name: row}, each)
            for row, each in zip(arrays[0], said, strict=True)
        ]
    names = [output.name for output in outputs]
    return [
        Prediction(model, version, "", dict(zip(names, each, strict=True)), timing)
        for timing, *each in zip(said, *arrays, strict=True)
    ]
