"""The calls of the reactor: the contract's calls on grpcio's completion queue.

An operation is started on a call with a tag, and once it is done the reactor calls the tag with its event.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc as core
from typing_extensions import override

from penstock.transport.call import BROKEN, IGNORING, OK, CallHandler, Kind, ServerCall, Status

NO_FLAGS = 0

# Operations that are the same every time, and hold nothing of the calls they are used in.
GREETING = core.SendInitialMetadataOperation((), NO_FLAGS)
GOOD_END = core.SendStatusFromServerOperation((), grpc.StatusCode.OK.value[0], b"", NO_FLAGS)


class Road(Protocol):
    """What a call needs of the reactor that carries it."""

    def report(self, error: BaseException) -> None:
        """Tells of an exception that a handler let out."""

    def call_opened(self, call: ReactorCall) -> set[ReactorCall]:
        """Counts a call that has begun.

        Returns:
            Where the call is kept until it is watched or answered: from there it takes itself out.
        """

    def call_closed(self) -> None:
        """Counts a call that is over."""

    def message_taken(self) -> None:
        """Notes that a message has been handled."""

    def nothing_more_comes(self, call: ReactorCall) -> None:
        """Notes that a client sends nothing more, or is about to be known to have gone away."""

    def when_nothing_came(self) -> Status:
        """How a unary call ends whose message has not come."""


class ReactorCall(ServerCall):
    """A call on the completion queue. Its tags are its own methods.

    The lock makes "not over yet" and the start of an operation one step. Without it a late answer could
    start an operation on a queue that has been shut down, which ends the process.

    A call is watched once core has been asked to tell of its end. For a unary call that is done together
    with its answer, which saves an operation and an event, one call in ten of a bare echo's CPU; or before
    that where the answer is long in coming, so that its caller's going away is noticed.
    """

    __slots__ = (
        "_call", "_came", "_greeted", "_handler", "_kind", "_lock", "_nursery", "_over", "_reactor",
        "_watched",
    )  # fmt: skip

    def __init__(self, method: str, kind: Kind, event: Any, deadline: float, reactor: Road) -> None:
        self.method = method
        self.metadata = event.invocation_metadata
        self.deadline = deadline
        self._call = event.call
        self._kind = kind
        self._reactor = reactor
        self._greeted = False
        self._over = False  # finished, or closed
        self._came = False  # a message
        self._watched = False
        self._lock = threading.Lock()
        self._handler: CallHandler = IGNORING

    def open(self, make_handler: Callable[[ServerCall], CallHandler]) -> None:
        """Makes the handler and starts the operations that tell it what comes."""
        self._nursery: set[ReactorCall] = self._reactor.call_opened(self)
        start(self._call, (core.ReceiveMessageOperation(NO_FLAGS),), self._received)
        if self._kind is Kind.STREAM:
            self.watch()
        try:
            self._handler = make_handler(self)
        except Exception as error:
            self.fail(error)

    def watch(self) -> None:
        """Asks core to tell of the call's end, if that has not been done."""
        with self._lock:
            if not self._watched:
                start(self._call, (core.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)
                self._watched = True
                self._nursery.discard(self)

    def fail(self, error: Exception) -> None:
        """Ends the call because its handler let an exception out."""
        self._reactor.report(error)
        self.finish(BROKEN)

    @override
    def peer(self) -> str:
        call = self._call
        return "" if call is None else text(call.peer())

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
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        end = GOOD_END if status is OK else _end_of(status)
        operations = (end,) if message is None else (core.SendMessageOperation(message, NO_FLAGS), end)
        with self._lock:
            if self._over:
                return
            if not self._greeted:
                operations = (GREETING, *operations)
            if self._watched:
                start(self._call, operations, _ignore)
            else:
                last = core.ReceiveCloseOnServerOperation(NO_FLAGS)
                start(self._call, (*operations, last), self._closed)
                self._watched = True
                self._nursery.discard(self)
            self._over = True

    def _received(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if self._over:
            return
        if message is not None:
            self._came = True
            self._handler.received(message)
            self._reactor.message_taken()
        else:
            self._reactor.nothing_more_comes(self)

    def half_close(self) -> None:
        """The client sends nothing more."""
        if self._over:
            return
        if self._kind is Kind.STREAM:
            self._handler.half_closed()
        elif not self._came:
            self.finish(self._reactor.when_nothing_came())

    def _sent(self, event: Any) -> None:
        if event.success and not self._over:  # else closed() tells
            self._handler.sent()

    def _closed(self, event: Any) -> None:
        with self._lock:
            self._over = True
            # Core keeps the connection while anybody holds its call, and a late answer may hold this one.
            self._call = None
        # The handler refers to its call, and is not to be one more circle for the garbage collector.
        handler, self._handler = self._handler, IGNORING
        try:
            handler.closed(bool(event.batch_operations[-1].cancelled()))
        finally:
            self._reactor.call_closed()


def start(call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> None:
    """Starts operations on a call, as one step.

    Raises:
        RuntimeError: gRPC refuses them; none was started.
    """
    error = call.start_server_batch(operations, tag)
    if error:
        raise RuntimeError(f"gRPC refuses the operations {operations} with error {error}")


def _end_of(status: Status) -> Any:
    details = status.details.encode(errors="replace")
    return core.SendStatusFromServerOperation(status.trailing, status.code.value[0], details, NO_FLAGS)


def _ignore(event: Any) -> None:
    """The tag of an operation whose end nobody waits for."""


def refuse(call: Any, status: Status) -> None:
    """Ends a call that nobody handles."""
    start(call, (GREETING, _end_of(status)), _ignore)
    # Without this operation core keeps the call until the connection ends.
    start(call, (core.ReceiveCloseOnServerOperation(NO_FLAGS),), _ignore)


def by_monotonic_clock(deadline: float | None) -> float:
    """A deadline of gRPC, by `time.monotonic()`."""
    if deadline is None or deadline > 1e11:  # core's "never" lies beyond the year 5000
        return math.inf
    return time.monotonic() + deadline - time.time()


def text(value: bytes | str, errors: str = "strict") -> str:
    """What gRPC gives as bytes or as text."""
    return value.decode(errors=errors) if isinstance(value, bytes) else value
