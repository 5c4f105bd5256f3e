"""With `server.on_broken = "serve"`, models that cannot be loaded are reported, and the others are served."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import penstock_client
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.inference import grpc_service_pb2_grpc as oip_grpc
from penstock_proto.v1 import model_pb2 as pb
from penstock_proto.v1 import model_pb2_grpc
from server import kit
from support import zoo
from support.servers import SCRIPT, RunningServer, running_server

HEALTH = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def broken_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Of `good`; of `bad`, whose one file is no model; and of `mixed`, whose newest version is none."""
    models = {"bad": zoo.add(), "good": zoo.scale(2.0), "mixed": {1: zoo.scale(2.0), 2: zoo.scale(3.0)}}
    root = zoo.repository(tmp_path_factory.mktemp("models"), models)
    (root / "mixed/model.toml").write_text("labels = {next = 2}\n")
    for path in ("bad/1/model.onnx", "mixed/2/model.onnx"):
        (root / path).write_bytes(b"garbage")
    with running_server(root, "--on-broken", "serve") as server:
        yield server


@pytest.fixture
def channel(broken_server: RunningServer) -> Iterator[grpc.Channel]:
    with kit.connect(broken_server.target) as channel:
        yield channel


def test_the_others_are_served(channel: grpc.Channel) -> None:
    stub = kit.stub_of(channel)
    x = kit.rows(1)
    assert stub.Predict(kit.request("good", x=x), timeout=kit.BOUND).outputs
    assert stub.Predict(kit.request("mixed", version="1", x=x), timeout=kit.BOUND).outputs


@pytest.mark.parametrize(
    ("name", "version", "number"),
    [("bad", "", 1), ("bad", "1", 1), ("mixed", "", 2), ("mixed", "2", 2), ("mixed", "next", 2)],
)
def test_requests_for_a_broken_version_are_rejected(
    channel: grpc.Channel, name: str, version: str, number: int
) -> None:
    """Also those without a version: an older one does not take its place."""
    request = kit.request(name, version=version, x=kit.rows(1))
    with pytest.raises(grpc.RpcError) as caught:
        kit.stub_of(channel).Predict(request, timeout=kit.BOUND)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details().startswith(f"model {name} version {number} could not be loaded")


def test_it_is_described_with_the_reason(channel: grpc.Channel) -> None:
    models: Any = model_pb2_grpc.ModelServiceStub(channel)
    found = models.GetModel(pb.GetModelRequest(model="mixed"), timeout=kit.BOUND)
    assert (found.version, found.state, found.is_default, list(found.labels)) == (
        "2",
        pb.FAILED,
        True,
        ["next"],
    )
    assert "mixed/2/model.onnx cannot be loaded" in found.state_reason
    listed = models.ListModels(pb.ListModelsRequest(), timeout=kit.BOUND).models
    assert sorted((each.name, each.version, each.state) for each in listed) == [
        ("bad", "1", pb.FAILED),
        ("good", "1", pb.READY),
        ("mixed", "1", pb.READY),
        ("mixed", "2", pb.FAILED),
    ]


def test_health_and_readiness(channel: grpc.Channel, broken_server: RunningServer) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    def state(name: str) -> int:
        return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=kit.BOUND).status)

    names = ("", "good", "bad", "mixed")
    expected = [HEALTH.SERVING, HEALTH.SERVING, HEALTH.NOT_SERVING, HEALTH.NOT_SERVING]
    assert [state(name) for name in names] == expected
    status, text = kit.get(f"{broken_server.ops}/readyz")
    assert (status, text.strip()) == (200, "ok, but not served: bad version 1, mixed version 2")


def test_in_the_open_inference_protocol(channel: grpc.Channel) -> None:
    stub: Any = oip_grpc.GRPCInferenceServiceStub(channel)
    assert not stub.ModelReady(oip.ModelReadyRequest(name="bad"), timeout=kit.BOUND).ready
    assert stub.ModelReady(oip.ModelReadyRequest(name="good"), timeout=kit.BOUND).ready
    index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=kit.BOUND).models
    unavailable = {(each.name, each.version): each.reason for each in index if each.state == "UNAVAILABLE"}
    assert set(unavailable) == {("bad", "1"), ("mixed", "2")}
    assert all("cannot be loaded" in reason for reason in unavailable.values())
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(oip.ModelMetadataRequest(name="bad"), timeout=kit.BOUND)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_log_says_why(broken_server: RunningServer) -> None:
    told = [each for each in kit.logged(broken_server) if each["event"] == "model is not served"]
    assert [(each["level"], each["model"], each["version"]) for each in told] == [
        ("error", "bad", 1),
        ("error", "mixed", 2),
    ]
    assert all("cannot be loaded" in each["reason"] for each in told)


def test_with_our_client_and_command(broken_server: RunningServer) -> None:
    with penstock_client.Client(broken_server.target, timeout=kit.BOUND) as client:
        with pytest.raises(penstock_client.Unavailable, match=r"bad version 1 failed: .*cannot be loaded"):
            client.predict("bad", {"x": kit.rows(1)})
        assert client.predict("good", {"x": kit.rows(1)})
    command = [str(SCRIPT), "models", broken_server.target]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^bad  version 1, the default  FAILED \(.* cannot be loaded", printed, re.MULTILINE)
    assert re.search(r"^good  version 1, the default  READY\n  inputs", printed, re.MULTILINE)
