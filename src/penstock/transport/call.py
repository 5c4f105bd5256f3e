"""The contract between whatever carries calls and whatever answers them.

A transport makes a `ServerCall` for every call that arrives and asks the method's factory for a
`CallHandler`. From then on the two talk only through the methods below: the transport tells the handler
what has come, the handler tells the call what to send. Nothing here waits.

Told to the handler, on the transport's own thread, never two at once for one call:

    received(message)   after receive(): the next message; the transport asks for the first by itself
    half_closed()       after receive(): the client has finished sending; asked for only by streams
    sent()              the last send() is done: send() may be called again
    closed(cancelled)   the call is over; with cancelled, it ended before it was finished: the client went
                        away or its deadline passed. Told once, always, and last

Told to the call, from any thread:

    receive()           ask for the next message
    send(message)       one at a time: the next only after sent()
    finish(...)         a last message, if any and if no send() is under way, and the status; once

After finish() the handler is told of closed() only. What is told to a call that is finished or over does
nothing, so whoever answers late need not ask first. An exception that a handler lets out ends its call
with INTERNAL and is told to `failed`.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

import grpc

from penstock.errors import StartupError

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

KEY = re.compile(r"[0-9a-z_.-]+")
TEXT = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends.

    Attributes:
        code: gRPC's status code.
        details: words for a person, in any language.
        trailing: metadata; keys in lower case, values printable ASCII, or bytes where the key ends in "-bin".

    Raises:
        ValueError: HTTP/2 could not carry such metadata.
    """

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()

    def __post_init__(self) -> None:
        for key, value in self.trailing:
            if not _can_be_carried(key, value):
                raise ValueError(f"gRPC cannot carry the metadata {key!r}: {value!r}")


def _can_be_carried(key: str, value: str | bytes) -> bool:
    if KEY.fullmatch(key) is None:
        return False
    if key.endswith("-bin"):
        return isinstance(value, bytes)
    return isinstance(value, str) and TEXT.fullmatch(value) is not None


OK = Status(grpc.StatusCode.OK)


class ServerCall(ABC):
    """One call, as its handler sees it.

    Attributes:
        method: the full method, such as "/penstock.v1.PredictionService/Predict".
        metadata: what the client sent along, keys in lower case.
        deadline: when the client stops waiting, by `time.monotonic()`; `math.inf` for never.
    """

    __slots__ = ("deadline", "metadata", "method")

    def __init__(self, method: str, metadata: Metadata, deadline: float = math.inf) -> None:
        self.method = method
        self.metadata = metadata
        self.deadline = deadline

    @abstractmethod
    def peer(self) -> str:
        """The client's address, such as "ipv4:127.0.0.1:51542"; "" once the call is over."""

    @abstractmethod
    def identities(self) -> Sequence[bytes]:
        """Who the client proved to be by its TLS certificate; empty without one, or once the call is over."""

    @abstractmethod
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the connection's security layer knows of the client, by property; empty once it is over."""

    @abstractmethod
    def receive(self) -> None:
        """Asks for the next message of a stream."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Sends one message of a stream."""

    @abstractmethod
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        """Ends the call, with a last message where there is one. A second finish does nothing."""


class CallHandler(Protocol):
    """What a method does with one call; see the module's docstring for when each is called."""

    def received(self, message: bytes) -> None:
        """The next message has come."""

    def half_closed(self) -> None:
        """The client has finished sending."""

    def sent(self) -> None:
        """The last message has left."""

    def closed(self, cancelled: bool) -> None:
        """The call is over."""


class Ignoring:
    """The handler of a call that is to hear of nothing more."""

    def received(self, message: bytes) -> None: ...  # noqa: D102

    def half_closed(self) -> None: ...  # noqa: D102

    def sent(self) -> None: ...  # noqa: D102

    def closed(self, cancelled: bool) -> None: ...  # noqa: D102


IGNORING = Ignoring()


class Kind(Enum):
    """How many messages a method takes: the transport asks a unary call for one only."""

    UNARY = "one message in"
    STREAM = "any number of messages in"


@dataclass(frozen=True, slots=True)
class Method:
    """A method that can be called: how many messages it takes and who answers."""

    kind: Kind
    handler: Callable[[ServerCall], CallHandler]


Methods: TypeAlias = Mapping[str, Method]


class IdleWork(Protocol):
    """Work for the polling thread once it has taken every event that is ready."""

    def __call__(self) -> bool:
        """Does a part of the work.

        Returns:
            Whether more is waiting: then it is called again soon, after the events that came meanwhile.
        """


