"""The base class of the services of all protocols: their parts, and their open streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.large_bytes import LARGE_BYTES
from penstock.core.request import Flush, Response
from penstock.engine import Engine
from penstock.models.model import Model
from penstock.protocols.answers import Answers
from penstock.protocols.codec import Codec
from penstock.protocols.fast_path.known_rejections import KnownRejections
from penstock.protocols.fast_path.known_requests import KnownRequests
from penstock.protocols.one_at_a_time import OneAtATime
from penstock.protocols.turns import Turns
from penstock.protocols.work import LIGHT_BYTES, WRITTEN_SECONDS, Bounds, too_many_names
from penstock.transport.grpc.call import BROKEN, ServerCall, Status

TRACE, ROUTE_KEY = "traceparent", "penstock-route-key"
"""The keys that can be read from the headers of a unary call, or from the metadata of a stream's request."""


Targets: TypeAlias = Mapping[tuple[str, str], Model]


class Telemetry(Protocol):
    """Receives events of streams, and of requests that fail before their model is known."""

    def failed(self, rpc: str, error: RequestError) -> None:
        """A request that came by `rpc` ended with `error`."""

    def stream_opened(self) -> None:
        """A stream has begun."""

    def stream_closed(self) -> None:
        """A stream has ended."""

    def stream_received(self, messages: int, requests: int) -> None:
        """Messages have come on a stream, with this many requests in them."""

    def stream_sent(self, messages: int, results: int) -> None:
        """Messages have left on a stream, with this many results in them."""


class OpenStream(Protocol):
    """A stream, as its service sees it."""

    def stop(self) -> None:
        """Stops reading, and ends once all accepted requests are answered."""


