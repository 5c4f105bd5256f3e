"""Inputs with a default value in the graph: requests may leave them out, and those that do not run alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.backends.onnx import MOST_DEFAULTS
from penstock_client import Client, PenstockError
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc
from support import zoo
from support.servers import RunningServer, running_server
from support.work import opened

SCALE = np.array([2.0], np.float32)


def scaled(*, shape: tuple[int | str, ...] = (1,), count: int = 1, fixed: bool = False) -> onnx.ModelProto:
    """y [N, 3] = x [N, 3] times all of `scale0`, `scale1` and so on, which are 2 if they are not given."""
    names = [f"scale{place}" for place in range(count)]
    nodes, last = [], "x"
    for place, name in enumerate(names):
        made = "y" if place == count - 1 else f"t{place}"
        nodes.append(helper.make_node("Mul", [last, name], [made]))
        last = made
    rows: int | str = 1 if fixed else "N"
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        [numpy_helper.from_array(np.full(1 if shape else (), 2, np.float32), name) for name in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_they_are_no_part_of_what_every_run_needs(tmp_path: Path) -> None:
    backend = opened(scaled(), tmp_path)
    assert list(backend.signature.inputs) == ["x"]
    assert {name: each.shape for name, each in backend.signature.defaults.items()} == {"scale0": (1,)}
    x = np.ones((1, 3), np.float32)
    assert backend.run(["y"], {"x": x})[0].tolist() == [[2, 2, 2]]
    assert backend.run(["y"], {"x": x, "scale0": SCALE * 2})[0].tolist() == [[4, 4, 4]]


@pytest.mark.parametrize("model", [scaled(count=MOST_DEFAULTS + 1), scaled(shape=("K",))])
def test_weights_and_open_shapes_are_not_offered(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert opened(model, tmp_path).signature.defaults == {}


def test_before_version_4_of_the_format_initializers_are_weights(tmp_path: Path) -> None:
    model = scaled()
    model.ir_version = 3
    assert opened(model, tmp_path).signature.defaults == {}


# Served

ONES = np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = zoo.repository(
        tmp_path_factory.mktemp("defaults"),
        {"batched": scaled(count=2), "alone": scaled(fixed=True), "scalar": scaled(shape=(), count=2)},
    )
    with running_server(root) as server:
        yield server


@pytest.mark.parametrize("model", ["batched", "alone", "scalar"])
def test_the_model_says_that_they_are_optional(model: str, server: RunningServer) -> None:
    with Client(server.target) as client:
        info = client.model(model)
    assert info.batching.enabled == (model != "alone")
    assert [(each.name, each.optional) for each in info.inputs[:2]] == [("x", False), ("scale0", True)]


@pytest.mark.parametrize("merge_rows", [False, True])
@pytest.mark.parametrize("model", ["batched", "alone", "scalar"])
def test_with_and_without_in_any_company(model: str, merge_rows: bool, server: RunningServer) -> None:
    """Each caller gets what its own values give, whatever else is asked at the same time."""
    shape, base = (() if model == "scalar" else (1,)), (2 if model == "alone" else 4)
    wrong: list[str] = []

    def call(client: Client, caller: int) -> None:
        for turn in range(12):
            inputs, expected = {"x": ONES * (caller + 1)}, float(base * (caller + 1))
            if (caller + turn) % 3 == 0:
                inputs["scale0"] = np.full(shape, caller + 5, np.float32)
                expected *= (caller + 5) / 2
            found = np.asarray(client.predict(model, inputs)["y"]).tolist()
            if found != [[expected] * 3]:
                wrong.append(f"{expected} is {found}")

    with Client(server.target, timeout=20, transport="auto", merge_rows=merge_rows) as client:
        callers = [Thread(target=call, args=(client, number)) for number in range(8)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
    assert not wrong


def test_on_a_stream(server: RunningServer) -> None:
    items = [
        {"x": ONES * n, **({"scale1": np.full(1, n, np.float32)} if n % 3 == 0 else {})} for n in range(60)
    ]
    with Client(server.target, timeout=20) as client:
        found = [float(np.asarray(each["y"])[0, 0]) for each in client.predict_stream("batched", items)]
    assert found == [2.0 * n * (n if n % 3 == 0 else 2) for n in range(60)]


def test_several_rows_have_one_value(server: RunningServer) -> None:
    with Client(server.target, timeout=20) as client:
        found = client.predict("batched", {"x": np.ones((3, 3), np.float32), "scale0": SCALE * 4})
        np.testing.assert_array_equal(np.asarray(found["y"]), np.full((3, 3), 16, np.float32))
        with pytest.raises(PenstockError, match=r"scale0"):
            client.predict("batched", {"x": ONES, "scale0": np.ones(2, np.float32)})


def test_open_inference(server: RunningServer) -> None:
    message = pb.ModelInferRequest(model_name="batched")
    for name, shape, values in (("x", [1, 3], ONES), ("scale0", [1], SCALE * 3)):
        message.inputs.add(name=name, datatype="FP32", shape=shape)
        message.raw_input_contents.append(values.tobytes())
    with grpc.insecure_channel(server.target) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(message, timeout=20)
        config = stub.ModelConfig(pb.ModelConfigRequest(name="batched"), timeout=20).config
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [12.0, 12.0, 12.0]
    described = [(each.name, each.optional, list(each.dims)) for each in config.input]
    assert described[:2] == [("x", False, [3]), ("scale0", True, [1])]
