"""Requests without rows are settled before a model sees them."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit
from support import zoo
from support.servers import RunningServer, running_server

NONE = np.zeros((0, 3), np.float32)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def top() -> Any:
    """A classifier that fails without rows, as exporters write it: x [N, 3] to label [N], scores [N, 3]."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["index"], axis=1, keepdims=0),
        helper.make_node("ArrayFeatureExtractor", ["classes", "index"], ["found"], domain="ai.onnx.ml"),
        helper.make_node("Reshape", ["found", "flat"], ["label"]),
        helper.make_node("Identity", ["x"], ["scores"]),
    ]
    made = [
        helper.make_tensor("classes", TensorProto.INT64, [3], [7, 8, 9]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "top",
        [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("label", TensorProto.INT64, ["N"]), value("scores", TensorProto.FLOAT, ["N", 3])],
        made,
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def twice_as_wide() -> Any:
    """x [N, L] beside itself: y [N, M], where the graph does not say what M is."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)],
        "wide",
        [value("x", TensorProto.FLOAT, ["N", "L"])],
        [value("y", TensorProto.FLOAT, ["N", "M"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models = {
        "top": top(),
        "text": zoo.identity(DataType.BYTES),
        "counted": zoo.identity(DataType.BYTES),
        "named": zoo.identity(DataType.FP32, ("N", "L")),
        "open": twice_as_wide(),
        "sums": zoo.running_sum(),
    }
    path = zoo.repository(tmp_path_factory.mktemp("models"), models)
    (path / "sums" / "model.toml").write_text('[sequence]\nstate = { sum = "sumN" }\n')
    with running_server(path) as server:
        yield server


@pytest.fixture(scope="module")
def channel(own: RunningServer) -> Any:
    with kit.connect(own.target) as channel:
        yield channel


def test_an_answer_has_no_rows_and_the_signatures_other_axes(
    own: RunningServer, channel: grpc.Channel
) -> None:
    answer = kit.stub_of(channel).Predict(kit.request("top", x=NONE, id="a"), timeout=kit.BOUND)
    assert (answer.id, answer.version, answer.timing.batch_rows) == ("a", "1", 0)
    assert list(answer.outputs["label"].shape) == [0]
    assert list(answer.outputs["scores"].shape) == [0, 3]
    assert kit.array_of(answer.outputs["label"]).dtype == np.int64
    typed = kit.request("top", x=NONE, output_encoding=pb.TYPED, outputs=["scores"])
    again = kit.stub_of(channel).Predict(typed, timeout=kit.BOUND)
    assert {name: list(each.shape) for name, each in again.outputs.items()} == {"scores": [0, 3]}
    assert kit.problems(own) == []


def test_text_has_none_either(channel: grpc.Channel) -> None:
    none = kit.raw(np.empty((0, 3), object), DataType.BYTES)
    answer = kit.stub_of(channel).Predict(kit.request("text", x=none), timeout=kit.BOUND)
    assert kit.array_of(answer.outputs["y"]).shape == (0, 3)


def test_the_other_protocol(channel: grpc.Channel) -> None:
    stub = oip_kit.stub_of(channel)
    answer = stub.ModelInfer(oip_kit.request("top", x=NONE), timeout=kit.BOUND)
    assert {name: each.shape for name, each in oip_kit.arrays_of(answer).items()} == {
        "label": (0,),
        "scores": (0, 3),
    }
    two = oip.InferParameter(int64_param=2)
    classes = oip_kit.request("top", x=NONE, outputs=[oip_kit.output("scores", classification=two)])
    answer = stub.ModelInfer(classes, timeout=kit.BOUND)
    assert {name: each.shape for name, each in oip_kit.arrays_of(answer).items()} == {"scores": (0, 2)}
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(oip_kit.request("open", x=np.zeros((0, 4), np.float32)), timeout=kit.BOUND)
    assert refused.value.code() is INVALID


def test_an_axis_with_the_name_of_an_inputs_is_as_long(channel: grpc.Channel) -> None:
    answer = kit.stub_of(channel).Predict(kit.request("named", x=np.zeros((0, 4), np.float32)))
    assert kit.array_of(answer.outputs["y"]).shape == (0, 4)


def test_an_open_axis_makes_it_unknown(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        kit.stub_of(channel).Predict(kit.request("open", x=np.zeros((0, 4), np.float32)), timeout=kit.BOUND)
    assert refused.value.code() is INVALID
    assert "output y FP32[N,M]" in refused.value.details()
    assert "at least one row" in refused.value.details()


def test_on_a_stream_it_has_its_place(own: RunningServer, channel: grpc.Channel) -> None:
    rows = [kit.rows(1), NONE, NONE, NONE, NONE, NONE, kit.rows(2)]
    requests = [kit.request("top", tag=tag, x=x) for tag, x in enumerate(rows, 1)]
    for how in ({}, {"metadata": kit.COMPLETION}):
        results = kit.stream_all(channel, [kit.message(*requests), kit.message(*requests)], **how)
        assert sorted(each.tag for each in results) == sorted([*range(1, 8)] * 2)
        for each in results:
            assert each.response.outputs["label"].shape[0] == len(rows[each.tag - 1])


def test_a_step_of_a_sequence_still_needs_its_row(channel: grpc.Channel) -> None:
    request = kit.request("sums", x=kit.raw(np.zeros((0, 1)), DataType.INT64))
    request.sequence.id, request.sequence.start = "s", True
    with pytest.raises(grpc.RpcError, match="a step of a sequence has one row, got 0"):
        kit.stub_of(channel).Predict(request, timeout=kit.BOUND)


def test_they_are_counted(own: RunningServer, channel: grpc.Channel) -> None:
    none = kit.raw(np.empty((0, 3), object), DataType.BYTES)
    kit.stub_of(channel).Predict(kit.request("counted", x=none), timeout=kit.BOUND)
    kit.assert_counted(own.ops, 1, "requests_total", model="counted", code="OK")