class Service:
    """A service that accepts requests in one protocol.

    Args:
        codec: reads and writes the protocol's messages.
        engine: accepts the requests.
        telemetry: receives events of streams and of requests without a model.
        workers: decode messages too large for the polling thread.
        offload_bytes: larger messages are decoded by the workers.
        max_stream_requests: most requests in flight on one stream; at this limit reading pauses.
        failed: called with an unexpected exception.
        bounds: limits the work of a message.
        answers: limits the memory of answers; of all services together.

    Attributes:
        router: finds the model of a request.
        known_requests, known_rejections: of the fast path.
        last_refused: the last error by `status_of`, and its status: while a queue is full, many calls in a
            row end with the same error.
        reads: the keys, of TRACE and ROUTE_KEY, that are read into every request. The code that uses them
            sets this before the server starts; if it is empty, nothing is looked up.
        failed: as given.
        is_draining: whether the server has begun to stop: requests that come now are rejected.
        bounds: as given; requests may have as many names as the loaded models need.
    """

    def __init__(  # noqa: PLR0913 - the parts of a service
        self,
        codec: Codec,
        engine: Engine,
        telemetry: Telemetry,
        workers: Executor,
        offload_bytes: int,
        max_stream_requests: int,
        failed: Callable[[BaseException], None],
        bounds: Bounds = Bounds(),  # noqa: B008 - it cannot be changed
        answers: Answers | None = None,
    ) -> None:
        self.engine = engine
        self.router = engine.router
        self.telemetry = telemetry
        self.offload_bytes = offload_bytes
        self.max_stream_requests = max_stream_requests
        self.codec = codec
        self.known_requests = KnownRequests(codec.spans)
        self.known_rejections = KnownRejections(codec.spans, codec.error)
        self.last_refused: tuple[RequestError | None, Status] = None, BROKEN
        self.reads: Collection[str] = ()
        self.bounds = bounds
        self.answers = answers or Answers(engine)
        self._workers = workers
        self._one = OneAtATime(lambda: self._workers)
        self.failed = failed
        self._streams: set[OpenStream] = set()
        self.is_draining = False

    def drain(self) -> None:
        """Ends every open stream with UNAVAILABLE once its accepted requests are answered."""
        self.is_draining = True
        for stream in tuple(self._streams):
            stream.stop()

    def make_room_for(self, models: Iterable[Model]) -> None:
        """Lets requests have twice as many names as any of these models has inputs and outputs."""
        most = max([len(each.signature.inputs) + len(each.signature.outputs) for each in models], default=0)
        self.bounds = replace(self.bounds, names=max(self.bounds.names, 2 * most))

    def rejects(self, data: bytes, rpc: str, call: ServerCall) -> bool:
        """Rejects a call whose request matches a known rejection; says whether it has."""
        known = self.known_rejections.find(data, self.router.targets)
        if known is None:
            return False
        (self.telemetry if known.model is None else known.model.observer).failed(rpc, known.error)
        call.finish_in_turn(known.status)
        return True

    def status_of(self, error: RequestError) -> Status:
        """The status of a call that ends with an error."""
        status = self.codec.error(error)
        if error.__traceback__ is None:  # else it would keep the frames that it went through, and their call
            self.last_refused = error, status
        return status

    def not_begun(  # noqa: PLR0913 - a request, and why it is not begun
        self,
        rpc: str,
        error: RequestError,
        data: bytes | None,
        models: Targets,
        arrived: float,
        model: Model | None,
    ) -> None:
        """A request is rejected because no model answers it, or because it does not fit the model.

        Args:
            rpc: the RPC it came by.
            error: the error.
            data: its bytes, if they are available.
            models: the targets of the router before they were searched.
            arrived: when it arrived.
            model: the model; None if there is none.
        """
        if model is None:
            self.telemetry.failed(rpc, error)
        else:
            model.observer.failed(rpc, error, seconds=time.monotonic() - arrived)
        if data is not None and error.by_form:
            self.known_rejections.learn(data, error, models, arrived, model)

    def is_much_work(self, data: bytes) -> bool:
        """Whether a request is for a worker to decode, although it is small. On a worker it never is."""
        size = len(data)
        if size <= LIGHT_BYTES or size > self.offload_bytes:
            return False
        return self.codec.work.seconds(data) > self.bounds.inline_seconds

    def too_many_names(self, data: bytes) -> InvalidRequest | None:
        """The error of a request that has more names than it may; None for any other.

        To count them takes up to a millisecond or two. So after such a request, what waits is done first.
        """
        most = self.bounds.names
        if len(data) <= LIGHT_BYTES and len(data) <= 2 * most:  # it cannot have more of them
            return None
        error = too_many_names(data, self.codec.work.names, most)
        if error is not None:
            self.engine.flush_soon()
        return error

    def in_turns(self, call: ServerCall, turns: Iterator[bool]) -> None:
        """Takes the turns of a message; see `Turns`.

        On a worker they are taken by turns with those of other messages: several workers, each with a message
        of 1,000 requests, would get no further, and the thread that polls gRPC would wait for each of them.
        """
        taken = Turns(turns, self._one, partial(self._broke, call))
        if self.engine.takes_calls():
            taken.begin(self.engine)
        else:
            taken.on_worker()

    def is_long_answer(self, response: Response, form: Any) -> bool:
        """Whether the answer takes long to write, and is for another thread to write.

        On a thread that takes calls it is. Elsewhere it is if it has less than 1 MiB: writing and sending
        it holds the interpreter for a part of a millisecond, and several runner threads would do so at once.
        """
        elements = sum([array.size for array in response.run.outputs.values()])
        if elements * WRITTEN_SECONDS <= self.bounds.inline_seconds:
            return False
        if self.codec.work.answer_seconds(response, form) <= self.bounds.inline_seconds:
            return False
        return response.nbytes < LARGE_BYTES or self.engine.takes_calls()

    def answer_elsewhere(self, answer: Callable[[], Flush | None]) -> None:
        """Has a worker give an answer; `answer` returns the flush of a stream."""
        self._one.submit(self._answer, answer)

    def _answer(self, answer: Callable[[], Flush | None]) -> None:
        try:
            flush = answer()
            if flush is not None:
                flush()
        except Exception as error:
            self.failed(error)

    def offload(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Has a worker thread handle a message.

        Another large message may have come meanwhile, and gRPC takes long to hand it over: 64 MiB take 20 to
        100 ms, in which Python does nothing else. So small requests that have come before are answered first.
        """
        size = len(message)
        if size >= LARGE_BYTES:
            self.engine.flush_soon()
        workers = self._workers if size >= LARGE_BYTES else self._one
        workers.submit(self._guarded, call, message, handle)

    def opened(self, stream: OpenStream) -> None:
        """A stream has begun."""
        self._streams.add(stream)
        self.telemetry.stream_opened()
        if self.is_draining:
            stream.stop()

    def gone(self, stream: OpenStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)
        self.telemetry.stream_closed()

    def _guarded(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        try:
            handle(message)
        except Exception as error:
            self._broke(call, error)

    def _broke(self, call: ServerCall, error: Exception) -> None:
        """Ends a call, because handling it has failed."""
        self.failed(error)
        call.finish(BROKEN)


def read_from(metadata: Mapping[str, Any], service: Service) -> tuple[str | None, str | None]:
    """The trace and the route key in metadata, as far as the service reads them."""
    reads = service.reads
    return (
        metadata.get(TRACE) if TRACE in reads else None,
        metadata.get(ROUTE_KEY) if ROUTE_KEY in reads else None,
    )
