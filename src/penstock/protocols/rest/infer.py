"""The Open Inference Protocol over HTTP: inference, health, metadata, statistics and the repository.

All but inference itself is done by the servicer of gRPC: a call is translated into a message, and its answer
into JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from typing_extensions import override

from penstock.core.errors import InvalidRequest
from penstock.protocols import status
from penstock.protocols.codec import Codec
from penstock.protocols.open_inference.service import SERVICE
from penstock.protocols.open_inference.service import UNARY as INFER
from penstock.protocols.request import ProtocolRequest
from penstock.protocols.rest.decoder import MODEL, VERSION
from penstock.protocols.rest.errors import parsed, to_status
from penstock.protocols.rest.infer_decoder import JSON_BYTES, decode
from penstock.protocols.rest.infer_encoder import encode
from penstock.protocols.rest.messages import fields_of
from penstock.protocols.rest.service import HttpService, HttpUnaryCall, no_spans
from penstock.protocols.rest.values import dumped
from penstock.protocols.rest.work import WORK
from penstock.protocols.status import Codes
from penstock.transport.grpc.call import OK, Kind, Method, Methods, ServerCall, Status
from penstock.transport.http.call import HttpCall
from penstock.transport.http.routes import Route
from penstock.transport.http.status import HttpStatus
from penstock_proto.inference import grpc_service_pb2 as pb

RPC = "HttpInfer"
MODELS, OF_MODEL = "/v2/models", "/v2/models/{model}"
OF_VERSION = f"{OF_MODEL}/versions/{{version}}"
BINARY_EXTENSION = "binary_tensor_data"
OCTETS = b"application/octet-stream"
JSON_BYTES_HEADER = JSON_BYTES.encode()
NOT_READY = HttpStatus(grpc.StatusCode.UNAVAILABLE, retry_after_seconds=1.0)


class Asked(NamedTuple):
    """A method of the servicer, as it is asked for over HTTP.

    Attributes:
        verb: "GET" or "POST".
        paths: the paths that lead to it.
        request: makes its message.
        answer: reads the serialized answer.
        shown: what of the answer is sent.
    """

    verb: str
    paths: Sequence[str]
    request: Callable[[HttpCall, bytes], Message]
    answer: type[Message]
    shown: Callable[[Any], Any] = fields_of


def _empty(kind: type[Message], call: HttpCall, body: bytes) -> Message:
    return kind()


def _named(kind: Callable[..., Message], call: HttpCall, body: bytes) -> Message:
    given = call.parameters
    return kind(name=given.get(MODEL, ""), version=given.get(VERSION, ""))


def _index(call: HttpCall, body: bytes) -> Message:
    asked = parsed(body) if body.strip() else {}
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise InvalidRequest('the body is expected to be an object, such as {"ready": true}')
    return pb.RepositoryIndexRequest(ready=ready)


def _controlled(kind: Callable[..., Message], call: HttpCall, body: bytes) -> Message:
    return kind(model_name=call.parameters[MODEL])


def _server(message: Any) -> dict[str, Any]:
    fields = fields_of(message)
    return {**fields, "extensions": [*fields["extensions"], BINARY_EXTENSION]}


def _models(message: Any) -> list[dict[str, Any]]:
    return [fields_of(each) for each in message.models]


def _each(suffix: str) -> tuple[str, str]:
    return f"{OF_MODEL}{suffix}", f"{OF_VERSION}{suffix}"


ASKED: Mapping[str, Asked] = {
    "ServerLive": Asked(
        "GET", ("/v2/health/live",), partial(_empty, pb.ServerLiveRequest), pb.ServerLiveResponse
    ),
    "ServerReady": Asked(
        "GET", ("/v2/health/ready",), partial(_empty, pb.ServerReadyRequest), pb.ServerReadyResponse
    ),
    "ServerMetadata": Asked(
        "GET", ("/v2",), partial(_empty, pb.ServerMetadataRequest), pb.ServerMetadataResponse, _server
    ),
    "ModelReady": Asked("GET", _each("/ready"), partial(_named, pb.ModelReadyRequest), pb.ModelReadyResponse),
    "ModelStatistics": Asked(
        "GET",
        (f"{MODELS}/stats", *_each("/stats")),
        partial(_named, pb.ModelStatisticsRequest),
        pb.ModelStatisticsResponse,
    ),
    "ModelMetadata": Asked(
        "GET", _each(""), partial(_named, pb.ModelMetadataRequest), pb.ModelMetadataResponse
    ),
    "ModelConfig": Asked(
        "GET",
        _each("/config"),
        partial(_named, pb.ModelConfigRequest),
        pb.ModelConfigResponse,
        lambda message: fields_of(message.config),
    ),
    "RepositoryIndex": Asked("POST", ("/v2/repository/index",), _index, pb.RepositoryIndexResponse, _models),
    "RepositoryModelLoad": Asked(
        "POST",
        ("/v2/repository/models/{model}/load",),
        partial(_controlled, pb.RepositoryModelLoadRequest),
        pb.RepositoryModelLoadResponse,
    ),
    "RepositoryModelUnload": Asked(
        "POST",
        ("/v2/repository/models/{model}/unload",),
        partial(_controlled, pb.RepositoryModelUnloadRequest),
        pb.RepositoryModelUnloadResponse,
    ),
}
"""What is translated, by the method's name."""

