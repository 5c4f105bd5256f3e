"""PredictStream: many requests over one call, answered in order or as they finish."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, cast

import grpc
from typing_extensions import override

from penstock.errors import InvalidRequest
from penstock.messages import Flush
from penstock.rpc import status
from penstock.rpc.blocks import LEAST, requests_in
from penstock.rpc.items import Block, Item
from penstock.rpc.outbox import Outbox
from penstock.rpc.pending import Door, Failures, parsed
from penstock.rpc.templates import Template
from penstock.tensors import Array
from penstock.transport.call import OK, ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb

ORDER_KEY = "penstock-order"
ORDERS = ("request", "completion")
STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping; all requests it took are answered")
MANY_REQUESTS = 4096  # in one message: more would hold the polling thread up, however small they are
_Read: TypeAlias = "tuple[bytes | Array, Template | pb.PredictRequest]"
"""A request's bytes, and what they look like or mean; or those of several that look alike."""


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
        self._in_order: deque[Item | Block] = deque()  # all that are not in the outbox yet, in request order
        self._waiting: set[Item | Block] = set()  # all that have no result yet
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
            item.cancel(self._service)

    def stop(self) -> None:
        """Reads nothing more, and ends with UNAVAILABLE once all that was taken is answered."""
        self._end = self._end or STOPPING
        self._finish_if_done()

    def done(self, item: Item | Block) -> Flush:
        """A request, or all of a block, has its result."""
        self._waiting.discard(item)
        if not self._ordered:
            self._put(item)
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
        try:
            requests = self._read(data)
        except InvalidRequest as error:
            self._end_with(error)
            return
        if len(requests) > MANY_REQUESTS and len(data) <= self._service.offload_bytes:
            self._service.offload(self._call, data, lambda _: self._take(requests))
        else:
            self._take(requests)

    def _read(self, data: bytes) -> list[_Read]:
        """The requests in a message.

        Raises:
            InvalidRequest: it is none.
        """
        found = requests_in(data, self._service.templates)
        if found is None:  # not as clients write it, or none
            requests = parsed(pb.PredictStreamRequest, data).requests
            return [(each.SerializeToString(), each) for each in requests]
        return [(part, template or parsed(pb.PredictRequest, bytes(part))) for part, template in found]

    def _end_with(self, error: InvalidRequest) -> None:
        """Ends the stream because of a message that is none, once what came before it is answered."""
        self._service.telemetry.failed("PredictStream", error)
        self._end = status.to_status(error)
        with self._lock:
            self._in_flight -= 1
        self._finish_if_done()

    def _take(self, requests: Sequence[_Read]) -> None:
        count = sum([1 if isinstance(data, bytes) else len(data) for data, _ in requests])
        self._service.telemetry.stream_received(1, count)
        with self._lock:
            self._in_flight += count
        for data, read in requests:
            if isinstance(data, bytes):
                self._begin(data, read)
            else:
                self._begin_many(data, cast(Template, read))
        with self._lock:  # not before: the next message's requests come after all of this one's
            self._in_flight -= 1  # the message itself
            self._paused = paused = self._in_flight >= self._service.max_stream_requests
        self.flush()
        if not paused:
            self._receive()

    def _begin(self, data: bytes, read: Template | pb.PredictRequest) -> None:
        item = Item(self)
        self._add(item)
        service = self._service
        if not isinstance(read, Template):
            item.submit(data, read, self._call, service)
        elif not item.submit_alike(data, read, self._call, service):
            item.submit(data, pb.PredictRequest.FromString(data), self._call, service)
        if self._closed:  # while a worker was decoding
            item.cancel(service)

    def _begin_many(self, messages: Array, template: Template) -> None:
        """Begins requests that look alike, as many together as fit into a batch."""
        service = self._service
        model = template.model_now(service.engine.route)
        together = model.batcher.policy.max_rows // template.rows if model and template.rows else 0
        if model is None or together < LEAST:
            for message in messages:
                self._begin(message.tobytes(), template)
            return
        for start in range(0, len(messages), together):
            part = messages[start : start + together]
            block = Block(self, template, part)
            self._add(block)
            block.submit(part, model, self._call, service)
            if self._closed:
                block.cancel(service)

    def _add(self, item: Item | Block) -> None:
        self._waiting.add(item)
        if self._ordered:
            self._in_order.append(item)

    def _put(self, item: Item | Block) -> None:
        for part, count in item.parts or ():
            self._outbox.put(part, count)

    def _receive(self) -> None:
        if self._end is None:
            self._call.receive()

    def _move_in_order(self) -> None:
        """Puts the results at the head of the line into the outbox."""
        line = self._in_order
        with self._lock:
            while line and line[0].parts is not None:
                self._put(line.popleft())

    def _finish_if_done(self) -> None:
        if self._end is not None and not self._in_flight:
            self._call.finish(self._end)
