"""Micro-batches: matching requests in one message of a stream, which are run and answered together.

A program with many predictions to make puts many requests into a message. They often differ only in their
values and tags. Reading, running and answering each of them alone costs 8 µs; in micro-batches of 32 it costs
less than 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import fields
from functools import partial
from threading import Lock
from typing import NamedTuple
from weakref import ref

import numpy as np
from typing_extensions import override

from penstock.core import wire
from penstock.core.errors import RequestError
from penstock.core.request import Flush, Request, Response
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.answer_sizes import sizes_of
from penstock.protocols.answers import Account
from penstock.protocols.fast_path.alike import Alike
from penstock.protocols.fast_path.reading import varints
from penstock.protocols.penstock_v1.encoder import Piece, encode, encode_many, weave, width
from penstock.protocols.penstock_v1.results import ID, RESPONSE, RESULTS, TAG, result_of
from penstock.protocols.request import ProtocolRequest
from penstock.protocols.stream import Stream
from penstock.protocols.stream_items import Result
from penstock.scheduling.execution.failures import cancelled_by_tag

LARGEST_ANSWER = 1 << 20  # bytes, of a whole micro-batch; larger ones are sent one by one


class MicroBatch:
    """Matching requests, one after another in one message, which are run and answered as one.

    Requests that are cancelled by their tags are removed; the others continue.

    Args:
        stream: the stream they came on.
        found: the requests.
        model: the model that answers.

    Attributes:
        count: the number of requests.
        parts: their results, once they are known; see `StreamItem`.
        stream: the stream they came on.
        dropped: set once the answers are no longer needed.
        gone: the places of the requests that were cancelled by their tags.
        told: the places of those whose end was reported to the model's observer.
    """

    __slots__ = (
        "_answers", "_form", "_ids", "_left", "_lock", "_model", "_request", "_rows", "_tags", "count",
        "dropped", "gone", "parts", "stream", "told",
    )  # fmt: skip

    def __init__(self, stream: Stream, found: Alike, model: Model) -> None:
        self.stream = stream
        self.count = self._left = found.count
        self.parts: Result | None = None
        self.dropped = False
        self.gone: set[int] = set()
        self.told: set[int] = set()
        self._model = model
        self._rows, self._form = found.known.asked.rows, found.known.asked.form
        self._tags, self._ids = found.tags, found.ids
        self._answers: list[bytes | None] = [None] * self.count
        self._lock = Lock()
        request = Members(self, found, model)
        self._request: Callable[[], Members | None] = lambda: request

    def submit(self) -> None:
        """Hands its requests to the engine."""
        request = self._request()
        assert request is not None, "it has been submitted before"
        # From now on the queue or the run refers to it. A reference here would make a reference cycle.
        self._request = ref(request)
        self.stream.submit(self, self._model, request)

    def learn(self, size: int) -> Model | None:
        """Takes the bytes of its answers; see `StreamItem`."""
        request = self._request()
        if request is None or not sizes_of(self._model).learn(request, size):
            return None
        return self._model

    def cancel(self) -> None:
        """Drops the requests, because their answers are no longer needed."""
        request = self._request()
        if request is not None:
            self.stream.service.engine.cancel(self._model, request)

    def cancel_tags(self, tags: Set[int]) -> None:
        """Answers the requests of these tags with CANCELLED, and drops them; the others continue."""
        request, model, engine = self._request(), self._model, self.stream.service.engine
        # Looked up one by one: there may be far more tags than requests here.
        tagged = {place for place, number in enumerate(self._numbers().tolist()) if number in tags}
        if request is None or not tagged:
            return
        with self._lock:
            new = [place for place in request.places if place in tagged and self._is_open(place)]
            self.gone.update(new)
            rest = [place for place in request.places if place not in self.gone]
            # If none is left, or each runs alone, the code that drops them tells the observer.
            is_told = request.is_split or not rest
            if not is_told:
                request.count -= len(new)
                self.told.update(new)
        for place in new:
            self._take(place, cancelled_by_tag())
        if new and not rest:
            engine.cancel(model, request)
        elif new and not is_told:
            kept = request.part(rest)
            if engine.replace(model, request, kept, request.part(new)):
                self._request = ref(kept)
            else:  # they are being run
                seconds = time.monotonic() - request.arrived
                model.observer.failed(request.rpc, cancelled_by_tag(), len(new), seconds)

    def answer(self, places: Sequence[int], result: Response | RequestError) -> Flush | None:
        """Receives the result of the requests at these places, which were run together."""
        if self._form and isinstance(result, Response) and self.stream.service.is_long_answer(result, True):
            self.stream.service.answer_elsewhere(partial(self._answer, places, result))
            return None
        return self._answer(places, result)

    def _answer(self, places: Sequence[int], result: Response | RequestError) -> Flush | None:
        if isinstance(result, Response) and len(places) == self.count:
            woven = self._woven(result)
            if woven is not None:
                with self._lock:
                    are_open = self._left == self.count
                    self._left = 0 if are_open else self._left
                if are_open:
                    return self.stream.done(self, ((woven, self.count),))
        flush: Flush | None = None
        for index, place in enumerate(places):
            if self._is_open(place):  # false if it was cancelled, or if encoding a later one failed
                one = result if isinstance(result, RequestError) else self._share(result, index)
                flush = self._take(place, one) or flush
        return flush

    def split(self, request: Members) -> Sequence[Request]:
        """Splits requests that were run together into single requests; see `Request.split`."""
        with self._lock:
            request.is_split = True
            places = [place for place in request.places if place not in self.told]
        return (request,) if len(request.places) == 1 else [request.part([place]) for place in places]

    def _is_open(self, place: int) -> bool:
        return self._left > 0 and self._answers[place] is None

    def _take(self, place: int, result: Response | RequestError) -> Flush | None:
        """Receives the result of one request; only its first result counts."""
        tag, id = self._tags[place].tobytes() or b"\0", self._ids[place].tobytes().decode()
        answer: bytes | RequestError
        if isinstance(result, RequestError):
            answer = result
        else:
            asked = _Asked(self._model, id, wire.read_varint(tag, 0)[0], self._form)
            answer = encode(result, asked)
        part = result_of(tag, answer, id)
        with self._lock:
            if not self._is_open(place):
                return None
            self._answers[place] = part
            self._left -= 1
            if self._left:
                return None
        return self.stream.done(self, [(each, 1) for each in self._answers if each is not None])

    def _numbers(self) -> Array:
        """The tags as numbers, uint64 [count]; 0 for requests without a tag."""
        return varints(self._tags) if self._tags.size else np.zeros(self.count, np.uint64)

    def _share(self, response: Response, index: int) -> Response:
        if response.stop is None:  # it ran alone: all outputs are its own
            return response
        rows = self._rows
        start = response.start + index * rows
        return Response(response.run, response.names, response.queue_seconds, start, start + rows)

    def _woven(self, response: Response) -> bytes | None:
        """All results as one message; None if they differ in length, or are too large."""
        tags, ids = self._tags, self._ids
        answer = encode_many(response, self._model, self._rows, ids, tags, self._form)
        if not answer:
            return None
        result: list[Piece] = [(TAG, tags)] if tags.size else []
        result += _within(RESPONSE, width(answer), answer)
        if ids.size:
            result.append((ID + wire.varint(ids.shape[1]), ids))
        size = width(result)
        if size * self.count > LARGEST_ANSWER:
            return None
        return weave(_within(RESULTS, size, result), self.count)


def _within(key: bytes, size: int, pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Pieces as the content, of `size` bytes, of a field with this key."""
    (same, varied), *others = pieces
    return [(key + wire.varint(size) + same, varied), *others]


