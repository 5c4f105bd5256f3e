"""The plain REST service: `POST /predict/{model}`, and its streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from typing_extensions import override

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.request import Response
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo, Codec, attached
from penstock.protocols.fast_path.spans import Span
from penstock.protocols.request import ProtocolRequest, UnaryCall
from penstock.protocols.rest.decoder import (
    MODEL,
    VERSION,
    HttpDecoded,
    check_query,
    check_sequences,
    check_stream,
    decode,
)
from penstock.protocols.rest.encoder import encode
from penstock.protocols.rest.errors import to_status
from penstock.protocols.rest.stream import RPC, LineStream
from penstock.protocols.rest.work import WORK
from penstock.protocols.send_buffer import SMALL_BYTES
from penstock.protocols.service import Service
from penstock.transport.grpc.call import IGNORING, OK, CallHandler, Kind, Method, Methods, ServerCall
from penstock.transport.http.call import HttpCall, header_value
from penstock.transport.http.lines import LineCall
from penstock.transport.http.routes import Route
from penstock.transport.http.status import JSON

UNARY = "RestPredict"
PREDICT = "/penstock.rest/Predict"
STREAM = "/penstock.rest/PredictStream"
VERSION_HEADER = b"penstock-model-version"
TYPE = JSON.encode()
CHECKED = "checked"
"""The note that a head has been checked; see `HttpCall.notes`."""
TIMING = "penstock-timing"
"""The header of a request that asks how long its parts took."""
TIMING_HEADER = b"server-timing"

ROUTES = (
    Route("POST", "/predict/{model}", PREDICT),
    Route("POST", "/predict/{model}/versions/{version}", PREDICT),
    Route("POST", "/predict/{model}/stream", STREAM),
    Route("POST", "/predict/{model}/versions/{version}/stream", STREAM),
)


class _VersionHeader:
    """The header that names a model's version.

    Args:
        model: the model.

    Attributes:
        pair: its name and value.
    """

    def __init__(self, model: Model) -> None:
        self.pair = (VERSION_HEADER, header_value(model.version_text))


def no_spans(data: bytes) -> Sequence[Span]:
    """JSON has no places that could be found without parsing it."""
    raise ValueError("requests in JSON are always parsed")


def encode_timed(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The answer as JSON; says in a header how long the request waited and ran, if it asks for that."""
    origin = getattr(asked, "origin", None)
    if isinstance(origin, HttpUnaryCall) and TIMING in origin.call.headers:
        run = response.run
        queued, computed = response.queue_seconds * 1e3, (run.finished - run.started) * 1e3
        words = f"queue;dur={queued:.3f}, compute;dur={computed:.3f}, batch;desc={run.rows}"
        origin.call.header(TIMING_HEADER, words)
    return encode(response, asked)


class HttpUnaryCall(UnaryCall):
    """A request over HTTP; see `UnaryCall` for the arguments."""

    __slots__ = ()

    call: HttpCall

    @override
    def answered(self, request: ProtocolRequest, answer: bytes | RequestError) -> None:
        call = self.call
        call.answer_headers.append(attached(request.model, _VersionHeader).pair)
        if isinstance(answer, bytes):
            if len(answer) > SMALL_BYTES or self.account is not None:
                self._count(request, len(answer))
            self._say_type(request)
            call.finish(OK, answer)
        else:
            call.finish(self.service.codec.error(answer))

    def _say_type(self, request: ProtocolRequest) -> None:
        """Sets the content type of the answer, and the headers that depend on it."""
        self.call.answer_type = TYPE

    @override
    def received(self, message: bytes) -> None:
        if len(message) > self.service.offload_bytes:
            self.service.offload(self.call, message, self._take)
        else:
            self._take(message)

    @override
    def _take(self, data: bytes) -> None:
        self._taking = True
        self._decode(data)

    @override
    def _decode(self, data: bytes) -> None:
        try:
            if CHECKED not in self.call.notes:
                self._check()
                self.call.notes[CHECKED] = True
            # The codecs of this package decode to nothing else; asking an abstract class costs two calls.
            decoded: HttpDecoded = self.service.codec.decode(data)  # type: ignore[assignment]
            decoded.came_by(self.call)
        except InvalidRequest as error:
            self._reject(error)
            return
        self.begin_decoded(decoded, None)
        decoded.let_go()
        self._took()

    def _check(self) -> None:
        """Checks what the head of the request says, whichever model it is for.

        Raises:
            InvalidRequest: a part of it means nothing.
        """
        check_sequences(self.call.headers)


class PredictCall(HttpUnaryCall):
    """A plain request; see `UnaryCall` for the arguments."""

    __slots__ = ()

    @override
    def _check(self) -> None:
        super()._check()
        check_query(self.call)


class HttpService(Service):
    """A service over HTTP; see `Service` for the other arguments.

    Args:
        reader: a thread that reads large JSON, one body after another. With several, everything else would
            wait for each of them, and many times the size of each body would be needed in memory.
    """

    def __init__(self, codec: Codec, *parts: Any, reader: Executor) -> None:
        super().__init__(codec, *parts)
        self._reader = reader

    @override
    def offload(self, call: ServerCall, message: bytes, handle: Callable[[bytes], None]) -> None:
        if self.is_binary(call):
            super().offload(call, message, handle)
        else:
            self._reader.submit(self._guarded, call, message, handle)

    def is_binary(self, call: ServerCall) -> bool:
        """Whether most of a large message is binary data."""
        return False


class RestService(HttpService):
    """The plain REST service; see `HttpService` for the arguments."""

    def __init__(self, *parts: Any, reader: Executor) -> None:
        super().__init__(Codec(decode, encode_timed, to_status, no_spans, WORK), *parts, reader=reader)

    def methods(self) -> Methods:
        """The service's methods, by full name."""
        return {
            PREDICT: Method(Kind.UNARY, partial(PredictCall, self, UNARY)),
            STREAM: Method(Kind.STREAM, self._open_stream),
        }

    def _open_stream(self, call: ServerCall) -> CallHandler:
        assert isinstance(call, LineCall), "only the HTTP transport has such methods"
        try:
            check_stream(call)
            model = self.engine.route(call.parameters[MODEL], call.parameters.get(VERSION, ""))
        except RequestError as error:  # before the answer has begun: the error has a status of its own
            self.telemetry.failed(RPC, error)
            call.finish(to_status(error))
            return IGNORING
        call.header(VERSION_HEADER, model.version_text)
        stream = LineStream(call, self)
        self.opened(stream)
        return stream
