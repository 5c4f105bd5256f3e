"""The hot part of the service: ModelInfer and ModelStreamInfer, straight on the transport."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from typing_extensions import override

from penstock.errors import InvalidRequest, RequestError
from penstock.messages import InferResponse
from penstock.rpc import status
from penstock.rpc.oip.requests import STREAM, UNARY, Infer, InferDoor, Item
from penstock.rpc.outbox import Outbox
from penstock.rpc.status import Codes
from penstock.rpc.steps import has_own_sequence
from penstock.rpc.stream import Stream, StreamItem
from penstock.rpc.unary import UnaryCall
from penstock.transport.call import OK, Kind, Method, ServerCall, Status

SERVICE = "inference.GRPCInferenceService"
GRPC_ERROR_KEY = "triton_grpc_error"


class InferenceService(InferDoor):
    """Makes the handlers of the two calls; see `penstock.rpc.door.Door` for what it is composed of.

    Args:
        codes: the status code of each error.
    """

    def __init__(self, *parts: Any, codes: Codes = status.CODES, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.codes = codes

    def methods(self) -> Mapping[str, Method]:
        """The methods, by full name."""
        return {
            f"/{SERVICE}/{UNARY}": Method(Kind.UNARY, partial(_ModelInfer, self)),
            f"/{SERVICE}/{STREAM}": Method(Kind.STREAM, self._open_stream),
        }

    def _open_stream(self, call: ServerCall) -> InferStream:
        stream = InferStream(call, self)
        self.opened(stream)
        return stream


class _ModelInfer(Infer, UnaryCall):
    """One unary call: a request in, an answer and the status out in one step."""

    __slots__ = ("_call", "_closed", "_service")

    _service: InferenceService

    def __init__(self, service: InferenceService, call: ServerCall) -> None:
        super().__init__(UNARY)
        self._service = service
        self._call = call
        self._closed = False

    @property
    @override
    def sender(self) -> object:
        return self._call.peer()

    @override
    def reply(self, result: InferResponse | RequestError) -> None:
        answer = self.encoded(result)
        if isinstance(answer, bytes):
            self._call.finish(OK, answer)
        else:
            self._call.finish(status.to_status(answer, self._service.codes))

    @override
    def _handle(self, data: bytes) -> None:
        service = self._service
        try:
            read = service.read(data)
        except InvalidRequest as error:
            service.telemetry.failed(UNARY, error)
            self.reply(error)
            return
        self.submit(data, read, self._call, service)
        if self._closed:  # while a worker was decoding
            self.cancel(service)


class InferStream(Stream):
    """One stream of requests, each a message, answered in their order.

    An error is the answer to its request, and the stream goes on; where the client asks for it by metadata,
    the first one ends the stream.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    def __init__(self, call: ServerCall, service: InferenceService) -> None:
        # The protocol has one answer a message: nothing is to be joined.
        super().__init__(call, service, Outbox(call.send, message_bytes=0), ordered=True)
        self._service = service
        metadata = dict(call.metadata)
        self.has_sequence = has_own_sequence(metadata)
        self._ends_on_error = metadata.get(GRPC_ERROR_KEY) == "true"
        self._failed = False

    def end_for(self, error: RequestError) -> Status | None:
        """How the stream is to end because of a request's error; None where it goes on."""
        return status.to_status(error, self._service.codes) if self._ends_on_error else None

    @override
    def _handle(self, data: bytes) -> None:
        service = self._service
        try:
            read = service.read(data)
        except InvalidRequest as error:
            service.telemetry.failed(STREAM, error)
            self._end_with(status.to_status(error))
            return
        self._coming(1)
        item = Item(self)
        self._add(item)
        item.submit(data, read, self._call, service)
        if self._closed:  # while a worker was decoding
            item.cancel(service)
        self._took()

    @override
    def _move_in_order(self) -> None:
        if not self._ends_on_error:
            super()._move_in_order()
            return
        for item in self._moved_to_error():
            item.cancel(self._service)

    def _moved_to_error(self) -> list[StreamItem]:
        """Puts the results before the first error into the outbox.

        Returns:
            What comes after it, and is not to be answered any more; each is given once.
        """
        line, dropped = self._in_order, list[StreamItem]()
        with self._lock:
            while line and (self._failed or line[0].parts is not None):
                item = line.popleft()
                if self._failed:
                    dropped.append(item)
                elif isinstance(item, Item) and item.end is not None:
                    self._failed, self._end = True, item.end
                    self._in_flight -= 1
                else:
                    self._put(item)
            self._in_flight -= len(dropped)
        return dropped
