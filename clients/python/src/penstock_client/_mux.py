"""The multiplexer: the pending requests of a shared stream, queued or unanswered. No I/O, no waiting.

Both clients use a `Multiplexer`. A request has a slot from `add` until its answer has come, even if its
caller has stopped waiting: the slot's number is the tag, so a late answer never reaches a later request. The
next message tells the server which callers have stopped waiting. A message has up to half of all pending
requests. If it had all of them, client and server would work by turns; with half, each can work while the
other half is in flight.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from penstock_client._deadline import Deadline
from penstock_client._errors import GONE, PenstockError, Unavailable, from_status, not_run, was_not_run
from penstock_client._merge import Member, Merged, Merger
from penstock_client._runs import RESPONSE_KEY, TAG_KEY, Runs, is_id
from penstock_client._wire import opened, read_varint, request_opened
from penstock_proto.v1 import prediction_pb2

MAX_PENDING = 4096
MOST_PENDING = 2**14 - 2**7  # tags of exactly two bytes, so that all results have the same layout
MESSAGE_BYTES = 1 << 20
"""Above this many bytes nothing more is added to a message: that would save nothing."""
QUEUED_BYTES = 64 << 20
"""While more bytes than this wait to be sent, callers wait."""
OVERLAPPING = 8
"""Messages with fewer requests are not split: the cost per message would dominate."""
OPENINGS = 20  # about a second and a half
"""After this many failed attempts in a row to open a stream, unsent calls end with the last error. A call
with a timeout is then sent again."""
ATTEMPTS = 3
"""Most attempts for a request that the server answers with UNAVAILABLE, or that has no timeout."""
LONGEST_DELAY = 0.1
"""The longest delay before another attempt, in seconds: a server that is back is found soon."""
PROBE_SECONDS = 5.0
"""How long a server may take to answer before a stream is opened."""
LONGEST_HINT = 1.0
"""A longer retry hint of the server, in seconds, ends the attempts."""

_RESULTS_KEY = prediction_pb2.PredictStreamResponse.RESULTS_FIELD_NUMBER << 3 | 2
_REQUEST_TAG_KEY = prediction_pb2.PredictRequest.TAG_FIELD_NUMBER << 3
_CANCEL = prediction_pb2.PredictStreamRequest.CANCEL_FIELD_NUMBER
_LOWEST = 1 << 7
_TAGS = [bytes((_REQUEST_TAG_KEY, n & 0x7F | 0x80, n >> 7)) for n in range(2**14)]


class Waiter(Protocol):
    """The object on which a caller waits for the answer to a request."""

    def done(self) -> bool:
        """Whether the caller has its answer, or has stopped waiting."""


Outcome: TypeAlias = Any
"""How a request ended: a serialized PredictResponse, a `Prediction` already read from one, or an error."""

Settled: TypeAlias = list[tuple[Any, Outcome]]
"""Waiters with their outcomes."""


class Unsupported(Exception):
    """The server does not support streams; the request was not accepted, so a unary call can send it."""

    def again(self) -> Unsupported:
        """A copy for another caller."""
        return Unsupported(*self.args)


class Multiplexer:
    """The pending requests of one client. Not thread-safe by itself.

    Args:
        limit: most pending requests, 1 to `MOST_PENDING`.
        merging: whether compatible requests are merged.
    """

    def __init__(self, limit: int, merging: bool) -> None:
        self._limit = limit
        self._free = list(range(_LOWEST + limit - 1, _LOWEST - 1, -1))
        self._waiting: list[Any] = [None] * (_LOWEST + limit)
        self._deadlines: list[Deadline | None] = [None] * (_LOWEST + limit)
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._merger = Merger() if merging else None
        self._merged: dict[int, Merged] = {}
        self._runs = Runs()
        self._cancelled: set[int] = set()  # sent, and then cancelled at the server
        self.abandoned = False  # a caller has stopped waiting since `take` last looked

    @property
    def has_room(self) -> bool:
        """Whether one more request may be added."""
        return bool(self._free) and self._bytes < QUEUED_BYTES

    @property
    def room(self) -> int:
        """The number of requests that may be added, by the limit on their number."""
        return len(self._free) if self._bytes < QUEUED_BYTES else 0

    @property
    def has_queued(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._queue) or (self._merger is not None and self._merger.count > 0)

    @property
    def has_pending(self) -> bool:
        """Whether anything is queued or unanswered."""
        return len(self._free) < self._limit

    def add(self, waiter: Waiter, parts: list[bytes], deadline: Deadline | None = None) -> int:
        """Adds a request to be sent and returns its slot; only while `room` is above 0.

        Args:
            waiter: the object on which the caller waits for the answer.
            parts: the request's serialized fields, without its tag.
            deadline: until when the caller waits, for `late`.
        """
        slot = self._free.pop()
        self._waiting[slot] = waiter
        self._deadlines[slot] = deadline
        body = b"".join((*parts, _TAGS[slot]))  # as `_enqueue`, without a call
        self._queue.append(wire := request_opened(len(body)) + body)
        self._bytes += len(wire)
        return slot

    def add_member(self, member: Member, deadline: Deadline | None = None) -> int:
        """As `add`, for a request that may be merged."""
        member.slot = self._free.pop()
        self._waiting[member.slot] = member.waiter
        self._deadlines[member.slot] = deadline
        assert self._merger is not None
        self._bytes += member.size
        self._merger.add(member)
        return member.slot

    def late(self, now: float) -> tuple[list[tuple[Any, Deadline]], float]:
        """The waiters whose deadlines have passed, and the next deadline; infinity if there is none."""
        late, earliest = [], inf
        for slot, waiter in self._pending():
            deadline = self._deadlines[slot]
            if deadline is not None and deadline.at is not None and not waiter.done():
                if deadline.at <= now:
                    late.append((waiter, deadline))
                elif deadline.at < earliest:
                    earliest = deadline.at
        return late, earliest

    def take(self) -> bytes | None:
        """The next message to send: queued requests, up to a number and a size; None if there are none."""
        cancels = self._cancel_abandoned() if self.abandoned else b""
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
        if cancels:
            taken.append(cancels)
        return b"".join(taken) if taken else None

    def receive(self, data: bytes, settled: Settled) -> None:
        """Handles a message of the server, a serialized PredictStreamResponse.

        Args:
            data: the message.
            settled: receives the answered waiters and their outcomes, also if a later part is broken.

        Raises:
            PenstockError: UNKNOWN, if it cannot be parsed, or answers a request that is not pending.
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
                    alike = False  # trying it at every result would take too long
                    self._settle(*_result(data, start, stop), settled)
                    at = stop
        except (IndexError, DecodeError):
            raise PenstockError(
                f"the server sent {end} bytes that cannot be parsed as PredictStreamResponse"
            ) from None

    def broken(self) -> list[Any]:
        """After the end of the stream: the waiters of all sent requests. Unsent requests stay queued."""
        unsent = {_slot(wire) for wire in self._queue}
        if self._merger is not None:
            unsent |= self._merger.slots()
        for slot, merged in list(self._merged.items()):
            if slot in unsent:
                unsent |= merged.slots()
            else:
                del self._merged[slot]
        self._cancelled.clear()
        return self._release(slot for slot in range(len(self._waiting)) if slot not in unsent)

    def give_up(self) -> list[Any]:
        """All waiters, of sent and unsent requests; nothing is pending afterwards."""
        self._queue.clear()
        self._bytes = 0
        if self._merger is not None:
            self._merger = Merger()
        return self.broken()

    def _settle(self, slot: int, outcome: Outcome, settled: Settled) -> None:
        """Stores the outcome of the request in a slot, and frees the slot."""
        waiter, self._waiting[slot] = self._waiting[slot], None
        if waiter is None:
            raise PenstockError(f"the server answered request {slot}, which is not pending")
        if self._cancelled:
            self._cancelled.discard(slot)
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
        """Merges requests and adds them to the queue, as many as a message can have.

        All of them, not half: the server's cost of a merged request depends little on its rows, so few large
        requests save more than work on both sides at once. The others may still be dropped.
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
        """Gives every member of a merged request its part, or sends all members again, separately."""
        members, outcomes = self._merged.pop(slot).split(outcome)
        for i, member in enumerate(members):
            if outcomes is None:
                self._waiting[member.slot] = member.waiter
                self._enqueue(member.slot, Merged([member]).parts())
                self.abandoned |= member.waiter.done()
            else:
                self._waiting[member.slot] = None
                self._free.append(member.slot)
                settled.append((member.waiter, outcomes[i]))

    def _cancel_abandoned(self) -> bytes:
        """Drops unsent requests whose callers have stopped waiting.

        Returns:
            The field of a PredictStreamRequest that cancels the sent ones; empty if there are none.
        """
        self.abandoned = False
        if self._merger is not None:
            for member in self._merger.drop_abandoned():
                self._bytes -= member.size
                self._release((member.slot,))
        abandoned = self._abandoned()
        if not abandoned.isdisjoint(map(_slot, self._queue)):
            kept: deque[bytes] = deque()
            for wire in self._queue:
                slot = _slot(wire)
                if slot in abandoned:
                    abandoned.remove(slot)
                    self._bytes -= len(wire)
                    merged = self._merged.pop(slot, None)
                    self._release((slot,) if merged is None else merged.slots())
                else:
                    kept.append(wire)
            self._queue = kept
        abandoned -= self._cancelled
        self._cancelled |= abandoned
        tags = b"".join([_TAGS[slot][1:] for slot in sorted(abandoned)])
        return opened(_CANCEL, len(tags)) + tags if tags else b""

    def _abandoned(self) -> set[int]:
        """The slots of requests for which no caller waits; for a merged request its first member's slot."""
        found = {slot for slot, waiter in self._pending() if waiter.done()}
        for slot, merged in self._merged.items():
            members = merged.slots()
            if members <= found:
                found -= members
                found.add(slot)
            else:
                found -= members
        return found

    def _pending(self) -> Iterator[tuple[int, Any]]:
        """The slots of pending requests, and their waiters."""
        pending = self._limit - len(self._free)
        for slot in range(_LOWEST, len(self._waiting)):  # the lowest slots are used first, so this ends early
            if not pending:
                return
            waiter = self._waiting[slot]
            if waiter is not None:
                pending -= 1
                yield slot, waiter

    def _release(self, slots: Iterable[int]) -> list[Any]:
        waiters = []
        for slot in slots:
            waiter, self._waiting[slot] = self._waiting[slot], None
            if waiter is not None:
                waiters.append(waiter)
                self._free.append(slot)
        return waiters