ROUTES = (
    *(Route("POST", path, f"/{SERVICE}/{INFER}", JSON_BYTES) for path in _each("/infer")),
    *(Route(each.verb, path, f"/{SERVICE}/{name}") for name, each in ASKED.items() for path in each.paths),
)


class InferCall(HttpUnaryCall):
    """An inference request over HTTP; see `HttpUnaryCall`."""

    __slots__ = ()

    @override
    def _say_type(self, request: ProtocolRequest) -> None:
        size = request.form.json_bytes
        if size is None:
            super()._say_type(request)
            return
        self.call.answer_type = OCTETS
        self.call.answer_headers.append((JSON_BYTES_HEADER, b"%d" % size))


class HttpInferService(HttpService):
    """Inference by the Open Inference Protocol over HTTP; see `HttpService` for the other arguments.

    Args:
        codes: gRPC's status code of each error.
    """

    def __init__(self, *parts: Any, reader: Executor, codes: Codes = status.CODES) -> None:
        codec = Codec(decode, encode, partial(to_status, codes=codes), no_spans, WORK)
        super().__init__(codec, *parts, reader=reader)

    @override
    def is_binary(self, call: ServerCall) -> bool:
        assert isinstance(call, HttpCall), "only the HTTP transport has such methods"
        return JSON_BYTES in call.headers

    def methods(self) -> Methods:
        """The service's methods, by full name."""
        return {f"/{SERVICE}/{INFER}": Method(Kind.UNARY, partial(InferCall, self, RPC))}


def methods(servicer: Methods) -> Methods:
    """The methods besides inference, by full name.

    Args:
        servicer: those of gRPC's servicer.
    """
    names = {f"/{SERVICE}/{name}": asked for name, asked in ASKED.items()}
    return {
        name: Method(Kind.UNARY, partial(_Translator, asked, servicer[name])) for name, asked in names.items()
    }


class _Translator:
    """The handler of a call that the servicer of gRPC answers.

    Args:
        asked: what is asked for.
        method: the servicer's method.
        call: the call.
    """

    def __init__(self, asked: Asked, method: Method, call: ServerCall) -> None:
        assert isinstance(call, HttpCall), "only the HTTP transport has such methods"
        self._asked = asked
        self._call = call
        self._inner = method.handler(_InnerCall(call, asked))

    def received(self, message: bytes) -> None:
        try:
            request = self._asked.request(self._call, message)
        except InvalidRequest as error:
            self._call.finish(to_status(error))
            return
        self._inner.received(request.SerializeToString())

    def half_closed(self) -> None:
        """Not used by calls with one message."""

    def sent(self) -> None:
        """Not used by calls with one message."""

    def closed(self, cancelled: bool) -> None:
        self._inner.closed(cancelled)


class _InnerCall(ServerCall):
    """The call, as the servicer sees it."""

    __slots__ = ("_asked", "_call")

    def __init__(self, call: HttpCall, asked: Asked) -> None:
        super().__init__(call.method, call.metadata, call.deadline)
        self._call = call
        self._asked = asked

    @override
    def peer(self) -> str:
        return self._call.peer()

    @override
    def identities(self) -> Sequence[bytes]:
        return self._call.identities()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._call.auth_context()

    @override
    def receive(self) -> None:
        self._call.receive()

    @override
    def send(self, message: bytes) -> None:
        self._call.send(message)

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        if message is None or status.code is not grpc.StatusCode.OK:
            self._call.finish(status)
            return
        answer = self._asked.answer.FromString(message)
        is_ready = getattr(answer, "ready", True)
        self._call.finish(OK if is_ready else NOT_READY, dumped(self._asked.shown(answer)))
