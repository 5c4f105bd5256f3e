"""Requests of different lengths in one batch, in both protocols and through the Python client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_client import Client, InvalidInput
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from server import kit, oip_kit
from support import lengths, zoo
from support.servers import SCRIPT, RunningServer, running_server

IDS = "[padding]\naxes = {input_ids = 1}\n"
MODELS = {
    "masked": (lengths.masked_mean, f'{IDS}mask = "attention_mask"\n'),
    "places": (lengths.per_position, IDS),
    "told": (lengths.mean_by_lengths, '[padding]\naxes = {x = 1}\nlengths = "lengths"\nbuckets = [64]\n'),
    "plain": (lengths.per_position, ""),
}
HELD_BACK = "[batching]\nmax_delay_seconds = 0.2\nmax_rows = 8\n"
"""So that a batch is sure to hold what the test has sent."""
SESSIONS = {name: zoo.session(make()) for name, (make, _) in MODELS.items()}
COUNT = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = zoo.repository(
        tmp_path_factory.mktemp("padding"), {name: make() for name, (make, _) in MODELS.items()}
    )
    for name, (_, text) in MODELS.items():
        (root / name / "model.toml").write_text(HELD_BACK + text)
    with running_server(root) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with kit.connect(server.target) as made:
        yield made


def ids(number: int) -> np.ndarray:
    """Of 1 to 3 rows and 1 to 59 ids, in no order."""
    return np.random.default_rng(number).integers(1, 10, (1 + number % 3, 1 + number * 37 % 59))


def alone(model: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """What ONNX Runtime gives for it, unpadded."""
    session = SESSIONS[model]
    given = {"input_ids": array, "attention_mask": np.ones_like(array)}
    feed = {each.name: given[each.name] for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def assert_as_alone(model: str, array: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    for name, wanted in alone(model, array).items():
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-4, atol=1e-5)


def tensor(array: np.ndarray) -> Any:
    return kit.raw(array, DataType.INT64)


def outputs_of(response: Any) -> dict[str, np.ndarray]:
    return {name: kit.array_of(each) for name, each in response.outputs.items()}


@pytest.mark.parametrize("model", ["masked", "places"])
def test_calls_of_mixed_lengths(server: RunningServer, channel: grpc.Channel, model: str) -> None:
    stub, before = kit.stub_of(channel), kit.Metrics(server.ops)
    arrays = [ids(n) for n in range(COUNT)]
    calls = [
        stub.Predict.future(kit.request(model, input_ids=tensor(each)), timeout=kit.BOUND) for each in arrays
    ]
    responses = [call.result(kit.BOUND) for call in calls]
    for array, response in zip(arrays, responses, strict=True):
        assert_as_alone(model, array, outputs_of(response))
        assert response.timing.batch_rows >= len(array)
    assert max(each.timing.batch_rows for each in responses) > 4
    assert_counted(server, model, arrays, before)


def assert_counted(
    server: RunningServer, model: str, arrays: Sequence[np.ndarray], before: kit.Metrics
) -> None:
    def since(after: kit.Metrics, kind: str) -> float:
        name = "padding_elements_total"
        return after.sum(name, model=model, kind=kind) - before.sum(name, model=model, kind=kind)

    real = sum(each.size for each in arrays)
    kit.wait_until(lambda: since(kit.Metrics(server.ops), "real") == real, "what came is counted")
    buckets = [16, 32, 64]
    padded = sum(len(each) * next(size for size in buckets if size >= each.shape[1]) for each in arrays)
    assert since(kit.Metrics(server.ops), "padding") == padded - real


def test_a_model_that_does_not_pad_has_no_such_metric(server: RunningServer) -> None:
    assert kit.Metrics(server.ops).sum("padding_elements_total", model="plain") == 0


@pytest.mark.parametrize("model", ["masked", "places"])
def test_streams_of_mixed_lengths(channel: grpc.Channel, model: str) -> None:
    arrays = [ids(n // 5) for n in range(5 * COUNT)]  # 5 of a kind: they look alike and go in blocks
    messages = [kit.request(model, tag=n % 100 + 1, input_ids=tensor(each)) for n, each in enumerate(arrays)]
    for _ in range(2):  # the second time by templates
        results = kit.stream_all(channel, [kit.message(*messages)])
        for array, result in zip(arrays, results, strict=True):
            assert_as_alone(model, array, outputs_of(result.response))


@pytest.mark.parametrize("model", ["masked", "places"])
def test_blocks_of_requests_that_look_alike(channel: grpc.Channel, model: str) -> None:
    """One length a message, so that all of it is a micro-batch once such requests are known."""
    for length in (3, 16, 3, 16):
        arrays = [np.random.default_rng(n).integers(1, 10, (1, length)) for n in range(24)]
        messages = [kit.request(model, tag=n + 1, input_ids=tensor(each)) for n, each in enumerate(arrays)]
        results = kit.stream_all(channel, [kit.message(messages[0]), kit.message(*messages)])[1:]
        assert [each.tag for each in results] == list(range(1, 25))
        for array, result in zip(arrays, results, strict=True):
            assert_as_alone(model, array, outputs_of(result.response))


@pytest.mark.parametrize("model", ["masked", "places"])
def test_the_other_protocol(channel: grpc.Channel, model: str) -> None:
    stub = oip_kit.stub_of(channel)
    arrays = [ids(n) for n in range(COUNT)]
    requests = [oip_kit.request(model, datatype=DataType.INT64, input_ids=each) for each in arrays]
    for _ in range(2):
        calls = [stub.ModelInfer.future(each, timeout=kit.BOUND) for each in requests]
        for array, call in zip(arrays, calls, strict=True):
            assert_as_alone(model, array, oip_kit.arrays_of(call.result(kit.BOUND)))
        answers = oip_kit.stream_all(channel, requests)
        for array, answer in zip(arrays, answers, strict=True):
            assert_as_alone(model, array, oip_kit.arrays_of(answer.infer_response))


def test_lengths_that_are_sent_and_left_out(channel: grpc.Channel) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 2)).astype(np.float32)
    told = tensor(np.array([2, 4]))
    asked = [
        kit.request("told", x=x),
        kit.request("told", x=x, lengths=told),
        kit.request("told", x=x[:, :3]),
    ]
    answers = [each.response for each in kit.stream_all(channel, [kit.message(*asked)])]
    full, partly, short = (outputs_of(each)["y"] for each in answers)
    np.testing.assert_allclose(full, x.mean(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(partly, [x[0, :2].mean(axis=0), x[1, :4].mean(axis=0)], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(short, x[:, :3].mean(axis=1), rtol=1e-4, atol=1e-6)
    assert {each.timing.batch_rows for each in answers} == {6}


def test_a_mask_that_is_sent_holds(channel: grpc.Channel) -> None:
    stub, array = kit.stub_of(channel), np.array([[4, 5, 6]])
    masked = kit.request("masked", input_ids=tensor(array), attention_mask=tensor(np.array([[1, 1, 0]])))
    answer = outputs_of(stub.Predict(masked, timeout=kit.BOUND))["y"]
    np.testing.assert_allclose(answer, alone("masked", array[:, :2])["y"], rtol=1e-4, atol=1e-5)


def test_one_longer_than_all_buckets_runs_at_its_own_length(channel: grpc.Channel) -> None:
    array = np.random.default_rng(0).integers(1, 10, (2, 700))
    answer = kit.stub_of(channel).Predict(kit.request("masked", input_ids=tensor(array)), timeout=kit.BOUND)
    assert_as_alone("masked", array, outputs_of(answer))


def test_what_cannot_be_padded_is_refused(channel: grpc.Channel) -> None:
    ones = np.ones((1, 3), np.int64)
    wrong = kit.request("masked", input_ids=tensor(ones), attention_mask=tensor(ones[:, :2]))
    stub = kit.stub_of(channel)
    with pytest.raises(grpc.RpcError, match="the same length: input_ids has 3, attention_mask has 2"):
        stub.Predict(wrong, timeout=kit.BOUND)
    with pytest.raises(
        grpc.RpcError, match=r"input input_ids is missing: .*attention_mask INT64\[N,L\] \(optional\)"
    ):
        stub.Predict(kit.request("masked", attention_mask=tensor(ones)), timeout=kit.BOUND)
    refused = oip_kit.request("masked", datatype=DataType.INT64, attention_mask=ones)
    ((code, words),) = oip_kit.refusals(oip_kit.stub_of(channel), [refused])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "input input_ids is missing" in words


def test_what_is_said_of_a_model(channel: grpc.Channel) -> None:
    found = model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(model="masked"))
    assert {each.name: each.optional for each in found.inputs} == {"input_ids": False, "attention_mask": True}
    assert "lengths are padded to 16, 32, 64, 128, 256, 512" in found.batching.reason
    config = oip_kit.stub_of(channel).ModelConfig(oip.ModelConfigRequest(name="masked")).config
    assert [each.optional for each in config.input] == [False, True]


def test_the_client_leaves_out_what_may_be(server: RunningServer) -> None:
    with Client(server.target) as client:
        assert [each.optional for each in client.model("masked").inputs] == [False, True]
        for number in range(4):
            array = ids(number)
            assert_as_alone("masked", array, dict(client.predict("masked", {"input_ids": array})))
            both = {"input_ids": array, "attention_mask": np.ones_like(array)}
            assert_as_alone("masked", array, dict(client.predict("masked", both)))
        with pytest.raises(InvalidInput, match=r"missing: 'input_ids'\).*, attention_mask .* \(optional\)$"):
            client.predict("masked", {"attention_mask": ids(1)})


def test_the_command_line_leaves_out_what_may_be(server: RunningServer, tmp_path: Path) -> None:
    assert "attention_mask" not in predicted(server, "input_ids=[1, 2, 3]")
    assert "attention_mask" in predicted(server, "input_ids=[1, 2, 3]", "attention_mask=[1, 1, 0]")
    file = tmp_path / "rows.jsonl"
    file.write_text('{"input_ids": [1, 2, 3]}\n{"input_ids": [4]}\n')
    answers = [json.loads(line)["y"] for line in predicted(server, "--file", str(file)).splitlines()]
    for row, answer in zip(([1, 2, 3], [4]), answers, strict=True):
        np.testing.assert_allclose(answer, alone("masked", np.array([row]))["y"][0], rtol=1e-4, atol=1e-5)


def predicted(server: RunningServer, *arguments: str) -> str:
    command = [SCRIPT, "predict", "masked", "--target", server.target, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=kit.BOUND).stdout