def backoff(failures: int) -> float:
    """The delay in seconds after this many failures in a row, 1 or more: increasing, and partly random."""
    return min(LONGEST_DELAY, 0.025 * 2.0**failures) * random.uniform(0.5, 1.0)


def lost(error: PenstockError) -> PenstockError | Unsupported:
    """The error of a request that was sent but not answered when its stream ended with this error."""
    if error.status is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported(error.message)
    if error.status not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return error
    if is_gone(error):
        return not_run(error.again())
    return Unavailable(
        "the connection was lost after the request had been sent, and it is unknown whether the server "
        f"ran it: {error.message}"
    )


def is_gone(error: PenstockError) -> bool:
    """Whether the error says that there is no server now, and that it has not run the request."""
    return error.message.startswith(GONE)


def may_ask_again(error: PenstockError, attempt: int, deadline: Deadline) -> bool:
    """Whether a request that failed with this at its n-th attempt, from 1, can safely be sent again.

    While the server itself is gone, a request with a timeout of its own is sent again until then.
    """
    if not was_not_run(error):
        return False
    if is_gone(error):
        return deadline.is_given or attempt < ATTEMPTS
    hint = error.retry_after_seconds
    return attempt < ATTEMPTS and (hint is None or hint <= LONGEST_HINT)


def _result(data: bytes, at: int, stop: int) -> tuple[int, Outcome]:
    """The tag and the outcome of a serialized PredictResult."""
    if data[at] == TAG_KEY and data[at + 1] > 0x7F >= data[at + 2]:
        slot, after = data[at + 1] & 0x7F | data[at + 2] << 7, at + 3
        if data[after] == RESPONSE_KEY:
            size, start = (data[after + 1], after + 2)
            if size > 0x7F:
                size, start = read_varint(data, after + 1)
            end = start + size
            if end == stop or is_id(data, end, stop):
                return slot, data[start:end]
    result = prediction_pb2.PredictResult.FromString(data[at:stop])
    if result.HasField("response"):
        return result.tag, result.response.SerializeToString()
    error = from_status(result.error)
    if isinstance(error, Unavailable):
        return result.tag, not_run(error)
    return result.tag, error


def _slot(wire: bytes) -> int:
    return wire[-2] & 0x7F | wire[-1] << 7
