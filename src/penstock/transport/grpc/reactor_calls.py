"""The calls of the reactor: the contract's calls on grpcio's completion queue.

Operations are started on a call with a tag. When they are done, the reactor calls the tag with their event.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc as core
from typing_extensions import override

from penstock.core.large_bytes import forget
from penstock.transport.grpc.call import BROKEN, IGNORING, OK, CallHandler, Kind, ServerCall, Status

NO_FLAGS = 0
NEVER = 1e11  # core's own lies beyond the year 5000

# Operations that are the same for every call, and keep nothing of a call.
GREETING = core.SendInitialMetadataOperation((), NO_FLAGS)
GOOD_END = core.SendStatusFromServerOperation((), grpc.StatusCode.OK.value[0], b"", NO_FLAGS)


class Events(Protocol):
    """What a call tells the reactor."""

    def report(self, error: BaseException) -> None:
        """Passes on an exception that a handler raised."""

    in_flight: int
    """How many calls have begun and not ended."""

    unwatched: set[ReactorCall]
    """The unary calls that have begun and are neither watched nor answered. It may become another set; a call
    takes itself out of the one that it put itself into."""

    def stream_opened(self, peer: str) -> None:
        """Counts a stream that has begun, by the far end of its connection."""

    def stream_closed(self, peer: str) -> None:
        """Counts a stream that has ended."""

    refused: list[tuple[ReactorCall, Status]]
    """Calls to be finished with a status at the end of the turn. Only the polling thread adds some."""

    serving: int
    """The identifier of the polling thread; 0 before it has begun."""

    unread: set[ReactorCall]
    """Watched unary calls whose message has not come."""

    streams_wait: bool
    """Whether messages of streams are to wait for the streams' next turn."""

    def message_taken(self) -> None:
        """Notes that a message has been handled."""

    streams_until: float
    """When the streams' time in this turn is over; 0.0 before their first message, which begins it."""

    def begin_streams(self) -> None:
        """Begins the streams' time in this turn."""

    def stream_message_taken(self) -> None:
        """Notes that a message of a stream has been handled."""

    def handle_later(self, call: ReactorCall, message: bytes) -> None:
        """Keeps a stream's message until the streams' next turn: then `take` is called with it."""

    def nothing_more_comes(self, call: ReactorCall) -> None:
        """Notes that a client sends no further messages: it has finished sending, or has disconnected."""

    def when_nothing_came(self) -> Status:
        """The status of a unary call whose message has not come."""


