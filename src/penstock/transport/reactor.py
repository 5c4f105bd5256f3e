"""The fast road: the transport contract straight on grpcio's completion queue.

grpcio's own synchronous server (`grpc/_server.py`) is written on the same module, `grpc._cython.cygrpc`,
and so uses the same few names; but it hands every call to a thread. Here one thread takes the events and
calls their tags, plain functions, and any thread may start operations. Nothing waits, so one thread
serves any number of calls.

The module is private to grpcio. Three things keep that honest: this is the only file that imports it,
`self_test` tries it before a server relies on it, and the tests run on several releases of grpcio.
"""

from __future__ import annotations

import contextlib
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
    OK,
    CallHandler,
    IdleWork,
    Kind,
    Limits,
    Method,
    Methods,
    ServerCall,
    Status,
    Transport,
    channel_arguments,
    listening_failed,
)

NO_FLAGS = 0
CALLS_ASKED_FOR = 128  # arrivals that core may hand over before we ask again
EVENTS_A_TURN = 256  # taken before idle work gets its turn even under a flood of events
SHUTDOWN_SECONDS = 5.0
TIMEOUT = core.CompletionType.queue_timeout
SHUTDOWN = core.CompletionType.queue_shutdown
NO_MESSAGE = Status(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its one request message came")


class _Call(ServerCall):
    """A call on the completion queue. Its tags are its own methods."""

    __slots__ = ("_call", "_closed_hook", "_greeted", "_handler", "_kind", "_once")

    def __init__(
        self, method: str, kind: Kind, event: Any, deadline: float, closed_hook: Callable[[], None]
    ) -> None:
        super().__init__(method, event.invocation_metadata, deadline)
        self._call = event.call
        self._kind = kind
        self._closed_hook = closed_hook
        self._greeted = False
        self._once = threading.Lock()
        self._handler: CallHandler

    def open(self, handler: CallHandler) -> None:
        """Starts the operations that tell `handler` what comes."""
        self._handler = handler
        self._call.start_server_batch((core.ReceiveMessageOperation(NO_FLAGS),), self._received)
        self._call.start_server_batch((core.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)

    @override
    def peer(self) -> str:
        peer = self._call.peer()
        return peer.decode() if isinstance(peer, bytes) else str(peer)

    @override
    def identities(self) -> Sequence[bytes]:
        return core.peer_identities(self._call) or ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return core.auth_context(self._call) or {}

    @override
    def receive(self) -> None:
        self._call.start_server_batch((core.ReceiveMessageOperation(NO_FLAGS),), self._received)

    @override
    def send(self, message: bytes) -> None:
        self._start((core.SendMessageOperation(message, NO_FLAGS),), self._sent)

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        if not self._once.acquire(blocking=False):
            return
        end = core.SendStatusFromServerOperation(
            status.trailing, status.code.value[0], status.details.encode(), NO_FLAGS
        )
        operations = (end,) if message is None else (core.SendMessageOperation(message, NO_FLAGS), end)
        self._start(operations, _ignore)

    def _start(self, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> None:
        if not self._greeted:
            self._greeted = True
            operations = (core.SendInitialMetadataOperation((), NO_FLAGS), *operations)
        self._call.start_server_batch(operations, tag)

    def _received(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is not None:
            self._handler.received(message)
        elif self._kind is Kind.STREAM:
            self._handler.half_closed()
        else:
            self.finish(NO_MESSAGE)

    def _sent(self, event: Any) -> None:
        if event.success:  # else the call is over, and closed() tells
            self._handler.sent()

    def _closed(self, event: Any) -> None:
        self._closed_hook()
        self._handler.closed(bool(event.batch_operations[0].cancelled()))


class Reactor(Transport):
    """One thread on one completion queue."""

    name = "reactor"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._by_wire_name = {name.encode(): (name, method) for name, method in methods.items()}
        self._started = self._stopped = False
        self._gone = threading.Event()
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
        self._server.start()
        for _ in range(CALLS_ASKED_FOR):
            self._ask_for_a_call()
        self._started = True
        self._thread.start()

    @override
    def close(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if not self._started:  # core wants a server to have run before it is shut down
            self._server.start()
            self._thread.start()
        self._server.shutdown(self._completions, self._server_gone)
        self._server.cancel_all_calls()
        self._gone.wait(SHUTDOWN_SECONDS)
        self._server.destroy()
        self._completions.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join(SHUTDOWN_SECONDS)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    def _ask_for_a_call(self) -> None:
        self._server.request_call(self._completions, self._completions, self._arrived)

    def _server_gone(self, event: Any) -> None:
        self._gone.set()

    def _serve(self) -> None:
        poll, more = self._completions.poll, False
        while True:
            event, taken = poll(deadline=0) if more else poll(), 0
            while event.completion_type != TIMEOUT:
                if event.completion_type == SHUTDOWN:
                    return
                self._dispatch(event)
                taken += 1
                if taken == EVENTS_A_TURN:
                    break
                event = poll(deadline=0)
            more = self._do_idle_work()

    def _dispatch(self, event: Any) -> None:
        tag = event.tag
        if tag is None:
            return
        try:
            tag(event)
        except Exception as error:
            self._failed(error)
            owner = getattr(tag, "__self__", None)
            if isinstance(owner, _Call):
                owner.finish(BROKEN)

    def _do_idle_work(self) -> bool:
        try:
            return self._idle()
        except Exception as error:
            self._failed(error)
            return False

    def _arrived(self, event: Any) -> None:
        if not event.success:  # the server is shutting down: this is the waiting request coming back
            return
        self._ask_for_a_call()
        details = event.call_details
        name, method = self._by_wire_name.get(details.method, (details.method.decode(errors="replace"), None))
        refusal = self.why_not(method, name)
        if method is None or refusal is not None:
            _refuse(event.call, refusal or BROKEN)
            return
        call = _Call(name, method.kind, event, _by_monotonic_clock(details.deadline), self._call_closed)
        self._in_flight += 1
        call.open(method.handler(call))

    def _call_closed(self) -> None:
        self._in_flight -= 1


def _ignore(event: Any) -> None:
    """The tag of an operation whose end nobody waits for."""


def _refuse(call: Any, status: Status) -> None:
    call.start_server_batch(
        (
            core.SendInitialMetadataOperation((), NO_FLAGS),
            core.SendStatusFromServerOperation(
                status.trailing, status.code.value[0], status.details.encode(), NO_FLAGS
            ),
        ),
        _ignore,
    )
    # Without this operation core keeps the call until the connection ends.
    call.start_server_batch((core.ReceiveCloseOnServerOperation(NO_FLAGS),), _ignore)


def _by_monotonic_clock(deadline: float | None) -> float:
    if deadline is None or deadline > 1e11:  # core's "never" lies beyond the year 5000
        return math.inf
    return time.monotonic() + deadline - time.time()


class _Echo:
    """The self-test's handler: answers with the message it got."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def received(self, message: bytes) -> None:
        self._call.finish(OK, message)

    def half_closed(self) -> None: ...

    def sent(self) -> None: ...

    def closed(self, cancelled: bool) -> None: ...


def self_test(seconds: float = 5.0) -> None:
    """Makes one call over the loop-back interface through a reactor of its own.

    Raises:
        Exception: whatever grpcio's private module does differently from what this file expects.
    """
    failures: list[BaseException] = []
    reactor = Reactor({"/penstock/Echo": Method(Kind.UNARY, _Echo)}, Limits(), lambda: False, failures.append)
    with contextlib.closing(reactor):
        port = reactor.bind("127.0.0.1:0")
        reactor.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
            answer = channel.unary_unary("/penstock/Echo")(b"echo", timeout=seconds)
    if failures:
        raise failures[0]
    if answer != b"echo":
        raise RuntimeError(f"sent b'echo', got {answer!r}")
