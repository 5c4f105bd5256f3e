"""`penstock.v1.PredictionService` on the core: the service, and its unary RPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from typing_extensions import override

from penstock.engine import Engine
from penstock.errors import InvalidRequest, RequestError
from penstock.messages import InferResponse
from penstock.rpc import status
from penstock.rpc.pending import Pending, parsed
from penstock.rpc.predict_stream import PredictStream, Telemetry
from penstock.rpc.templates import Templates
from penstock.transport.call import BROKEN, OK, Kind, Method, ServerCall
from penstock_proto.v1 import prediction_pb2 as pb

SERVICE = "penstock.v1.PredictionService"


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
        self.templates = Templates()
        self.offload_bytes = offload_bytes
        self.max_stream_requests = max_stream_requests
        self._workers = workers
        self._failed = failed
        self._streams: set[PredictStream] = set()
        self._draining = False

    def methods(self) -> Mapping[str, Method]:
        """The service's methods, by full name."""
        return {
            f"/{SERVICE}/Predict": Method(Kind.UNARY, partial(_Predict, self)),
            f"/{SERVICE}/PredictStream": Method(Kind.STREAM, self._open_stream),
        }

    def drain(self) -> None:
        """Lets every open stream end with UNAVAILABLE once what it has taken is answered."""
        self._draining = True
        for stream in tuple(self._streams):
            stream.stop()

    def offload(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Has a worker thread handle a message."""
        self._workers.submit(self._guarded, call, message, handle)

    def gone(self, stream: PredictStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)
        self.telemetry.stream_closed()

    def _open_stream(self, call: ServerCall) -> PredictStream:
        stream = PredictStream(call, self)
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


class _Predict(Pending):
    """One unary call: a request in, an answer and the status out in one step."""

    __slots__ = ("_call", "_closed", "_service")

    def __init__(self, service: PredictionService, call: ServerCall) -> None:
        super().__init__("Predict")
        self._service = service
        self._call = call
        self._closed = False

    @override
    def reply(self, result: InferResponse | RequestError) -> None:
        answer = self.encoded(result)
        if isinstance(answer, bytes):
            self._call.finish(OK, answer)
        else:
            self._call.finish(status.to_status(answer))

    def received(self, message: bytes) -> None:
        """The request has come."""
        if len(message) > self._service.offload_bytes:
            self._service.offload(self._call, message, self._handle)
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """Said of streams only."""

    def sent(self) -> None:
        """Said of streams only."""

    def closed(self, cancelled: bool) -> None:
        """The call is over."""
        self._closed = True
        if cancelled:
            self.cancel(self._service)

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