class ReactorCall(ServerCall):
    """A call on the completion queue. Its tags are its own methods.

    The lock makes "not over yet" and the start of an operation one step. Without it a late answer could
    start an operation on a queue that has been shut down, which ends the process.

    A call is watched once core has been asked for the event of its end. For a unary call this is done
    together with its answer, which saves an operation and an event, a tenth of a bare echo's CPU. If the
    answer takes long, the call is watched before that, so that it is noticed when the client disconnects.
    """

    __slots__ = (
        "_call", "_came", "_greeted", "_handler", "_kind", "_lock", "_over", "_peer", "_reactor",
        "_unwatched", "_watched",
    )  # fmt: skip

    can_exchange = True

    def __init__(self, method: str, kind: Kind, event: Any, deadline: float, reactor: Events) -> None:
        self.method = method
        self.metadata = event.invocation_metadata
        self.deadline = deadline
        self._call = event.call
        self._kind = kind
        self._reactor = reactor
        self._greeted = False
        self._over = False  # finished, or closed
        self._came = False  # whether a message has come
        self._watched = False
        self._lock = threading.Lock()
        self._handler: CallHandler = IGNORING

    def open(self, make_handler: Callable[[ServerCall], CallHandler]) -> None:
        """Makes the handler and starts the operations that give it messages and the end of the call."""
        self._reactor.in_flight += 1
        self._unwatched: set[ReactorCall] = self._reactor.unwatched
        self._unwatched.add(self)
        is_stream = self._kind is Kind.STREAM
        if is_stream:
            self._peer = self.peer()
            self._reactor.stream_opened(self._peer)
            self.watch()
        elif error := self._call.start_server_batch(
            (core.ReceiveMessageOperation(NO_FLAGS),), self._received
        ):
            raise refused(error)
        try:
            self._handler = make_handler(self)
        except Exception as error:
            self.fail(error)
        if is_stream:
            self._begin_stream()

    def watch(self) -> None:
        """Asks core for the event of the call's end, if that has not been done."""
        with self._lock:
            if not self._watched:
                start(self._call, (core.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)
                self._watched = True
                self._unwatched.discard(self)
                if not self._came and self._kind is Kind.UNARY:
                    self._reactor.unread.add(self)

    def end_unread(self, status: Status) -> None:
        """Ends a unary call whose message has not come; from any thread."""
        if not self._came and self._kind is Kind.UNARY:
            self.finish(status)

    def _begin_stream(self) -> None:
        """Asks for the first message and sends the headers, in one step.

        Some clients send nothing before they have seen headers. A stream that its handler has already ended
        gets none: clients try a call again only if no headers came.
        """
        with self._lock:
            if not self._over:
                operations = (core.ReceiveMessageOperation(NO_FLAGS),)
                start(self._call, operations if self._greeted else (*operations, GREETING), self._received)
                self._greeted = True

    def fail(self, error: Exception) -> None:
        """Ends the call because its handler raised an exception."""
        self._reactor.report(error)
        try:
            self.finish(BROKEN)
        except Exception as second:  # it must not end the thread that all calls need
            self._reactor.report(second)

    @override
    def peer(self) -> str:
        call = self._call
        if call is None:
            return ""
        peer: str | bytes = call.peer()
        return peer.decode() if isinstance(peer, bytes) else peer

    @override
    def identities(self) -> Sequence[bytes]:
        call = self._call
        return () if call is None else core.peer_identities(call) or ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        call = self._call
        properties = {} if call is None else core.auth_context(call) or {}
        return {text(key): values for key, values in properties.items()}

    @override
    def receive(self) -> None:
        with self._lock:
            if not self._over and self._kind is Kind.STREAM:
                start(self._call, (core.ReceiveMessageOperation(NO_FLAGS),), self._received)

    @override
    def send(self, message: bytes) -> None:
        with self._lock:
            if not self._over:
                operations = (core.SendMessageOperation(message, NO_FLAGS),)
                start(self._call, operations if self._greeted else (GREETING, *operations), self._sent)
                self._greeted = True

    @override
    def send_own(self, message: bytes) -> None:
        self.send(message)
        forget(message)

    @override
    def finish_own(self, status: Status, message: bytes) -> None:
        self.finish(status, message)
        forget(message)

    @override
    def exchange(self, message: bytes) -> None:
        with self._lock:
            if not self._over:
                operations = (
                    core.ReceiveMessageOperation(NO_FLAGS),
                    core.SendMessageOperation(message, NO_FLAGS),
                )
                start(self._call, operations if self._greeted else (*operations, GREETING), self._received)
                self._greeted = True

    @override
    def finish_in_turn(self, status: Status) -> None:
        reactor = self._reactor
        if get_ident() == reactor.serving:
            reactor.refused.append((self, status))
        else:  # the polling thread may be asleep
            self.finish(status)

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        if status is OK:
            end = GOOD_END
        else:  # as `_end_of`, but without a call
            number, details = status.sent
            end = core.SendStatusFromServerOperation(status.trailing, number, details, NO_FLAGS)
        operations: tuple[Any, ...] = (GREETING, end)
        if message is not None:
            operations = (GREETING, core.SendMessageOperation(message, NO_FLAGS), end)
        with self._lock:
            if self._over:
                return
            if self._greeted:
                operations = operations[1:]
            if self._watched:
                start(self._call, operations, _ignore)
            else:
                operations = (*operations, core.ReceiveCloseOnServerOperation(NO_FLAGS))
                if error := self._call.start_server_batch(operations, self._closed):
                    raise refused(error)
                self._watched = True
                self._unwatched.discard(self)
            self._over = True

    def _received(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if self._over:
            return
        if message is None:
            self._reactor.nothing_more_comes(self)
        elif self._kind is Kind.UNARY:
            self._came = True
            if self._watched:
                self._reactor.unread.discard(self)
            self._handler.received(message)
            self._reactor.message_taken()
        elif self._reactor.streams_wait:
            self._reactor.handle_later(self, message)
        else:
            self.take(message)

    def take(self, message: bytes) -> None:
        """Handles a message of a stream."""
        if not self._over:
            reactor = self._reactor
            if not reactor.streams_until:
                reactor.begin_streams()
            self._handler.received(message)
            reactor.stream_message_taken()

    def half_close(self) -> None:
        """The client has finished sending."""
        if self._over:
            return
        if self._kind is Kind.STREAM:
            self._handler.half_closed()
        elif not self._came:
            self.finish(self._reactor.when_nothing_came())

    def _sent(self, event: Any) -> None:
        if event.success and not self._over:  # else closed() follows
            self._handler.sent()

    def _closed(self, event: Any) -> None:
        with self._lock:
            self._over = True
            # Core keeps the connection while its call is referenced, as a late answer may still do.
            self._call = None
        # The handler refers to its call: a reference cycle, which would wait for the garbage collector.
        handler, self._handler = self._handler, IGNORING
        if not self._came:
            self._reactor.unread.discard(self)
        try:
            handler.closed(bool(event.batch_operations[-1].cancelled()))
        finally:
            if self._kind is Kind.STREAM:
                self._reactor.stream_closed(self._peer)
            self._reactor.in_flight -= 1


def start(call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> None:
    """Starts operations on a call, as one step.

    Raises:
        RuntimeError: gRPC refuses them; none was started.
    """
    error = call.start_server_batch(operations, tag)
    if error:
        raise refused(error)


def refused(error: int) -> RuntimeError:
    """The error of operations that gRPC does not start."""
    return RuntimeError(f"gRPC refuses the operations with error {error}")


def _end_of(status: Status) -> Any:
    number, details = status.sent
    return core.SendStatusFromServerOperation(status.trailing, number, details, NO_FLAGS)


def _ignore(event: Any) -> None:
    """The tag of operations whose end does not matter."""


def refuse(call: Any, status: Status) -> None:
    """Ends a call that gets no handler."""
    # Without the last operation core keeps the call until the connection ends.
    start(call, (GREETING, _end_of(status), core.ReceiveCloseOnServerOperation(NO_FLAGS)), _ignore)


def by_monotonic_clock(deadline: float | None) -> float:
    """A deadline of gRPC, in the time of `time.monotonic()`."""
    if deadline is None or deadline > NEVER:
        return math.inf
    return time.monotonic() + deadline - time.time()


def text(value: bytes | str, errors: str = "strict") -> str:
    """As text, what gRPC gives as bytes or as text."""
    return value.decode(errors=errors) if isinstance(value, bytes) else value
