"""What the streams of both doors have in common: their flow, their order and their end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import grpc

from penstock.messages import Flush
from penstock.rpc.door import Door
from penstock.rpc.outbox import Outbox
from penstock.transport.call import OK, ServerCall, Status

STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping; all requests it took are answered")

MOST_ANSWER_BYTES = 64 * 2**20
"""No more is read while the answers to what is in flight are so large, or will be if they are as the last."""
UNKNOWN_ANSWER_BYTES = 2**20  # until there is one

Part: TypeAlias = tuple[bytes, int]
"""A serialized message, and how many results are in it."""


class StreamItem(Protocol):
    """A request of a stream, or several that are answered together.

    Attributes:
        parts: its results, once they are there.
    """

    parts: Sequence[Part] | None

    def cancel(self, door: Door) -> None:
        """Drops what has no result yet, since nobody waits for it."""


class Stream(ABC):
    """One stream: takes requests while there is room, and sends results as they gather.

    The polling thread, runners and workers all come here; what they share is behind the lock, or is the
    set of waiting items, whose single operations are atomic, or the outbox, which has a lock of its own.

    Args:
        call: the call.
        door: the service it belongs to.
        outbox: sends the results.
        ordered: whether they are sent in the order of the requests, else as they come.

    Attributes:
        has_sequence: whether steps without an id are of a sequence of its own, for models that keep a state.
    """

    has_sequence = True

    def __init__(self, call: ServerCall, door: Door, outbox: Outbox, ordered: bool) -> None:
        self._call = call
        self._door = door
        self._outbox = outbox
        self._ordered = ordered
        self._in_order: deque[StreamItem] = deque()  # all that are not in the outbox yet, in request order
        self._waiting: set[StreamItem] = set()  # all that have no result yet
        self._in_flight = 0  # requests received and not known to have left, and messages being decoded
        self._lock = threading.Lock()
        self._closed = False
        self._end: Status | None = None  # what to end with once nothing is in flight
        self._paused = False
        self._answer_bytes = UNKNOWN_ANSWER_BYTES

    @property
    def sender(self) -> object:
        """Who it came from."""
        return self._call.peer()

    @abstractmethod
    def _handle(self, data: bytes) -> None:
        """Takes a message: hands it to `_took` or `_end_with` in the end."""

    def received(self, message: bytes) -> None:
        """The next message has come."""
        with self._lock:
            self._in_flight += 1  # the message itself, so that no end comes while it is decoded
        if len(message) > self._door.offload_bytes:
            self._door.offload(self._call, message, self._handle)
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """The client has finished sending."""
        self._end = self._end or OK
        self._finish_if_done()

    def sent(self) -> None:
        """The last message has left."""
        count = self._outbox.sent()
        self._door.telemetry.stream_sent(1, count)
        with self._lock:
            self._in_flight -= count
            resume = self._paused and not self._is_full()
            self._paused = self._paused and not resume
        self.flush()
        if resume:
            self._receive()

    def closed(self, cancelled: bool) -> None:
        """The call is over."""
        self._closed = True
        self._door.gone(self)
        for item in tuple(self._waiting):
            item.cancel(self._door)
        self._door.engine.release(self)
        # What runs is not answered any more: what it brought is not to wait for the garbage collector.
        with self._lock:
            self._waiting.clear()
            self._in_order.clear()

    def stop(self) -> None:
        """Reads nothing more, and ends with UNAVAILABLE once all that was taken is answered."""
        self._end = self._end or STOPPING
        self._finish_if_done()

    def done(self, item: StreamItem) -> Flush:
        """A request, or all that are answered together, has its result."""
        self._waiting.discard(item)
        if not self._ordered:
            self._put(item)
        return self.flush

    def flush(self) -> None:
        """Sends what is ready."""
        if self._closed:
            return
        if self._ordered:
            self._move_in_order()
        self._outbox.flush()
        self._finish_if_done()

    def _coming(self, count: int) -> None:
        """A message with so many requests is being taken."""
        self._door.telemetry.stream_received(1, count)
        with self._lock:
            self._in_flight += count

    def _took(self) -> None:
        """All of a message has been taken: the next one's requests come after these."""
        if self._closed:  # while a worker was decoding
            self._door.engine.release(self)  # what has begun since
            return
        with self._lock:
            self._in_flight -= 1  # the message itself
            self._paused = paused = self._is_full()
        self.flush()
        if not paused:
            self._receive()

    def _is_full(self) -> bool:
        """Whether so much is in flight that nothing more is to be read."""
        count = self._in_flight
        return count >= self._door.max_stream_requests or count * self._answer_bytes > MOST_ANSWER_BYTES

    def _end_with(self, end: Status) -> None:
        """Ends the stream because of a message that is none, once what came before it is answered."""
        self._end = end
        with self._lock:
            self._in_flight -= 1
        self._finish_if_done()

    def _add(self, item: StreamItem) -> None:
        self._waiting.add(item)
        if self._ordered:
            self._in_order.append(item)

    def _put(self, item: StreamItem) -> None:
        for part, count in item.parts or ():
            self._outbox.put(part, count)
            # The largest of the last ones, roughly.
            self._answer_bytes = max(len(part) // count, self._answer_bytes * 7 // 8)

    def _receive(self) -> None:
        if self._end is None:
            self._call.receive()

    def _move_in_order(self) -> None:
        """Puts the results at the head of the line into the outbox."""
        line = self._in_order
        with self._lock:
            while line and line[0].parts is not None:
                self._put(line.popleft())

    def _finish_if_done(self) -> None:
        if self._end is not None and not self._in_flight:
            self._call.finish(self._end)
