"""A stub of the Open Inference Protocol that asks over HTTP: the same messages go in, and the same come out.

What JSON cannot say is left out: which of the typed lists holds the values, and the type of a parameter.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

JSON_SIZE = "inference-header-content-length"


class Failed(grpc.RpcError):
    """An error of a call, which is asked as gRPC's are."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body)
        self.report = json.loads(body)
        assert self.report["status"] == status
        assert self.report["error"] == self.report["detail"]

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self.report["code"]]

    def details(self) -> str:
        return str(self.report["error"])


def _of_model(rest: str = "") -> Callable[[Any], str]:
    def path(message: Any) -> str:
        version = f"/versions/{quote(message.version, safe='')}" if message.version else ""
        return f"/v2/models/{quote(message.name, safe='')}{version}{rest}"

    return path


def _repository(what: str) -> Callable[[Any], str]:
    return lambda message: f"/v2/repository/models/{quote(message.model_name, safe='')}/{what}"


PATHS: Mapping[str, tuple[str, Callable[[Any], str], type]] = {
    "ServerLive": ("GET", lambda _: "/v2/health/live", pb.ServerLiveResponse),
    "ServerReady": ("GET", lambda _: "/v2/health/ready", pb.ServerReadyResponse),
    "ServerMetadata": ("GET", lambda _: "/v2", pb.ServerMetadataResponse),
    "ModelReady": ("GET", _of_model("/ready"), pb.ModelReadyResponse),
    "ModelMetadata": ("GET", _of_model(), pb.ModelMetadataResponse),
    "ModelConfig": ("GET", _of_model("/config"), pb.ModelConfigResponse),
    "ModelStatistics": ("GET", _of_model("/stats"), pb.ModelStatisticsResponse),
    "RepositoryIndex": ("POST", lambda _: "/v2/repository/index", pb.RepositoryIndexResponse),
    "RepositoryModelLoad": ("POST", _repository("load"), pb.RepositoryModelLoadResponse),
    "RepositoryModelUnload": ("POST", _repository("unload"), pb.RepositoryModelUnloadResponse),
    "SystemSharedMemoryStatus": ("GET", lambda _: "/v2/systemsharedmemory/status", object),
    "SystemSharedMemoryRegister": ("POST", lambda _: "/v2/systemsharedmemory/region/r/register", object),
    "SystemSharedMemoryUnregister": ("POST", lambda _: "/v2/systemsharedmemory/unregister", object),
    "CudaSharedMemoryStatus": ("GET", lambda _: "/v2/cudasharedmemory/status", object),
    "CudaSharedMemoryRegister": ("POST", lambda _: "/v2/cudasharedmemory/region/r/register", object),
    "CudaSharedMemoryUnregister": ("POST", lambda _: "/v2/cudasharedmemory/unregister", object),
    "TraceSetting": ("GET", lambda _: "/v2/trace/setting", object),
    "LogSettings": ("GET", lambda _: "/v2/logging", object),
}


class Stub:
    """Asks over HTTP, a connection for each call.

    Args:
        target: "host:port".
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.ModelInfer = Infer(target)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb, path, kind = PATHS[name]

        def ask(message: Any, timeout: float, metadata: object = ()) -> Any:
            body = b'{"ready": true}' if getattr(message, "ready", False) else b""
            _, answer = called(self._target, verb, path(message), body, timeout=timeout)
            return _message(name, kind, json.loads(answer) if answer else {})

        return ask


def _message(name: str, kind: Any, fields: Any) -> Any:
    if name == "RepositoryIndex":
        fields = {"models": fields}
    elif name == "ModelConfig":
        fields = {"config": fields}
    return ParseDict(fields, kind(), ignore_unknown_fields=True)


class Infer:
    """Asks for an inference."""

    def __init__(self, target: str) -> None:
        self._target = target

    def __call__(self, message: Any, timeout: float, metadata: object = ()) -> Any:
        name, version = quote(message.model_name, safe=""), quote(message.model_version, safe="")
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "") + "/infer"
        body, size = written(message)
        headers, answer = called(self._target, "POST", path, body, {JSON_SIZE: str(size)}, timeout)
        return read(answer, int(headers.get(JSON_SIZE, len(answer))))

    def future(self, message: Any, timeout: float) -> Future:
        return Future(lambda: self(message, timeout))


class Future:
    """A call on a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def exception(self) -> Exception | None:
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self._error = error


def called(
    target: str,
    verb: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20,
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an answer.

    Raises:
        Failed: it is an error.
    """
    connection = http.client.HTTPConnection(target, timeout=timeout)
    try:
        connection.request(verb, path, body, dict(headers or {}))
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    is_not_ready = answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE and path.endswith("ready")
    if answer.status != http.HTTPStatus.OK and not is_not_ready:
        raise Failed(answer.status, data)
    return {key.lower(): value for key, value in answer.getheaders()}, data


def parameters_of(message: Any) -> dict[str, Any]:
    kinds = {name: each.WhichOneof("parameter_choice") for name, each in message.parameters.items()}
    return {name: getattr(message.parameters[name], kind) if kind else None for name, kind in kinds.items()}


def written(message: Any) -> tuple[bytes, int]:
    """The body of a request, and the size of the JSON in it."""
    raw = list(message.raw_input_contents)
    inputs = []
    for each in message.inputs:
        given: dict[str, Any] = {
            "name": each.name,
            "shape": list(each.shape),
            "parameters": parameters_of(each),
        }
        if each.datatype:
            given["datatype"] = each.datatype
        lists = [value for _, values in each.contents.ListFields() for value in values]
        if lists:
            given["data"] = [v.decode() if isinstance(v, bytes) else v for v in lists]
        if raw and (not lists or len(raw) == len(message.inputs)):
            given["parameters"]["binary_data_size"] = len(raw[len(inputs)]) if len(inputs) < len(raw) else 0
        inputs.append(given)
    outputs = [{"name": each.name, "parameters": parameters_of(each)} for each in message.outputs]
    fields = {"inputs": inputs, "parameters": {"binary_data_output": True, **parameters_of(message)}}
    if message.id:
        fields["id"] = message.id
    if outputs:
        fields["outputs"] = outputs
    head = json.dumps(fields).encode()
    return head + b"".join(raw), len(head)


def read(body: bytes, size: int) -> Any:
    """The message in the body of an answer."""
    fields, binary = json.loads(body[:size]), body[size:]
    message = pb.ModelInferResponse(
        model_name=fields["model_name"], model_version=fields["model_version"], id=fields.get("id", "")
    )
    for each in fields["outputs"]:
        message.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        count = each.get("parameters", {}).get("binary_data_size")
        if count is None:
            message.raw_output_contents.append(_raw(each["datatype"], each["data"]))
        else:
            message.raw_output_contents.append(binary[:count])
            binary = binary[count:]
    assert not binary, binary
    return message


def _raw(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        return bytes(
            serialize_byte_tensor(np.array([each.encode() for each in values], object)).item() or b""
        )
    return np.array(values, triton_to_np_dtype(datatype)).tobytes()
