"""Interceptors see the calls over HTTP as they see those over gRPC, and may end them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from penstock.config import Config
from penstock.server import Server
from penstock.transport.grpc.call import IGNORING, CallHandler, Method, Methods, ServerCall, Status
from rest.kit import Client
from support import zoo


def test_a_call_can_be_ended_before_it_reaches_its_service(tmp_path: Path) -> None:
    seen: list[str] = []

    def guarded(methods: Methods) -> Methods:
        return {name: Method(each.kind, asked(each)) for name, each in methods.items()}

    def asked(method: Method) -> Callable[[ServerCall], CallHandler]:
        def handler(call: ServerCall) -> CallHandler:
            seen.append(call.method)
            assert call.peer().startswith("ipv4:127.0.0.1:")
            if dict(call.metadata).get("authorization") == "Bearer good":
                return method.handler(call)
            call.finish(Status(grpc.StatusCode.UNAUTHENTICATED, "no credentials"))
            return IGNORING

        return handler

    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    config = Config.model_validate(
        {"server": {"port": 0, "ops_port": 0, "http_port": 0}, "trial": {"enabled": False}}
    )
    server = Server(config, path, interceptors=[guarded])
    server.start()
    try:
        client = Client(server.http_port)
        for path_, body in (
            ("/predict/identity", {"x": [1, 2, 3]}),
            ("/predict/identity/stream", {"x": [1, 2, 3]}),
        ):
            answer = client.post(path_, body)
            assert (answer.status, answer.json["detail"]) == (401, "no credentials")
            assert client.post(path_, body, Authorization="Bearer good").json == {"y": [1, 2, 3]}
        assert client.get("/v2/models/identity").json["error"] == "no credentials"
        assert client.get("/v2/models/identity", Authorization="Bearer good").status == 200
    finally:
        server.close()
    assert {"/penstock.rest/Predict", "/inference.GRPCInferenceService/ModelMetadata"} <= set(seen)
