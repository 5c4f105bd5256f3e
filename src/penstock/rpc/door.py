"""What the front doors have in common: a door lets requests in, and knows the streams that are open."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from penstock.engine import Engine
from penstock.errors import InvalidRequest, RequestError
from penstock.transport.call import BROKEN, ServerCall


class Telemetry(Protocol):
    """Is told of streams, and of requests that fail before their model is known."""

    def failed(self, rpc: str, error: RequestError) -> None:
        """A request that came by `rpc` ended with `error`."""

    def stream_opened(self) -> None:
        """A stream has begun."""

    def stream_closed(self) -> None:
        """A stream has ended."""

    def stream_received(self, messages: int, requests: int) -> None:
        """Messages have come on a stream, with so many requests in them."""

    def stream_sent(self, messages: int, results: int) -> None:
        """Messages have left on a stream, with so many results in them."""


class OpenStream(Protocol):
    """A stream, as its door sees it."""

    def stop(self) -> None:
        """Reads nothing more, and ends once all that was taken is answered."""


class Door:
    """A service that takes requests.

    Args:
        engine: takes them.
        telemetry: is told of streams and of requests without a model.
        workers: decode messages too large for the polling thread.
        offload_bytes: messages larger than this are.
        max_stream_requests: the most requests in flight on one stream; above that its reading pauses.
        failed: told of an exception that should not have been.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        engine: Engine,
        telemetry: Telemetry,
        workers: Executor,
        offload_bytes: int,
        max_stream_requests: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.engine = engine
        self.telemetry = telemetry
        self.offload_bytes = offload_bytes
        self.max_stream_requests = max_stream_requests
        self._workers = workers
        self._failed = failed
        self._streams: set[OpenStream] = set()
        self._draining = False

    def drain(self) -> None:
        """Lets every open stream end with UNAVAILABLE once what it has taken is answered."""
        self._draining = True
        for stream in tuple(self._streams):
            stream.stop()

    def offload(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Has a worker thread handle a message."""
        self._workers.submit(self._guarded, call, message, handle)

    def opened(self, stream: OpenStream) -> None:
        """A stream has begun."""
        self._streams.add(stream)
        self.telemetry.stream_opened()
        if self._draining:
            stream.stop()

    def gone(self, stream: OpenStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)
        self.telemetry.stream_closed()

    def _guarded(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        try:
            handle(message)
        except Exception as error:
            self._failed(error)
            call.finish(BROKEN)


M = TypeVar("M", bound=Message)


def parsed(kind: type[M], data: bytes) -> M:
    """The message in `data`.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"the {len(data)} bytes that came are no {kind.__name__} message") from None