UNLIMITED = 2**31 - 1
"""The size from which on messages are not limited: protobuf reads none that are larger."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a transport refuses.

    Attributes:
        message_bytes: the largest message taken; a larger one ends its call with RESOURCE_EXHAUSTED.
        calls: the most calls in flight; one more is refused with RESOURCE_EXHAUSTED.
    """

    message_bytes: int = UNLIMITED
    calls: int = 10_000


class Transport(ABC):
    """Carries calls. Life: `bind` any number of times, `start`, `refuse`, `drain`, `close`.

    Args:
        methods: what can be called.
        limits: what is refused.
        idle: called on the polling thread after it has taken every event that is ready.
        failed: told of an exception that a handler let out; the call it came from is ended.
    """

    name: str

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._idle = idle
        self._failed = failed
        self._hurried = False
        self._refusal: Status | None = None
        self._in_flight = 0  # changed by the polling thread only

    @abstractmethod
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listens on `address` ("host:port"; port 0 for any).

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be had.
        """

    @abstractmethod
    def start(self) -> None:
        """Begins to take calls."""

    @abstractmethod
    def close(self) -> None:
        """Cancels what is left and stops the thread.

        May be called at any time, from any thread, and again. On the polling thread, which cannot wait for
        itself, it returns while that is still under way.
        """

    @property
    @abstractmethod
    def polling_thread(self) -> int | None:
        """The identifier of the thread that handlers are called on, as `threading.get_ident()` has it."""

    def hurry(self) -> None:
        """On the polling thread: idle work is due now, before further events that are ready are taken.

        Said where there is as much work as can be done at once. The events wait where they take the least
        room; taken all together, what was made of them would not stay in the processor's cache.
        """
        self._hurried = True

    def refuse(self, status: Status) -> None:
        """From now on every new call ends at once with `status`; those in flight go on."""
        self._refusal = status

    def drain(self, seconds: float) -> bool:
        """Waits up to `seconds` for the calls in flight to end.

        Returns:
            Whether all did.
        """
        end = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < end:
            time.sleep(0.002)
        return not self._in_flight

    def calls_in_flight(self) -> int:
        """How many calls have arrived and not ended."""
        return self._in_flight

    def report(self, error: BaseException) -> None:
        """Tells `failed` of an exception; one that `failed` lets out itself must not end the thread."""
        with contextlib.suppress(Exception):
            self._failed(error)

    def why_not(self, method: object, name: str) -> Status | None:
        """Why a call that has just arrived is refused; None if it is not.

        Args:
            method: None where nobody answers the method called `name`.
            name: what the client called.
        """
        if self._refusal is not None:
            return self._refusal
        if method is None:
            words = f"there is no method {name}; `grpcurl -plaintext HOST:PORT list` shows the services"
            return Status(grpc.StatusCode.UNIMPLEMENTED, words)
        if self._in_flight >= self._limits.calls:
            words = f"{self._limits.calls} calls are in flight, as many as this server takes at once"
            return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        return None


STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
"""How calls end that arrive, or stay open for no work of theirs, while the server stops."""

NO_MESSAGE = Status(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its one request message came")
"""How a unary call ends that brings no message."""

BROKEN = Status(grpc.StatusCode.INTERNAL, "the server failed to handle the call; its log says why")
"""How a call ends whose handler let an exception out."""


def listening_failed(address: str) -> StartupError:
    """The error of an address that cannot be had."""
    return StartupError(f"cannot listen on {address}: the port is in use, or the host is not this machine's")


def channel_arguments(limits: Limits) -> tuple[tuple[str, int], ...]:
    """What both roads tell grpc of how connections are to be kept."""
    return (
        ("grpc.so_reuseport", 0),  # else a second server on the port would silently take half the calls
        # Grpc looks at the size of a message only where there is a limit, which costs a call over 1 µs.
        ("grpc.max_receive_message_length", limits.message_bytes if limits.message_bytes < UNLIMITED else -1),
        ("grpc.max_send_message_length", -1),
        # Grpc's own bounds on calls that have come and are not taken yet: from 1,000 on it drops some, and
        # says CANCELLED to clients that cancelled nothing. Ours is `Limits.calls`, and says what it is.
        ("grpc.server.max_pending_requests", 2 * limits.calls),
        ("grpc.server.max_pending_requests_hard_limit", 4 * limits.calls),
        # Clients may keep idle connections alive with a ping every ten seconds.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