class _Asked(NamedTuple):
    """One request of a micro-batch, as the encoder sees it."""

    model: Model
    id: str
    tag: int
    form: bool


class Members(ProtocolRequest):
    """The core's request for a micro-batch, or for a part of one: what runs together.

    Args:
        batch: the micro-batch.
        found: its requests.
        model: the model that answers.

    Attributes:
        places: the places of its requests in the micro-batch.
        count: how many of them end with this request; without those that were cancelled during the run.
        is_split: set once each of them runs alone.
    """

    __slots__ = ("__weakref__", "_batch", "count", "is_split", "places")

    def __init__(self, batch: MicroBatch, found: Alike, model: Model) -> None:
        self._batch = batch
        self.count = batch.count
        self.places: Sequence[int] = range(batch.count)
        self.is_split = False
        super().__init__(
            batch.stream, model, found.known.asked, found.inputs(), "", 0, found.messages.nbytes,
            time.monotonic(), None, found.seconds,
        )  # fmt: skip
        self.rows *= batch.count

    def part(self, places: Sequence[int]) -> Members:
        """The request for a part of them, with arrays of its own."""
        count, wanted = len(self.places), set(places)
        rows = self.rows // count
        chosen = [index for index, place in enumerate(self.places) if place in wanted]
        part = Members.__new__(Members)
        for name in _COPIED:
            setattr(part, name, getattr(self, name))
        part.inputs = {
            name: array.reshape(count, rows, *array.shape[1:])[chosen].reshape(-1, *array.shape[1:])
            if array.ndim
            else array
            for name, array in self.inputs.items()
        }
        part.rows, part.size = rows * len(places), self.size // count * len(places)
        part.places, part.count, part.is_split = places, len(places), False
        return part

    @property
    def cancelled(self) -> bool:
        """Whether all its answers are no longer needed."""
        batch = self._batch
        return batch.dropped or (bool(batch.gone) and batch.gone.issuperset(self.places))

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        """Does nothing here: cancelled tags are kept by the micro-batch, which is only dropped as a whole."""
        if value:
            self._batch.dropped = True

    @override
    def counted(self) -> tuple[Account, object]:
        return self._batch.stream.account, self._batch

    @override
    def split(self) -> Sequence[Request]:
        return self._batch.split(self)

    @override
    def apart(self, most: int) -> Sequence[tuple[int, Request]]:
        count = len(self.places)
        rows = self.rows // count
        return [
            (
                start,
                Request(
                    {
                        name: array[start : start + rows] if array.ndim else array
                        for name, array in self.inputs.items()
                    },
                    self.outputs, rows, self.shape_key, self.rpc, self.arrived,
                ),
            )
            for start in range(0, count * rows, -(-count // most) * rows or 1)
        ]  # fmt: skip

    @override
    def reply(self, result: Response | RequestError) -> Flush | None:
        return self._batch.answer(self.places, result)


_COPIED = (*(each.name for each in fields(Request) if each.init), *ProtocolRequest.__slots__, "_batch")
"""What a part has in common with its whole."""
