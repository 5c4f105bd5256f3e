"""A model whose batches are given up for their speed reads and answers requests as it did before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from penstock.config import Config
from penstock.server import Server
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from rest.kit import Client
from server import kit, oip_kit
from server.test_no_rows import NONE, top
from support import zoo

REASON = "said by the test"
TWO = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
FACTOR = np.array(3, np.float32)
BODIES = (
    ("scaled", {"x": [1, 2, 3], "factor": 3}),
    ("scaled", {"instances": [{"x": [1, 2, 3], "factor": 3}, {"x": [4, 5, 6], "factor": 3}]}),
    ("scaled", {"instances": [{"x": [1, 2, 3], "factor": 3}, {"x": [4, 5, 6], "factor": 4}]}),
    ("scaled", {"inputs": {"x": TWO.tolist(), "factor": 3}}),
    ("added", {"inputs": {"a": TWO.tolist(), "b": TWO.tolist()}}),
    ("added", {"inputs": {"a": TWO.tolist(), "b": TWO[:1].tolist()}}),
    ("top", {"instances": [[1, 2, 3], [3, 2, 1]]}),
    ("along", {"inputs": {"x": np.ones((2, 3, 3)).tolist()}}),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {
        "top": top(), "scaled": zoo.scaled(), "added": zoo.add(),
        "along": zoo.identity(shape=(2, "batch", 3)),
    }  # fmt: skip
    path: Path = zoo.repository(tmp_path_factory.mktemp("models"), models)
    settings = {
        "server": {"port": 0, "ops_port": 0, "http_port": 0},
        "trial": {"enabled": False},
        "cache": {"enabled": False},
    }
    for name in models:
        (path / name / "model.toml").write_text("[batching]\nenabled = true\n")
    made = Server(Config.model_validate(settings), path)
    made.start()
    yield made
    made.stop(10)
    made.close()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with kit.connect(f"127.0.0.1:{server.port}") as channel:
        yield channel


def said(call: Any, request: Any) -> Any:
    """What a call answers or refuses, without the timing."""
    try:
        answer = MessageToDict(call(request, timeout=kit.BOUND))
    except grpc.RpcError as error:
        return error.code(), error.details()
    answer.pop("timing", None)
    answer.get("config", {}).pop("dynamicBatching", None)  # this is what is given up
    return answer


def heard(server: Server, channel: grpc.Channel) -> list[Any]:
    """What the models answer to requests of many kinds."""
    two = oip.InferParameter(int64_param=2)
    classes = [oip_kit.output("scores", classification=two)]
    predicted = [
        said(kit.stub_of(channel).Predict, each)
        for each in (
            kit.request("top", x=TWO), kit.request("top", x=NONE),
            kit.request("added", a=TWO, b=TWO), kit.request("added", a=TWO, b=TWO[:1]),
            kit.request("scaled", x=TWO, factor=FACTOR), kit.request("scaled", x=NONE, factor=FACTOR),
            kit.request("along", x=np.ones((2, 3, 3), np.float32)),
            kit.request("along", x=np.ones((2, 0, 3), np.float32)),
        )
    ]  # fmt: skip
    inferred = [
        said(oip_kit.stub_of(channel).ModelInfer, each)
        for each in (
            oip_kit.request("top", x=TWO, outputs=classes), oip_kit.request("top", x=NONE),
            oip_kit.request("added", a=TWO, b=TWO[:1]),
        )
    ]  # fmt: skip
    configured = [
        said(oip_kit.stub_of(channel).ModelConfig, oip.ModelConfigRequest(name=name))
        for name in ("top", "scaled", "added", "along")
    ]
    client = Client(server.http_port)
    posted = [
        (each.status, each.body)
        for name, body in BODIES
        for each in [client.call("POST", f"/v1/models/{name}:predict", body)]
    ]
    return [*predicted, *inferred, *configured, *posted]


def streamed(channel: grpc.Channel) -> list[pb.PredictResult]:
    """The answers to two messages of requests that are alike, each several times."""
    rows = [np.full((1, 3), number, np.float32) for number in range(24)]
    requests = [kit.request("top", tag=tag, x=x) for tag, x in enumerate(rows, 1)]
    results = kit.stream_all(channel, [kit.message(*requests)] * 3)
    for each in results:
        each.response.ClearField("timing")
    return list(results)


def test_requests_mean_what_they_meant(server: Server, channel: grpc.Channel) -> None:
    before, results = heard(server, channel), streamed(channel)
    models = server._registry.all()
    for model in models:
        assert model.batching.enabled, model.name
        model.batcher.found_dearer(REASON)
    after = heard(server, channel)
    for was, now in zip(before, after, strict=True):
        assert now == was
    assert streamed(channel) == results
    for model in models:
        assert (model.batching.enabled, model.batching.reason) == (False, f"seen on live requests: {REASON}")
        assert not model.batcher.breaker.is_open
