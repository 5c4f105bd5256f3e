"""The fast road: the transport contract straight on grpcio's completion queue.

grpcio's own synchronous server (`grpc/_server.py`) is written on the same module, `grpc._cython.cygrpc`,
and so uses the same few names; but it hands every call to a thread. Here one thread takes the events and
calls their tags, plain functions, and any thread may start operations. Nothing waits, so one thread
serves any number of calls.

The module is private to grpcio. Three things keep that honest: this is the only file that imports it,
`self_test.py` tries it before a server relies on it, and the tests run on several releases of grpcio.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc as core
from typing_extensions import override

from penstock.transport.call import (
    BROKEN,
    IGNORING,
    NO_MESSAGE,
    OK,
    STOPPING,
    CallHandler,
    IdleWork,
    Kind,
    Limits,
    Methods,
    ServerCall,
    Status,
    Transport,
    channel_arguments,
    listening_failed,
)

NO_FLAGS = 0
CALLS_ASKED_FOR = 128  # arrivals that core may hand over before we ask again
EMPTY_POLLS = 2
"""So many times nothing must be ready before a turn ends. A poll that says so may just have read from a
connection what the next one tells of: with 1, the calls of four connections came in four turns, and so ran
in four batches (32 in flight: 8 rows a batch and 44 µs of CPU a call, with 2 all 31 and 37 µs)."""
CANCELLATION_SECONDS = 0.001  # how long after the end of a client's messages its going away may be told
WATCH_SECONDS = 0.02  # how long a call may be unwatched while the thread is busy; twice that at most
EVENTS_A_TURN = 256  # taken before idle work gets its turn even under a flood of events
SHUTDOWN_SECONDS = 5.0
GRACE_SECONDS = 0.5  # for calls that were on their way when the server was shut down
TIMEOUT = core.CompletionType.queue_timeout
SHUTDOWN = core.CompletionType.queue_shutdown

# Operations that are the same every time, and hold nothing of the calls they are used in.
GREETING = core.SendInitialMetadataOperation((), NO_FLAGS)
GOOD_END = core.SendStatusFromServerOperation((), grpc.StatusCode.OK.value[0], b"", NO_FLAGS)


class _Call(ServerCall):
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

    def __init__(self, method: str, kind: Kind, event: Any, deadline: float, reactor: Reactor) -> None:
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
        self._nursery = self._reactor.call_opened(self)
        _start(self._call, (core.ReceiveMessageOperation(NO_FLAGS),), self._received)
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
                _start(self._call, (core.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)
                self._watched = True
                self._nursery.discard(self)

    def fail(self, error: Exception) -> None:
        """Ends the call because its handler let an exception out."""
        self._reactor.report(error)
        self.finish(BROKEN)

    @override
    def peer(self) -> str:
        call = self._call
        return "" if call is None else _text(call.peer())

    @override
    def identities(self) -> Sequence[bytes]:
        call = self._call
        return () if call is None else core.peer_identities(call) or ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        call = self._call
        properties = {} if call is None else core.auth_context(call) or {}
        return {_text(key): values for key, values in properties.items()}

    @override
    def receive(self) -> None:
        with self._lock:
            if not self._over and self._kind is Kind.STREAM:
                _start(self._call, (core.ReceiveMessageOperation(NO_FLAGS),), self._received)

    @override
    def send(self, message: bytes) -> None:
        with self._lock:
            if not self._over:
                operations = (core.SendMessageOperation(message, NO_FLAGS),)
                _start(self._call, operations if self._greeted else (GREETING, *operations), self._sent)
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
                _start(self._call, operations, _ignore)
            else:
                last = core.ReceiveCloseOnServerOperation(NO_FLAGS)
                _start(self._call, (*operations, last), self._closed)
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


class Reactor(Transport):
    """One thread on one completion queue."""

    name = "reactor"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._by_wire_name = {name.encode(): (name, method) for name, method in methods.items()}
        self._started = self._stopping = self._gone = self._destroyed = False
        self._lock = threading.Lock()  # starting and closing come one after the other
        self._young: set[_Call] = set()  # unary calls that are neither watched nor answered
        self._old: set[_Call] = set()  # the same, from before the last sweep
        self._ending: list[_Call] = []  # calls from which nothing more comes
        self._sweep_at = 0.0
        self._completions = core.CompletionQueue()
        self._server = core.Server(channel_arguments(limits), False)
        self._server.register_completion_queue(self._completions)
        self._thread = threading.Thread(target=self._serve, name="penstock-reactor", daemon=True)

    @override
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        secret = () if credentials is None else (credentials._credentials,)
        try:
            port = self._server.add_http2_port(address.encode(), *secret)
        except RuntimeError:
            port = 0
        if not port:
            raise listening_failed(address)
        return int(port)

    @override
    def start(self) -> None:
        with self._lock:
            self._start()
        for _ in range(CALLS_ASKED_FOR):
            self._ask_for_a_call()

    @override
    def close(self) -> None:
        with self._lock:
            if not self._stopping:
                self._stopping = True
                if not self._started:  # core wants a server to have run before it is shut down
                    self._start()
                self._server.shutdown(self._completions, self._server_gone)
        if threading.current_thread() is not self._thread:
            # Calls that are on their way are told that the server stops; cancelled, they would not know.
            self._thread.join(0.0 if self._in_flight else GRACE_SECONDS)
        with self._lock:
            if not self._destroyed:
                self._server.cancel_all_calls()
        if threading.current_thread() is not self._thread:
            self._thread.join(SHUTDOWN_SECONDS)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    def nothing_more_comes(self, call: _Call) -> None:
        """Notes that a client sends nothing more.

        So it looks when a client has finished sending, and as well just before its going away is told. Which
        it is shows in the next turn, which waits a moment for that.
        """
        self._ending.append(call)

    def when_nothing_came(self) -> Status:
        """How a unary call ends whose message has not come; when calls are cancelled, it looks the same."""
        return STOPPING if self._stopping else NO_MESSAGE

    def call_opened(self, call: _Call) -> set[_Call]:
        """Counts a call that has begun.

        Returns:
            Where the call is kept until it is watched or answered: from there it takes itself out.
        """
        self._in_flight += 1
        self._young.add(call)
        return self._young

    def call_closed(self) -> None:
        """Counts a call that is over."""
        self._in_flight -= 1

    def _start(self) -> None:
        self._server.start()
        self._started = True
        self._thread.start()

    def _watch(self, waits: bool) -> None:
        """Watches calls that were not answered soon: all if the thread is about to wait, else old ones."""
        now = time.monotonic()
        if not waits and now < self._sweep_at:
            return
        for call in (*self._old, *(self._young if waits else ())):
            call.watch()
        self._old, self._young = (set() if waits else self._young), set()
        self._sweep_at = now + WATCH_SECONDS

    def _ask_for_a_call(self) -> None:
        try:  # noqa: SIM105 - contextlib.suppress costs as much as the rest of this
            self._server.request_call(self._completions, self._completions, self._arrived)
        except ValueError:
            pass  # so says grpcio of a server that is shutting down

    def _server_gone(self, event: Any) -> None:
        self._gone = True

    def _serve(self) -> None:
        """Takes events in turns until the server is gone and every handler knows."""
        poll, more = self._completions.poll, False
        while not self._gone or self._in_flight:
            ending = len(self._ending)
            # No event is kept in a variable here: while the next is waited for it would keep its call.
            all_taken = self._take_events(self._first_event(more, bool(ending)))
            if all_taken and ending:
                self._tell_half_closed(ending)
            more = self._do_idle_work() or not all_taken
            if self._young or self._old:
                self._watch(waits=not more)
        with self._lock:  # not while close() is still at it
            self._server.destroy()
            self._destroyed = True
        self._completions.shutdown()
        while poll().completion_type != SHUTDOWN:
            pass  # ends of operations that nobody waits for

    def _first_event(self, more: bool, ending: bool) -> Any:
        """What begins the next turn: at once if more work waits, soon if the end of calls is to be told."""
        if more:
            return self._completions.poll(deadline=0)
        return self._completions.poll(deadline=time.time() + CANCELLATION_SECONDS if ending else None)

    def _take_events(self, event: Any) -> bool:
        """Takes `event` and others that are ready.

        Returns:
            Whether it took all.
        """
        poll, taken, empty = self._completions.poll, 0, 0
        while empty < EMPTY_POLLS:
            if event.completion_type == TIMEOUT:
                empty += 1
            else:
                empty = 0
                taken += 1
                try:
                    event.tag(event)
                except Exception as error:
                    self._failed_at(event.tag, error)
                if taken == EVENTS_A_TURN:
                    return False
            if empty < EMPTY_POLLS:
                event = poll(deadline=0)
        return True

    def _failed_at(self, tag: Callable[[Any], None], error: Exception) -> None:
        call = getattr(tag, "__self__", None)
        if isinstance(call, _Call):
            call.fail(error)
        else:
            self.report(error)

    def _tell_half_closed(self, count: int) -> None:
        calls, self._ending = self._ending[:count], self._ending[count:]
        for call in calls:
            try:
                call.half_close()
            except Exception as error:
                call.fail(error)

    def _do_idle_work(self) -> bool:
        try:
            return self._idle()
        except Exception as error:
            self.report(error)
            return False

    def _arrived(self, event: Any) -> None:
        if not event.success:  # the server is shutting down: this is the waiting request coming back
            return
        self._ask_for_a_call()
        details = event.call_details
        name, method = self._by_wire_name.get(details.method) or (_text(details.method, "replace"), None)
        refusal = STOPPING if self._stopping else self.why_not(method, name)
        if method is None or refusal is not None:
            _refuse(event.call, refusal or BROKEN)
            return
        _Call(name, method.kind, event, _by_monotonic_clock(details.deadline), self).open(method.handler)


def _start(call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> None:
    error = call.start_server_batch(operations, tag)
    if error:
        raise RuntimeError(f"gRPC refuses the operations {operations} with error {error}")


def _end_of(status: Status) -> Any:
    details = status.details.encode(errors="replace")
    return core.SendStatusFromServerOperation(status.trailing, status.code.value[0], details, NO_FLAGS)


def _ignore(event: Any) -> None:
    """The tag of an operation whose end nobody waits for."""


def _refuse(call: Any, status: Status) -> None:
    _start(call, (GREETING, _end_of(status)), _ignore)
    # Without this operation core keeps the call until the connection ends.
    _start(call, (core.ReceiveCloseOnServerOperation(NO_FLAGS),), _ignore)


def _by_monotonic_clock(deadline: float | None) -> float:
    if deadline is None or deadline > 1e11:  # core's "never" lies beyond the year 5000
        return math.inf
    return time.monotonic() + deadline - time.time()


def _text(value: bytes | str, errors: str = "strict") -> str:
    return value.decode(errors=errors) if isinstance(value, bytes) else value
