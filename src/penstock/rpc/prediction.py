"""`penstock.v1.PredictionService` on the core: Predict and PredictStream."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError

from penstock.engine import Engine
from penstock.errors import InvalidRequest, ModelFailed, RequestError
from penstock.messages import Flush, InferRequest, InferResponse, Reply
from penstock.models.model import Model
from penstock.rpc import codec, status
from penstock.rpc.outbox import Outbox
from penstock.transport.call import BROKEN, OK, Kind, Method, ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb

SERVICE = "penstock.v1.PredictionService"
ORDER_KEY = "penstock-order"
ORDERS = ("request", "completion")
M = TypeVar("M", pb.PredictRequest, pb.PredictStreamRequest)
STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping; all requests it took are answered")


class Telemetry(Protocol):
    """What this door tells of itself."""

    def failed(self, rpc: str, error: RequestError) -> None:
        """A request failed before its model was known."""

    def stream_opened(self) -> None:
        """A stream has begun."""

    def stream_closed(self) -> None:
        """A stream has ended."""

    def stream_received(self, messages: int, requests: int) -> None:
        """Messages have come on a stream, with so many requests in them."""

    def stream_sent(self, messages: int, results: int) -> None:
        """Messages have left on a stream, with so many results in them."""


class PredictionService:
    """Makes the handlers of the service's calls.

    Args:
        engine: takes the requests.
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
        self.max_stream_requests = max_stream_requests
        self._workers = workers
        self._offload_bytes = offload_bytes
        self._failed = failed
        self._streams: set[_PredictStream] = set()
        self._draining = False

    def methods(self) -> Mapping[str, Method]:
        """The service's methods, by full name."""
        return {
            f"/{SERVICE}/Predict": Method(Kind.UNARY, lambda call: _Predict(call, self)),
            f"/{SERVICE}/PredictStream": Method(Kind.STREAM, self._open_stream),
        }

    def drain(self) -> None:
        """Lets every open stream end with UNAVAILABLE once what it has taken is answered."""
        self._draining = True
        for stream in tuple(self._streams):
            stream.stop()

    def begin(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Handles a message here, or on a worker where it is large."""
        if len(message) > self._offload_bytes:
            self._workers.submit(self._guarded, call, message, handle)
        else:
            handle(message)

    def decoded(
        self, message: pb.PredictRequest, rpc: str, call: ServerCall, arrived: float, reply: Reply
    ) -> tuple[Model, InferRequest, bool] | RequestError:
        """The model that is to answer, the request for it, and whether to answer in typed lists."""
        model = None
        try:
            model = self.engine.route(message.model, message.version)
            return model, *_request(message, model, rpc, call, arrived, reply)
        except RequestError as error:
            (model.observer if model else self.telemetry).failed(rpc, error)
            return error

    def gone(self, stream: _PredictStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)
        self.telemetry.stream_closed()

    def _open_stream(self, call: ServerCall) -> _PredictStream:
        stream = _PredictStream(call, self)
        self._streams.add(stream)
        self.telemetry.stream_opened()
        if self._draining:
            stream.stop()
        return stream

    def _guarded(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        try:
            handle(message)
        except Exception as error:
            self._failed(error)
            call.finish(BROKEN)


class _Predict:
    """One unary call: a request in, an answer and the status out in one step."""

    __slots__ = ("_arrived", "_call", "_closed", "_id", "_model", "_request", "_service", "_tag", "_typed")

    def __init__(self, call: ServerCall, service: PredictionService) -> None:
        self._call = call
        self._service = service
        self._request: InferRequest | None = None
        self._closed = False

    def received(self, message: bytes) -> None:
        self._service.begin(self._call, message, self._handle)

    def half_closed(self) -> None: ...

    def sent(self) -> None: ...

    def closed(self, cancelled: bool) -> None:
        self._closed = True
        if cancelled and self._request is not None:
            self._service.engine.cancel(self._model, self._request)

    def __call__(self, result: InferResponse | RequestError) -> None:
        """Answers: this handler is its request's `Reply`."""
        if isinstance(result, RequestError):
            self._call.finish(status.to_status(result))
            return
        response = pb.PredictResponse(id=self._id, tag=self._tag)
        try:
            codec.fill_response(response, result, self._model, self._arrived, self._typed)
            answer = response.SerializeToString()
        except ValueError as error:  # an answer that protobuf cannot carry: over 2 GiB, or no text
            self._call.finish(status.to_status(_unanswerable(error)))
            return
        self._call.finish(OK, answer)

    def _handle(self, data: bytes) -> None:
        arrived = time.monotonic()
        message = _parsed(pb.PredictRequest, data)
        if isinstance(message, InvalidRequest):
            self._service.telemetry.failed("Predict", message)
            self._call.finish(status.to_status(message))
            return
        decoded = self._service.decoded(message, "Predict", self._call, arrived, self)
        if isinstance(decoded, RequestError):
            self._call.finish(status.to_status(decoded))
            return
        self._id, self._tag = message.id, message.tag
        self._model, request, self._typed = decoded
        self._arrived = arrived
        self._request = request
        self._service.engine.submit(self._model, request)
        if self._closed:  # while a worker was decoding
            self._service.engine.cancel(self._model, request)


class _Item:
    """One request of a stream; it is the request's `Reply`."""

    __slots__ = ("id", "model", "part", "request", "stream", "tag", "typed")

    def __init__(self, stream: _PredictStream, message: pb.PredictRequest) -> None:
        self.stream = stream
        self.id = message.id
        self.tag = message.tag
        self.model: Model | None = None
        self.request: InferRequest | None = None
        self.typed = False
        self.part: bytes | None = None  # the serialized result, once there is one

    def __call__(self, result: InferResponse | RequestError) -> Flush:
        if isinstance(result, RequestError):
            self.part = self._failure(result)
        else:
            try:
                self.part = self._success(result)
            except ValueError as error:
                self.part = self._failure(_unanswerable(error))
        return self.stream.done(self)

    def _success(self, response: InferResponse) -> bytes:
        assert self.model is not None  # an answer comes only from a model
        assert self.request is not None  # and only to a request
        message = pb.PredictStreamResponse()
        result = message.results.add(tag=self.tag, id=self.id)
        own = result.response
        own.id, own.tag = self.id, self.tag
        codec.fill_response(own, response, self.model, self.request.arrived, self.typed)
        return message.SerializeToString()

    def _failure(self, error: RequestError) -> bytes:
        result = pb.PredictResult(tag=self.tag, id=self.id, error=status.to_message(error))
        return pb.PredictStreamResponse(results=[result]).SerializeToString()


class _PredictStream:
    """One stream: takes requests while there is room, and sends results as they gather.

    The polling thread, runners and workers all come here; what they share is behind the lock, or is the
    set of waiting items, whose single operations are atomic, or the outbox, which has a lock of its own.
    """

    def __init__(self, call: ServerCall, service: PredictionService) -> None:
        self._call = call
        self._service = service
        self._outbox = Outbox(call.send)
        order = dict(call.metadata).get(ORDER_KEY, ORDERS[0])
        self._ordered = order == ORDERS[0]
        self._in_order: deque[_Item] = deque()  # all that are not in the outbox yet, in request order
        self._waiting: set[_Item] = set()  # all that have no result yet
        self._in_flight = 0  # requests received and not known to have left, and messages being decoded
        self._lock = threading.Lock()
        self._closed = False
        self._end: Status | None = None  # what to end with once nothing is in flight
        self._paused = False
        if order not in ORDERS:
            words = f"metadata {ORDER_KEY} is {order!r}, expected one of {', '.join(ORDERS)}"
            call.finish(Status(grpc.StatusCode.INVALID_ARGUMENT, words))

    def received(self, message: bytes) -> None:
        with self._lock:
            self._in_flight += 1  # the message itself, so that no end comes while it is decoded
        self._service.begin(self._call, message, self._handle)

    def half_closed(self) -> None:
        self._end = self._end or OK
        self._finish_if_done()

    def sent(self) -> None:
        count = self._outbox.sent()
        self._service.telemetry.stream_sent(1, count)
        with self._lock:
            self._in_flight -= count
            resume = self._paused and self._in_flight < self._service.max_stream_requests
            self._paused = self._paused and not resume
        self.flush()
        if resume:
            self._receive()

    def closed(self, cancelled: bool) -> None:
        self._closed = True
        self._service.gone(self)
        for item in tuple(self._waiting):
            self._cancel(item)

    def stop(self) -> None:
        """Reads nothing more, and ends with UNAVAILABLE once all that was taken is answered."""
        self._end = self._end or STOPPING
        self._finish_if_done()

    def done(self, item: _Item) -> Flush:
        """A request has its result."""
        self._waiting.discard(item)
        if not self._ordered:
            self._outbox.put(item.part or b"")
        return self.flush

    def flush(self) -> None:
        """Sends what is ready."""
        if self._closed:
            return
        if self._ordered:
            self._move_in_order()
        self._outbox.flush()
        self._finish_if_done()

    def _handle(self, data: bytes) -> None:
        arrived = time.monotonic()
        message = _parsed(pb.PredictStreamRequest, data)
        if isinstance(message, InvalidRequest):
            self._service.telemetry.failed("PredictStream", message)
            self._call.finish(status.to_status(message))
            return
        self._service.telemetry.stream_received(1, len(message.requests))
        with self._lock:
            self._in_flight += len(message.requests) - 1  # they take the place of the message
            self._paused = self._in_flight >= self._service.max_stream_requests
            paused = self._paused
        for request in message.requests:
            self._begin(request, arrived)
        self.flush()
        if not paused:
            self._receive()

    def _begin(self, message: pb.PredictRequest, arrived: float) -> None:
        item = _Item(self, message)
        self._waiting.add(item)
        if self._ordered:
            self._in_order.append(item)
        decoded = self._service.decoded(message, "PredictStream", self._call, arrived, item)
        if isinstance(decoded, RequestError):
            item(decoded)
            return
        item.model, item.request, item.typed = decoded
        self._service.engine.submit(item.model, item.request)
        if self._closed:
            self._cancel(item)

    def _cancel(self, item: _Item) -> None:
        if item.model is not None and item.request is not None:
            self._service.engine.cancel(item.model, item.request)

    def _receive(self) -> None:
        if self._end is None:
            self._call.receive()

    def _move_in_order(self) -> None:
        """Puts the results at the head of the line into the outbox."""
        line = self._in_order
        with self._lock:
            while line and line[0].part is not None:
                self._outbox.put(line.popleft().part or b"")

    def _finish_if_done(self) -> None:
        if self._end is not None and not self._in_flight:
            self._call.finish(self._end)


def _request(  # noqa: PLR0913 - everything a request is made of
    message: pb.PredictRequest, model: Model, rpc: str, call: ServerCall, arrived: float, reply: Reply
) -> tuple[InferRequest, bool]:
    """The request in `message`, and whether its answer is to be in typed lists."""
    arrays, any_raw = codec.inputs_of(message, model)
    request = InferRequest(
        arrays,
        codec.outputs_of(message, model),
        codec.rows_of(arrays, model),
        codec.shape_key(arrays, model),
        rpc,
        reply,
        arrived,
        _deadline(message, call, arrived),
        message.priority,
    )
    encoding = message.output_encoding
    return request, encoding == pb.TYPED or (not any_raw and encoding != pb.RAW)


def _deadline(message: pb.PredictRequest, call: ServerCall, arrived: float) -> float:
    """The earlier of the call's deadline and the request's own."""
    if not message.HasField("timeout"):
        return call.deadline
    seconds = message.timeout.seconds + message.timeout.nanos / 1e9
    if seconds < 0:
        raise InvalidRequest(f"timeout is {seconds} s, expected 0 (for none) or more")
    return min(call.deadline, arrived + (seconds or math.inf))


def _parsed(kind: type[M], data: bytes) -> M | InvalidRequest:
    try:
        return kind.FromString(data)
    except DecodeError:
        return InvalidRequest(f"the {len(data)} bytes that came are no {kind.__name__} message")


def _unanswerable(error: ValueError) -> ModelFailed:
    return ModelFailed(f"the model's answer cannot be sent: {error}")
