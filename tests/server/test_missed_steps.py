"""A stream's own sequence whose first step is rejected: no later step may take its place unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit
from support import zoo
from support.servers import RunningServer, running_server

SUM = '[sequence]\nstate = { sum = "sumN" }\n'
OVER = "its first step was rejected"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    path = zoo.repository(
        tmp_path_factory.mktemp("missed"), {"sum": zoo.running_sum(), "identity": zoo.identity()}
    )
    (path / "sum" / "model.toml").write_text(SUM)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running_server(path, "--transport", name))
            for name in ("reactor", "portable")
        }


@pytest.fixture
def server(running: dict[str, RunningServer], transport: str) -> RunningServer:
    return running[transport]


def step(value: int, datatype: DataType = DataType.INT64, **fields: Any) -> pb.PredictRequest:
    return kit.request("sum", x=kit.raw(np.full((1, 1), value), datatype), **fields)


def test_what_follows_a_rejected_first_step_is_rejected(server: RunningServer) -> None:
    misfit = step(1, DataType.INT64, outputs=["nothing"])
    requests = [misfit, step(2), step(3), step(4, sequence=pb.Sequence(start=True)), step(5)]
    with kit.connect(server.target) as channel:
        first, second, third, fourth, fifth = kit.stream_all(channel, [kit.message(*requests)])
    assert "nothing" in first.error.message
    assert OVER in second.error.message
    assert OVER in third.error.message
    assert [int(kit.array_of(each.response.outputs["y"])[0, 0]) for each in (fourth, fifth)] == [4, 9]


def test_a_rejected_request_of_another_kind_is_no_first_step(server: RunningServer) -> None:
    """Of a model without a state; with an id; or after the sequence has begun."""
    stateless = kit.request("identity", outputs=["nothing"], x=kit.rows(1))
    by_id = step(1, outputs=["nothing"], sequence=pb.Sequence(id="other"))
    requests = [stateless, by_id, step(2), step(9, outputs=["nothing"]), step(3)]
    with kit.connect(server.target) as channel:
        results = kit.stream_all(channel, [kit.message(*requests)])
    assert [each.HasField("response") for each in results] == [False, False, True, False, True]
    assert int(kit.array_of(results[-1].response.outputs["y"])[0, 0]) == 5


def test_the_same_over_the_open_inference_protocol(server: RunningServer) -> None:
    fits = oip_kit.request("sum", datatype=DataType.INT64, x=np.full((1, 1), 2))
    with kit.connect(server.target) as channel:
        first, second = oip_kit.stream_all(channel, [oip_pb.ModelInferRequest(model_name="sum"), fits])
    assert "x" in first.error_message
    assert OVER in second.error_message
