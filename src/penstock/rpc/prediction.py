"""`penstock.v1.PredictionService` on the core: the service, and its unary RPC."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from typing_extensions import override

from penstock.errors import InvalidRequest, RequestError
from penstock.messages import InferResponse
from penstock.rpc import status
from penstock.rpc.door import parsed
from penstock.rpc.pending import Pending, PredictDoor
from penstock.rpc.predict_stream import PredictStream
from penstock.rpc.unary import UnaryCall
from penstock.transport.call import OK, Kind, Method, ServerCall
from penstock_proto.v1 import prediction_pb2 as pb

SERVICE = "penstock.v1.PredictionService"


class PredictionService(PredictDoor):
    """Makes the handlers of the service's calls; see `Door` for what it is composed of."""

    def methods(self) -> Mapping[str, Method]:
        """The service's methods, by full name."""
        return {
            f"/{SERVICE}/Predict": Method(Kind.UNARY, partial(_Predict, self)),
            f"/{SERVICE}/PredictStream": Method(Kind.STREAM, self._open_stream),
        }

    def _open_stream(self, call: ServerCall) -> PredictStream:
        stream = PredictStream(call, self)
        self.opened(stream)
        return stream


class _Predict(Pending, UnaryCall):
    """One unary call: a request in, an answer and the status out in one step."""

    __slots__ = ("_call", "_closed", "_service")

    _service: PredictionService

    def __init__(self, service: PredictionService, call: ServerCall) -> None:
        super().__init__("Predict")
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
            self._call.finish(status.to_status(answer))

    @override
    def _handle(self, data: bytes) -> None:
        service = self._service
        template = service.templates.find(data)
        if template is None or not self.submit_alike(data, template, self._call, service):
            try:
                message = parsed(pb.PredictRequest, data)
            except InvalidRequest as error:
                service.telemetry.failed("Predict", error)
                self.reply(error)
                return
            self.submit(data, message, self._call, service)
        if self._closed:  # while a worker was decoding
            self.cancel(service)
