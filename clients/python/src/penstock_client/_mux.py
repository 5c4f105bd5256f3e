"""The requests that share a stream: which wait to be sent, and which for an answer. No I/O, no waiting.

Both clients drive a `Multiplexer`. A request has a slot from `add` until its answer has come, even where
nobody waits for it any more: its number is the tag, so a late answer never meets a later request. Requests
leave in messages of up to half of all that are pending. If one message took all of them, client and server
would work by turns; with half, each has something to do while the other half is under way.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from penstock_client._errors import PenstockError, Unavailable, from_status, not_run, was_not_run
from penstock_client._merge import Member, Merged, Merger
from penstock_client._runs import RESPONSE_KEY, TAG_KEY, Runs
from penstock_client._wire import read_varint, request_opened
from penstock_proto.v1 import prediction_pb2

MAX_PENDING = 4096
MOST_PENDING = 2**14 - 2**7  # tags have two bytes: fewer would be read otherwise, more are not needed
MESSAGE_BYTES = 1 << 20
"""Above this many bytes nothing more is put into a message: it would save nothing."""
QUEUED_BYTES = 64 << 20
"""Above this many bytes that wait to be sent, callers wait for room."""
OVERLAPPING = 8
"""Messages of fewer requests are not worth being split: the message is then the cost."""
OPENINGS = 8  # about five seconds
"""A call that was not sent outlasts so many failed attempts to open a stream, less one."""
ATTEMPTS = 3
"""How often a request is sent that the server answers with UNAVAILABLE."""
PROBE_SECONDS = 5.0
"""How long a server may take to answer before a stream is opened."""
LONGEST_HINT = 1.0
"""A server that asks to be left alone for more seconds than this is not asked again."""

_ID_KEY = prediction_pb2.PredictResult.ID_FIELD_NUMBER << 3 | 2
_RESULTS_KEY = prediction_pb2.PredictStreamResponse.RESULTS_FIELD_NUMBER << 3 | 2
_REQUEST_TAG_KEY = prediction_pb2.PredictRequest.TAG_FIELD_NUMBER << 3
_LOWEST = 1 << 7
_TAGS = [bytes((_REQUEST_TAG_KEY, n & 0x7F | 0x80, n >> 7)) for n in range(2**14)]
_NOT_RUN = ("the server is stopping", "failed to connect to all addresses")
"""How the status of a stream begins that a Penstock server ended after it answered all that it had read; and
of one for which gRPC found no connection, so that nothing ever left."""


TOO_LATE = "the timeout passed before an answer came"


class Waiter(Protocol):
    """Somebody who waits for the answer to a request."""

    def done(self) -> bool:
        """Whether nobody waits any more."""


Outcome: TypeAlias = Any
"""How a request ended: a serialized PredictResponse, a `Prediction` already read from one, or an error."""

Settled: TypeAlias = list[tuple[Any, Outcome]]
"""Waiters, and what each of them gets."""


class Unsupported(Exception):
    """The server has no streams: the request, which it did not take, can go as a unary call."""

    def again(self) -> Unsupported:
        """A copy for one more caller."""
        return Unsupported(*self.args)


class Multiplexer:
    """The requests of one client that are pending. Not safe for threads by itself.

    Args:
        limit: the most requests that are pending, 1 to `MOST_PENDING`.
        merging: whether requests that fit together are merged.
    """

    def __init__(self, limit: int, merging: bool) -> None:
        self._limit = limit
        self._free = list(range(_LOWEST + limit - 1, _LOWEST - 1, -1))
        self._waiting: list[Any] = [None] * (_LOWEST + limit)
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._merger = Merger() if merging else None
        self._merged: dict[int, Merged] = {}
        self._runs = Runs()
        self.abandoned = False  # somebody no longer waits for a request that was not sent

    @property
    def has_room(self) -> bool:
        """Whether one more request may be added."""
        return bool(self._free) and self._bytes < QUEUED_BYTES

    @property
    def room(self) -> int:
        """How many more requests may be added, as far as their number goes."""
        return len(self._free) if self._bytes < QUEUED_BYTES else 0

    @property
    def has_queued(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._queue) or (self._merger is not None and self._merger.count > 0)

    @property
    def has_pending(self) -> bool:
        """Whether anything is queued or unanswered."""
        return len(self._free) < self._limit

    def add(self, waiter: Waiter, parts: list[bytes]) -> int:
        """Takes a request, while there is room, to be sent; returns its slot.

        Args:
            waiter: who waits for the answer.
            parts: the request's serialized fields, but for its tag.
        """
        slot = self._free.pop()
        self._waiting[slot] = waiter
        self._enqueue(slot, parts)
        return slot

    def add_member(self, member: Member) -> int:
        """Takes a request, while there is room, that may be merged with others; returns its slot."""
        member.slot = self._free.pop()
        self._waiting[member.slot] = member.waiter
        assert self._merger is not None
        self._bytes += member.size
        self._merger.add(member)
        return member.slot

    def take(self) -> bytes | None:
        """The next message to send: what has gathered, up to a number and a size; None where nothing has."""
        if self.abandoned:
            self._forget_abandoned()
        most = (self._limit - len(self._free) + 1) >> 1
        if most < OVERLAPPING:
            most = OVERLAPPING
        if self._merger is not None:
            self._merge()
        queue, size = self._queue, 0
        taken: list[bytes] = []
        while queue and len(taken) < most and size < MESSAGE_BYTES:
            wire = queue.popleft()
            taken.append(wire)
            size += len(wire)
        self._bytes -= size
        return b"".join(taken) if taken else None

    def receive(self, data: bytes, settled: Settled) -> None:
        """Takes a message of the server, a serialized PredictStreamResponse.

        Args:
            data: the message.
            settled: gets what waiters get by it, also where it turns out to be none half-way.

        Raises:
            PenstockError: UNKNOWN, when the message is none, or answers what nobody asked.
        """
        at, end, alike = 0, len(data), True
        try:
            while at < end:
                if data[at] != _RESULTS_KEY:
                    raise IndexError
                size, start = (data[at + 1], at + 2) if data[at + 1] < 0x80 else read_varint(data, at + 1)
                stop = start + size
                if stop > end:
                    raise IndexError
                run = self._runs.read(data, at, start, stop) if alike else None
                if run is not None:
                    for slot, prediction in zip(run.slots, run.predictions, strict=True):
                        self._settle(slot, prediction, settled)
                    at = run.stop
                else:
                    alike = False  # to try at every result would take long
                    self._settle(*_result(data, start, stop), settled)
                    at = stop
        except (IndexError, DecodeError):
            raise PenstockError(f"the server sent {end} bytes that are no PredictStreamResponse") from None

    def broken(self) -> list[Any]:
        """The stream has ended: those who wait for an answer to what was sent. What was not stays queued."""
        unsent = {_slot(wire) for wire in self._queue}
        if self._merger is not None:
            unsent |= self._merger.slots()
        for slot, merged in list(self._merged.items()):
            if slot in unsent:
                unsent |= merged.slots()
            else:
                del self._merged[slot]
        return self._release(slot for slot in range(len(self._waiting)) if slot not in unsent)

    def give_up(self) -> list[Any]:
        """Everybody who waits, whether or not the request was sent; nothing is pending afterwards."""
        self._queue.clear()
        self._bytes = 0
        if self._merger is not None:
            self._merger = Merger()
        return self.broken()

    def _settle(self, slot: int, outcome: Outcome, settled: Settled) -> None:
        """Notes how the request in a slot has ended, and frees the slot."""
        waiter, self._waiting[slot] = self._waiting[slot], None
        if waiter is None:
            raise PenstockError(f"the server answered request {slot}, which waits for no answer")
        if self._merged and slot in self._merged:
            self._split(slot, outcome, settled)
        else:
            self._free.append(slot)
            settled.append((waiter, outcome))

    def _enqueue(self, slot: int, parts: list[bytes]) -> None:
        body = b"".join((*parts, _TAGS[slot]))
        wire = request_opened(len(body)) + body
        self._bytes += len(wire)
        self._queue.append(wire)

    def _merge(self) -> None:
        """Puts requests that may be merged into the queue, merged, as many as a message holds.

        All of them, not half: what a merged request costs the server depends little on its rows, so that few
        large ones are worth more than keeping both sides busy. The rest may still be given up.
        """
        assert self._merger is not None
        size = 0
        for members in self._merger.take():
            merged = Merged(members)
            slot = members[0].slot
            self._bytes -= sum(member.size for member in members)
            if len(members) > 1:
                self._merged[slot] = merged
            self._enqueue(slot, merged.parts())
            size += len(self._queue[-1])
            if size >= MESSAGE_BYTES:
                return

    def _split(self, slot: int, outcome: Outcome, settled: Settled) -> None:
        """Gives every member of a merged request its part, or sends all of them again, each by itself."""
        members, outcomes = self._merged.pop(slot).split(outcome)
        for i, member in enumerate(members):
            if outcomes is None:
                self._waiting[member.slot] = member.waiter
                self._enqueue(member.slot, Merged([member]).parts())
            else:
                self._waiting[member.slot] = None
                self._free.append(member.slot)
                settled.append((member.waiter, outcomes[i]))

    def _forget_abandoned(self) -> None:
        """Drops the requests in the queue that nobody waits for any more."""
        self.abandoned = False
        kept: deque[bytes] = deque()
        for wire in self._queue:
            slot = _slot(wire)
            if slot not in self._merged and self._waiting[slot].done():
                self._bytes -= len(wire)
                self._release((slot,))
            else:
                kept.append(wire)
        self._queue = kept
        if self._merger is not None:
            for member in self._merger.drop_abandoned():
                self._bytes -= member.size
                self._release((member.slot,))

    def _release(self, slots: Iterable[int]) -> list[Any]:
        waiters = []
        for slot in slots:
            waiter, self._waiting[slot] = self._waiting[slot], None
            if waiter is not None:
                waiters.append(waiter)
                self._free.append(slot)
        return waiters


def backoff(failures: int) -> float:
    """The seconds to wait after so many failures in a row, 1 or more: ever longer, and never alike."""
    return min(2.0, 0.05 * 2.0**failures) * random.uniform(0.5, 1.0)


def lost(error: PenstockError) -> PenstockError | Unsupported:
    """What a request ends with that was sent and not answered when its stream ended like this."""
    if error.status is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported(error.message)
    if error.status not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return error
    if error.message.startswith(_NOT_RUN):
        return not_run(error.again())
    return Unavailable(
        "the connection was lost after the request had been sent, and it is unknown whether the server "
        f"ran it: {error.message}"
    )


def may_ask_again(error: PenstockError, attempt: int) -> bool:
    """Whether a request that ended with this at its n-th attempt, from 1, can be sent again without harm."""
    hint = error.retry_after_seconds
    return was_not_run(error) and attempt < ATTEMPTS and (hint is None or hint <= LONGEST_HINT)


def _result(data: bytes, at: int, stop: int) -> tuple[int, Outcome]:
    """The tag and the outcome of a serialized PredictResult."""
    if data[at] == TAG_KEY and data[at + 1] > 0x7F >= data[at + 2]:
        slot, after = data[at + 1] & 0x7F | data[at + 2] << 7, at + 3
        if data[after] == _ID_KEY and data[after + 1] < 0x80:
            after += 2 + data[after + 1]
        if data[after] == RESPONSE_KEY:
            size, start = (data[after + 1], after + 2)
            if size > 0x7F:
                size, start = read_varint(data, after + 1)
            if start + size == stop:
                return slot, data[start:stop]
    result = prediction_pb2.PredictResult.FromString(data[at:stop])
    if result.HasField("response"):
        return result.tag, result.response.SerializeToString()
    error = from_status(result.error)
    if isinstance(error, Unavailable):
        return result.tag, not_run(error)
    return result.tag, error


def _slot(wire: bytes) -> int:
    return wire[-2] & 0x7F | wire[-1] << 7
