"""PredictStream: many requests over one call, answered in order or as they finish."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import grpc
from typing_extensions import override

from penstock.errors import InvalidRequest, RequestError
from penstock.messages import Flush, InferResponse
from penstock.rpc import status, wire
from penstock.rpc.outbox import Outbox
from penstock.rpc.pending import Door, Failures, Pending, parsed
from penstock.rpc.templates import Template
from penstock.transport.call import OK, ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb

ORDER_KEY = "penstock-order"
ORDERS = ("request", "completion")
STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping; all requests it took are answered")
MANY_REQUESTS = 4096  # in one message: more would hold the polling thread up, however small they are
TAG = wire.key(pb.PredictResult.TAG_FIELD_NUMBER, wire.VARINT)
ID = wire.key(pb.PredictResult.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RESPONSE = wire.key(pb.PredictResult.RESPONSE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
REQUESTS = wire.key(pb.PredictStreamRequest.REQUESTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0]
RESULTS = wire.key(pb.PredictStreamResponse.RESULTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)


_Read: TypeAlias = tuple[bytes, "Template | pb.PredictRequest"]
"""A request's bytes, and what they look like or mean."""


class Telemetry(Failures, Protocol):
    """Is told of streams."""

    def stream_opened(self) -> None:
        """A stream has begun."""

    def stream_closed(self) -> None:
        """A stream has ended."""

    def stream_received(self, messages: int, requests: int) -> None:
        """Messages have come on a stream, with so many requests in them."""

    def stream_sent(self, messages: int, results: int) -> None:
        """Messages have left on a stream, with so many results in them."""


class Service(Door, Protocol):
    """What a stream needs of its service."""

    @property
    @override
    def telemetry(self) -> Telemetry: ...

    offload_bytes: int
    max_stream_requests: int

    def offload(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Has a worker thread handle a message."""

    def gone(self, stream: PredictStream) -> None:
        """A stream has ended."""


class _Item(Pending):
    """One request of a stream.

    Attributes:
        part: the serialized PredictStreamResponse with its one result, once there is one.
    """

    __slots__ = ("_stream", "part")

    def __init__(self, stream: PredictStream) -> None:
        super().__init__("PredictStream")
        self._stream = stream
        self.part: bytes | None = None

    @override
    def reply(self, result: InferResponse | RequestError) -> Flush:
        answer = self.encoded(result)
        if isinstance(answer, RequestError):
            data = pb.PredictResult(error=status.to_message(answer)).SerializeToString()
        else:
            data = wire.field(RESPONSE, answer)
        parts = [TAG, wire.varint(self._tag), data]
        if self._id:
            parts.append(wire.field(ID, self._id.encode()))
        self.part = wire.field(RESULTS, b"".join(parts))
        return self._stream.done(self)


class PredictStream:
    """One stream: takes requests while there is room, and sends results as they gather.

    The polling thread, runners and workers all come here; what they share is behind the lock, or is the
    set of waiting items, whose single operations are atomic, or the outbox, which has a lock of its own.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    def __init__(self, call: ServerCall, service: Service) -> None:
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
        """The next message has come."""
        with self._lock:
            self._in_flight += 1  # the message itself, so that no end comes while it is decoded
        if len(message) > self._service.offload_bytes:
            self._service.offload(self._call, message, self._handle)
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """The client has finished sending."""
        self._end = self._end or OK
        self._finish_if_done()

    def sent(self) -> None:
        """The last message has left."""
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
        """The call is over."""
        self._closed = True
        self._service.gone(self)
        for item in tuple(self._waiting):
            item.cancel(self._service.engine)

    def stop(self) -> None:
        """Reads nothing more, and ends with UNAVAILABLE once all that was taken is answered."""
        self._end = self._end or STOPPING
        self._finish_if_done()

    def done(self, item: _Item) -> Flush:
        """A request has its result."""
        self._waiting.discard(item)
        if not self._ordered and item.part is not None:
            self._outbox.put(item.part)
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
        parts, find = wire.elements(data, REQUESTS), self._service.templates.find
        try:
            if parts is None:  # not as clients write it, or none
                requests = parsed(pb.PredictStreamRequest, data).requests
                parts = [each.SerializeToString() for each in requests]
            read = [(part, find(part) or parsed(pb.PredictRequest, part)) for part in parts]
        except InvalidRequest as error:
            self._end_with(error)
            return
        if len(parts) > MANY_REQUESTS and len(data) <= self._service.offload_bytes:
            self._service.offload(self._call, data, lambda _: self._take(read))
        else:
            self._take(read)

    def _end_with(self, error: InvalidRequest) -> None:
        """Ends the stream because of a message that is none, once what came before it is answered."""
        self._service.telemetry.failed("PredictStream", error)
        self._end = status.to_status(error)
        with self._lock:
            self._in_flight -= 1
        self._finish_if_done()

    def _take(self, requests: Sequence[_Read]) -> None:
        count = len(requests)
        self._service.telemetry.stream_received(1, count)
        with self._lock:
            self._in_flight += count - 1  # the requests take the place of their message
            self._paused = paused = self._in_flight >= self._service.max_stream_requests
        for data, read in requests:
            self._begin(data, read)
        self.flush()
        if not paused:
            self._receive()

    def _begin(self, data: bytes, read: Template | pb.PredictRequest) -> None:
        item = _Item(self)
        self._waiting.add(item)
        if self._ordered:
            self._in_order.append(item)
        service = self._service
        if isinstance(read, Template):
            if item.submit_alike(data, read, self._call, service):
                return
            read = pb.PredictRequest.FromString(data)
        item.submit(data, read, self._call, service)
        if self._closed:  # while a worker was decoding
            item.cancel(service.engine)

    def _receive(self) -> None:
        if self._end is None:
            self._call.receive()

    def _move_in_order(self) -> None:
        """Puts the results at the head of the line into the outbox."""
        line = self._in_order
        with self._lock:
            while line and (part := line[0].part) is not None:
                line.popleft()
                self._outbox.put(part)

    def _finish_if_done(self) -> None:
        if self._end is not None and not self._in_flight:
            self._call.finish(self._end)
