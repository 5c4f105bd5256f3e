"""The log of a running server: JSON in a pipe, and nothing of what callers send."""

from __future__ import annotations

import json
import time

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.core.tensors import DataType
from server import kit
from support import zoo

SECRET = "open-sesame-4711"
OK, INTERNAL = grpc.StatusCode.OK, grpc.StatusCode.INTERNAL
INVALID = grpc.StatusCode.INVALID_ARGUMENT
TEXT = np.array([[SECRET] * 3], object)


@pytest.fixture
def transport() -> str:
    """One transport is enough: the log is above them."""
    return "reactor"


def numbers_from_text() -> onnx.ModelProto:
    """y = the numbers written in x, BYTES [N, 3]; fails on text that is not a number."""
    model = zoo.identity(DataType.BYTES)
    model.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


MODELS = {"text": zoo.identity(DataType.BYTES), "numbers": numbers_from_text(), "identity": zoo.identity()}


def secrets() -> dict[str, tuple[kit.pb.PredictRequest, grpc.StatusCode]]:
    """Requests that hold the secret, each with how it ends."""
    good = kit.raw(TEXT, DataType.BYTES)
    no_text = kit.raw(TEXT, DataType.BYTES)
    no_text.raw = no_text.raw[:-1] + b"\xff"
    other_shape = kit.raw(TEXT[:, :2], DataType.BYTES)
    return {
        "answered": (kit.request("text", x=good), OK),
        "typed": (kit.request("text", x=kit.typed(TEXT, DataType.BYTES)), OK),
        "the model fails": (kit.request("numbers", x=good), INTERNAL),
        "another shape": (kit.request("text", x=other_shape), INVALID),
        "not text": (kit.request("text", x=no_text), INVALID),
        "text for numbers": (kit.request("identity", x=kit.typed(TEXT, DataType.BYTES)), INVALID),
        "an input too many": (kit.request("text", x=good, z=good), INVALID),
        "another output": (kit.request("text", x=good, outputs=["nothing"]), INVALID),
    }


def send_all(server) -> None:
    """Sends all of these, by itself and on a stream."""
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        for name, (request, code) in secrets().items():
            assert kit.code_of(lambda r=request: stub.Predict(r, timeout=kit.BOUND)) is code, name
        results = kit.stream_all(channel, kit.one_each([each for each, _ in secrets().values()]))
        codes = [code.value[0] for _, code in secrets().values()]
        assert [each.error.code for each in results] == codes


def test_the_log_of_a_server_that_says_all_it_can(serve) -> None:
    """Even at `debug`: JSON, a line for what failed, none of the values, and no lines of access."""
    server = serve(MODELS, "--log-level", "debug")
    send_all(server)
    assert server.stop() == 0
    assert SECRET not in "\n".join([*server.stderr, server.stdout])
    events = [json.loads(line) for line in server.stderr]
    assert all({"timestamp", "level", "logger", "event"} <= set(each) for each in events)
    failures = [each for each in events if each["event"] == "model failed"]
    assert [(each["model"], each["version"], each["rpc"]) for each in failures] == [
        ("numbers", "1", "Predict"),
        ("numbers", "1", "PredictStream"),
    ]
    assert {each["level"] for each in failures} == {"error"}
    assert [each for each in events if each["event"] == "request"] == []
    assert {"serving", "stopping", "stopped"} <= {each["event"] for each in events}


def test_every_answered_request_has_a_line_where_that_is_asked_for(serve) -> None:
    server = serve(MODELS, env={"PENSTOCK_LOG__ACCESS_SAMPLE": "1"})
    send_all(server)
    assert server.stop() == 0
    assert SECRET not in "\n".join(server.stderr)
    lines = [each for each in kit.logged(server) if each["event"] == "request"]
    assert [(each["model"], each["rpc"], each["rows"]) for each in lines] == [
        *[("text", "Predict", 1)] * 2,
        *[("text", "PredictStream", 1)] * 2,
    ]
    assert all(each["queue_seconds"] >= 0 and each["compute_seconds"] > 0 for each in lines)
    assert all(each["batch_rows"] >= each["rows"] for each in lines)


def test_a_flood_of_failures_does_not_fill_the_log(serve) -> None:
    """Callers decide how often a model fails: not each of 500 has a line, and those left out count."""
    server = serve({"fails": zoo.fails_on(100)})
    bad = kit.request("fails", x=kit.raw(np.array([[100]]), DataType.INT64))
    with kit.connect(server.target) as channel:
        results = kit.stream_all(channel, kit.one_each([bad] * 500))
        assert {each.error.code for each in results} == {INTERNAL.value[0]}
        time.sleep(1.0)  # another second, another line
        assert kit.code_of(lambda: kit.stub_of(channel).Predict(bad, timeout=kit.BOUND)) is INTERNAL
    assert server.stop() == 0
    failures = [each for each in kit.logged(server) if each["event"] == "model failed"]
    assert len(failures) < 500
    assert len(failures) + sum(each.get("left_out", 0) for each in failures) == 501


def test_the_numbers_that_a_model_fails_on_are_not_logged(serve) -> None:
    server = serve({"fails": zoo.fails_on(100)})
    number = 987654321
    request = kit.request("fails", x=kit.raw(np.array([[number]]), DataType.INT64))
    with kit.connect(server.target) as channel:
        assert kit.code_of(lambda: kit.stub_of(channel).Predict(request, timeout=kit.BOUND)) is INTERNAL
    server.wait_for_log("model failed")
    assert [line for line in server.stderr if str(number) in line] == []
