"""Handlers for the transport's tests, and a transport that serves them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from penstock.transport.grpc.call import OK, CallHandler, Kind, Limits, Method, ServerCall, Transport

SECONDS = 20.0
"""The longest that anything may take before its test fails."""
OWN_CONNECTION = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Waits for a condition that another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


class Silent:
    """Answers nothing and remembers what it is told.

    Attributes:
        call: its call.
        told: the names of what it was told, in order.
        messages: what it received.
        threads: on which threads it was told.
    """

    def __init__(self, call: ServerCall) -> None:
        self.call = call
        self.told: list[str] = []
        self.messages: list[bytes] = []
        self.threads: set[int] = set()

    def received(self, message: bytes) -> None:
        self.note("received")
        self.messages.append(message)

    def half_closed(self) -> None:
        self.note("half_closed")

    def sent(self) -> None:
        self.note("sent")

    def closed(self, cancelled: bool) -> None:
        self.note("cancelled" if cancelled else "closed")

    def note(self, event: str) -> None:
        self.threads.add(threading.get_ident())
        self.told.append(event)

    @property
    def is_over(self) -> bool:
        return bool(self.told) and self.told[-1] in ("closed", "cancelled")


class Echo(Silent):
    """A unary method: answers with the message."""

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.finish(OK, message)


class StreamEcho(Silent):
    """A stream: sends back every message, one after the other."""

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.send(message)

    def sent(self) -> None:
        super().sent()
        self.call.receive()

    def half_closed(self) -> None:
        super().half_closed()
        self.call.finish()


class Reading(Silent):
    """A stream: receives all it can and sends nothing."""

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.receive()


class Handlers:
    """Makes handlers, and keeps them."""

    def __init__(self, make: Callable[[ServerCall], CallHandler]) -> None:
        self._make = make
        self.made: list[Any] = []

    def __call__(self, call: ServerCall) -> CallHandler:
        handler = self._make(call)
        self.made.append(handler)
        return handler

    def only(self) -> Any:
        """The only handler, once it exists."""
        wait_until(lambda: self.made)
        assert len(self.made) == 1
        return self.made[0]


class Quiet:
    """Requests of a client that sends nothing, and finishes only when told to."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def __iter__(self) -> Iterator[bytes]:
        self._ended.wait(SECONDS)
        yield from ()


def unary(make: Callable[[ServerCall], CallHandler]) -> Method:
    return Method(Kind.UNARY, make)


def stream(make: Callable[[ServerCall], CallHandler]) -> Method:
    return Method(Kind.STREAM, make)


def no_idle_work() -> bool:
    return False


class Served:
    """A transport that runs.

    Attributes:
        transport: the transport.
        port: where it listens on 127.0.0.1.
        failures: the exceptions that its handlers let out.
    """

    def __init__(
        self,
        transport: type[Transport],
        methods: Mapping[str, Method],
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        idle: Callable[[], bool] = no_idle_work,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.failures: list[BaseException] = []
        self.transport = transport(methods, limits, idle, self.failures.append)
        self.port = self.transport.bind("127.0.0.1:0", credentials)
        self.transport.start()
        self.target = f"127.0.0.1:{self.port}"

    def channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A new connection."""
        return grpc.insecure_channel(self.target, (*OWN_CONNECTION, *options))

    def wait_until_empty(self) -> None:
        wait_until(lambda: not self.transport.calls_in_flight())

    def check_alive(self, seconds: float = SECONDS) -> None:
        """Makes a call of "/t/Echo", which must be served within this number of seconds."""
        with self.channel() as channel:
            assert channel.unary_unary("/t/Echo")(b"alive", timeout=seconds) == b"alive"


@contextmanager
def served(transport: type[Transport], methods: Mapping[str, Method], **more: Any) -> Iterator[Served]:
    """Serves methods in a `with` statement; no handler may let an exception out, unless it is taken."""
    server = Served(transport, {"/t/Echo": unary(Echo), **methods}, **more)
    try:
        yield server
    finally:
        server.transport.close()
    assert [repr(error) for error in server.failures] == []
