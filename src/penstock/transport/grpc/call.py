"""The contract between a transport, which carries calls, and the handlers that answer them.

A transport makes a `ServerCall` for every call that arrives and asks the method's factory for a
`CallHandler`. From then on the two talk only through the methods below: the transport tells the handler
what has come, the handler tells the call what to send. Nothing here waits.

The transport tells the handler, on its own thread, never two at once for one call:

    received(message)   after receive(): the next message; the transport asks for the first by itself
    half_closed()       after receive(): the client has finished sending; asked for only by streams
    sent()              the last send() is done: send() may be called again
    closed(cancelled)   the call is over; with cancelled, it ended before it was finished: the client went
                        away or its deadline passed. Told once, always, and last

The handler tells the call, from any thread:

    receive()           ask for the next message
    send(message)       one at a time: the next only after sent()
    finish(...)         a last message, if any and if no send() is under way, and the status; once

After finish() only closed() is called. A call that is finished or over ignores what it is told, so a late
answer need not ask first. An exception of a handler ends its call with INTERNAL and is passed to `failed`.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Protocol, TypeAlias

import grpc

from penstock.core import listening
from penstock.core.errors import StartupError

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

IS_KEY = lru_cache(64)(re.compile(r"[0-9a-z_.-]+").fullmatch)
TEXT = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends.

    Attributes:
        code: gRPC's status code.
        details: text for people, in any language.
        trailing: metadata; keys in lower case, values printable ASCII, or bytes where the key ends in "-bin".
        sent: the code's number and the text, as gRPC sends them: many calls in a row may end alike.

    Raises:
        ValueError: HTTP/2 could not carry such metadata.
    """

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()
    sent: tuple[int, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # An enumeration's `value` is looked up by Python code; `_value_` is what it finds.
        sent = self.code._value_[0], self.details.encode(errors="replace")
        object.__setattr__(self, "sent", sent)
        for key, value in self.trailing:
            if not _can_be_carried(key, value):
                raise ValueError(f"gRPC cannot carry the metadata {key!r}: {value!r}")


def _can_be_carried(key: str, value: str | bytes) -> bool:
    if IS_KEY(key) is None:
        return False
    is_text = isinstance(value, str) and TEXT.fullmatch(value) is not None
    return isinstance(value, bytes) if key.endswith("-bin") else is_text


OK = Status(grpc.StatusCode.OK)


class ServerCall(ABC):
    """One call, as its handler sees it.

    Attributes:
        method: the full method, such as "/penstock.v1.PredictionService/Predict".
        metadata: what the client sent in its headers, keys in lower case.
        deadline: when the client stops waiting, by `time.monotonic()`; `math.inf` for never.
        can_exchange: whether it has `exchange`, which sends a message and asks for the next, without sent().
    """

    __slots__ = ("deadline", "metadata", "method")
    can_exchange = False

    def __init__(self, method: str, metadata: Metadata, deadline: float = math.inf) -> None:
        self.method = method
        self.metadata = metadata
        self.deadline = deadline

    @abstractmethod
    def peer(self) -> str:
        """The client's address, such as "ipv4:127.0.0.1:51542"; "" once the call is over."""

    @abstractmethod
    def identities(self) -> Sequence[bytes]:
        """The identities in the client's TLS certificate; empty without one, or once the call is over."""

    @abstractmethod
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the connection's security layer knows of the client, by property; empty after the call."""

    @abstractmethod
    def receive(self) -> None:
        """Asks for the next message of a stream."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Sends one message of a stream."""

    def send_own(self, message: bytes) -> None:
        """As `send`, with large bytes that nobody else reads: once gRPC has a copy, their memory may go."""
        self.send(message)

    def finish_own(self, status: Status, message: bytes) -> None:
        """As `finish`, with such bytes."""
        self.finish(status, message)

    def exchange(self, message: bytes) -> None:
        """See `can_exchange`."""
        raise TypeError("this call has no exchange")

    def finish_in_turn(self, status: Status) -> None:
        """As `finish`, from `received` only: on the polling thread, perhaps at the end of its turn."""
        self.finish(status)

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
    """The handler of a call that is over: ignores everything."""

    __slots__ = ()

    def received(self, message: bytes) -> None: ...  # noqa: D102

    def half_closed(self) -> None: ...  # noqa: D102

    def sent(self) -> None: ...  # noqa: D102

    def closed(self, cancelled: bool) -> None: ...  # noqa: D102


IGNORING = Ignoring()


class Kind(Enum):
    """How many messages a method takes: the transport asks a unary call for one only.

    The headers of a stream leave once its handler is made, unless that has finished the call; the headers of
    a unary call leave with its answer.
    """

    UNARY = "one message in"
    STREAM = "any number of messages in"


@dataclass(frozen=True, slots=True)
class Method:
    """A method that can be called: how many messages it takes, and what makes its handlers."""

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
"""A limit of this size is no limit: protobuf cannot read larger messages."""


HELD_UP_SECONDS = 1.0  # a polling thread that has done nothing else for this long is held up

UNREAD_SECONDS = 0.25  # how often a drain ends calls without a message: those of spared methods still arrive
LAST_WRITES_SECONDS = 0.02  # after a drain: by then gRPC has written the last answers to their sockets

METADATA_BYTES = 16_384  # the most metadata that gRPC's core takes by default


@dataclass(frozen=True, slots=True)
class Limits:
    """What a transport rejects, and how long it keeps a connection.

    Attributes:
        message_bytes: the largest message taken; a larger one ends its call with RESOURCE_EXHAUSTED.
        calls: the most calls in flight; one more is rejected with RESOURCE_EXHAUSTED.
        connection_seconds: after about this time a client is told to make its next calls on a new connection;
            the calls on the old one go on. 0 keeps connections for ever.
        shares_port: other processes of the same user may listen on the same port, each for its share of the
            connections.
        metadata_bytes: the largest metadata taken of a call; more ends it with RESOURCE_EXHAUSTED. Counted as
            HTTP/2 does: for each entry the key, the value and 32 bytes, gRPC's own entries included.
        connections: the most connections; further ones are closed at once. 0 for no limit.
    """

    message_bytes: int = UNLIMITED
    calls: int = 10_000
    connection_seconds: float = 0.0
    shares_port: bool = False
    metadata_bytes: int = METADATA_BYTES
    connections: int = 0


class Transport(ABC):
    """Carries calls. Life: `bind` any number of times, `start`, `refuse`, `drain`, `close`.

    Args:
        methods: what can be called.
        limits: what is rejected.
        idle: called on the polling thread after it has taken every event that is ready.
        failed: called with an exception that a handler raised; its call is ended.
    """

    name: str

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._idle = idle
        self._failed = failed
        self._flush_due = False
        self._refusal: Status | None = None
        self._spared: Collection[str] = ()
        self.in_flight = 0  # calls that have begun and not ended; changed by the polling thread only

    @abstractmethod
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listens on `address` ("host:port"; port 0 for any).

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be listened on.
        """

    @abstractmethod
    def start(self) -> None:
        """Begins to take calls."""

    @abstractmethod
    def close(self) -> None:
        """Cancels what is left and stops the thread.

        May be called at any time, from any thread, and again. On the polling thread, which cannot wait for
        its own end, it returns before all has stopped.
        """

    @property
    @abstractmethod
    def polling_thread(self) -> int | None:
        """The identifier, as of `threading.get_ident()`, of the thread that calls the handlers."""

    @abstractmethod
    def is_responsive(self, seconds: float = HELD_UP_SECONDS) -> bool:
        """Whether the polling thread comes by within `seconds`; waits for it, on any other thread."""

    def flush_now(self) -> None:
        """On the polling thread: do idle work now, before further events that are ready are taken.

        Called when there is as much work as can be done at once. Events that are not taken use the least
        memory; if all were taken at once, what was made of them would not stay in the processor's cache.
        """
        self._flush_due = True

    def refuse(self, status: Status, spared: Collection[str] = ()) -> None:
        """From now on every new call ends at once with `status`; those in flight go on.

        Args:
            status: how they end.
            spared: the full names of methods that may still be called.
        """
        self._spared = spared
        self._refusal = status

    @abstractmethod
    def end_unread(self) -> None:
        """Ends the unary calls whose message has not come with UNAVAILABLE: it might never come."""

    def drain(self, seconds: float) -> bool:
        """Waits up to `seconds` for the calls in flight to end; those whose message does not come end soon.

        Returns:
            Whether all did.
        """
        now = time.monotonic()
        # A message may still be on its way, as of a call that has just arrived.
        end, next_look = now + seconds, now + UNREAD_SECONDS
        while self.in_flight and now < end:
            if now >= next_look:
                self.end_unread()
                next_look = now + UNREAD_SECONDS
            time.sleep(0.002)
            now = time.monotonic()
        ended = not self.in_flight  # later ones are calls of spared methods, such as probes
        time.sleep(LAST_WRITES_SECONDS)
        return ended

    def calls_in_flight(self) -> int:
        """How many calls have arrived and not ended."""
        return self.in_flight

    def report(self, error: BaseException) -> None:
        """Passes an exception to `failed`; an exception that `failed` raises must not end the thread."""
        with contextlib.suppress(Exception):
            self._failed(error)

    def why_not(self, method: object, name: str) -> Status | None:
        """Why a call that has just arrived is rejected; None if it is accepted.

        Args:
            method: None if there is no method `name`.
            name: the full name that the client called.
        """
        if self._refusal is not None and name not in self._spared:
            return self._refusal
        if method is None:
            words = f"unknown method {name}; `grpcurl -plaintext HOST:PORT list` shows the services"
            return Status(grpc.StatusCode.UNIMPLEMENTED, words)
        if self.in_flight >= self._limits.calls:
            words = f"{self._limits.calls} calls are in flight, the server's limit"
            return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        return None


STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
"""The status of calls that arrive while the server stops, or are open then without a pending answer."""

NO_MESSAGE = Status(grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a request message")
"""The status of a unary call that sends no message."""

BROKEN = Status(grpc.StatusCode.INTERNAL, "the server failed to handle the call; see its log")
"""The status of a call whose handler raised an exception."""


def listening_failed(address: str) -> StartupError:
    """The error for an address that cannot be listened on."""
    reason = "the port is in use, or the host is not this machine's"
    return listening.listening_failed(address, listening.GRPC, reason)
