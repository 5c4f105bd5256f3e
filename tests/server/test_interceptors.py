"""What is put before every call sees the calls of all services, and can end them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.config import Config
from penstock.server import Server
from penstock.transport.grpc.call import IGNORING, CallHandler, Method, Methods, ServerCall, Status
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from server import kit, oip_kit
from support import zoo

DENIED = grpc.StatusCode.PERMISSION_DENIED


class Watched:
    """Notes the methods that are called, and ends calls that carry a header `deny`."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __call__(self, methods: Methods) -> Methods:
        return {name: Method(each.kind, self._before(each)) for name, each in methods.items()}

    def _before(self, method: Method) -> Any:
        def handler(call: ServerCall) -> CallHandler:
            self.called.append(call.method)
            if "deny" in dict(call.metadata):
                call.finish(Status(DENIED, "denied for a test"))
                return IGNORING
            return method.handler(call)

        return handler


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, Watched, str]]:
    path = zoo.repository(tmp_path_factory.mktemp("models"), {"identity": zoo.identity()})
    outer, inner = Watched(), Watched()
    server = made(path, outer, inner)
    server.start()
    try:
        yield outer, inner, f"127.0.0.1:{server.port}"
    finally:
        server.stop(5)
        server.close()


def made(path: Path, *interceptors: Watched) -> Server:
    config = Config.model_validate({"server": {"port": 0, "ops_port": 0, "http": False}})
    return Server(config, path, interceptors=interceptors)


def test_the_calls_of_all_services_are_seen_and_answered(watched: tuple[Watched, Watched, str]) -> None:
    outer, _, target = watched
    with kit.connect(target) as channel:
        kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)
        kit.stream_all(channel, [kit.message(kit.request("identity", x=kit.rows(1)))])
        oip_kit.stub_of(channel).ModelInfer(oip_kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)
        model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest(), timeout=kit.BOUND)  # type: ignore[no-untyped-call]
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=kit.BOUND)
    names = ["Predict", "PredictStream", "ModelInfer", "ListModels", "Check"]
    assert [each.rpartition("/")[2] for each in outer.called[-5:]] == names


def test_a_call_can_be_ended_before_it_reaches_its_service(watched: tuple[Watched, Watched, str]) -> None:
    outer, inner, target = watched
    with kit.connect(target) as channel:
        before = len(outer.called), len(inner.called)
        with pytest.raises(grpc.RpcError) as ended:
            kit.stub_of(channel).Predict(
                kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND, metadata=[("deny", "1")]
            )
        assert ended.value.code() is DENIED
    assert (len(outer.called), len(inner.called)) == (before[0] + 1, before[1]), "the first one comes first"
