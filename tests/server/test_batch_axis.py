"""Models whose rows do not lie along the first axis: each caller gets its slice, in the declared layout."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import penstock_client
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit
from support import turned, zoo
from support.servers import SCRIPT, running_server

CALLERS, CALLS = 16, 12
HELD_BACK = "[batching]\nmax_delay_seconds = 0.02\n"
MODELS = {
    "sums": (turned.running_sums, HELD_BACK),
    "times": (turned.time_first, HELD_BACK),
    "plain": (turned.plain_sums, HELD_BACK),
    "label": (turned.label_of_one, HELD_BACK),
    "recurrent": (turned.recurrent, f'[sequence]\nstate = {{ h = "hn" }}\n{HELD_BACK}'),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = zoo.repository(
        tmp_path_factory.mktemp("turned"), {name: make() for name, (make, _) in MODELS.items()}
    )
    for name, (_, settings) in MODELS.items():
        (path / name / "model.toml").write_text(settings)
    with running_server(path) as server:
        yield server.target


@pytest.fixture
def channel(target: str) -> Iterator[grpc.Channel]:
    with kit.connect(target) as channel:
        yield channel


def made(seed: int, rows: int = 0, time: int = 0) -> dict[str, np.ndarray]:
    """A request of running_sums: of 1 to 3 rows and 1 to 3 steps, if they are not given."""
    random = np.random.default_rng(seed)
    rows, time = rows or 1 + seed % 3, time or 1 + seed // 3 % 3
    return {
        "x": random.standard_normal((time, rows, 4)).astype(np.float32),
        "scale": random.standard_normal(rows).astype(np.float32),
    }


def assert_is_answer(outputs: Any, sent: dict[str, np.ndarray]) -> None:
    expected = turned.expected_sums(sent["x"], sent["scale"])
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def y_of(result: pb.PredictResponse | pb.PredictResult) -> np.ndarray:
    if isinstance(result, pb.PredictResult):
        assert result.HasField("response"), result.error
        result = result.response
    return kit.array_of(result.outputs["y"])


def test_callers_who_share_batches_get_their_own_rows(channel: grpc.Channel) -> None:
    predict = kit.stub_of(channel).Predict
    together: list[bool] = []

    def call(number: int) -> None:
        for each in range(CALLS):
            sent = made(CALLS * number + each)
            response = predict(kit.request("sums", **sent), timeout=kit.BOUND)
            assert_is_answer(y_of(response), sent)
            together.append(response.timing.batch_rows > len(sent["scale"]))

    kit.in_parallel([lambda number=number: call(number) for number in range(CALLERS)], CALLERS)
    assert len(together) == CALLERS * CALLS
    assert any(together)


def test_callers_of_the_other_protocol_share_these_batches(channel: grpc.Channel) -> None:
    infer, predict = oip_kit.stub_of(channel).ModelInfer, kit.stub_of(channel).Predict
    gate = threading.Barrier(8)

    def call(number: int) -> None:
        for each in range(4):
            sent = made(100 * number + each, time=2)
            gate.wait(kit.BOUND)
            if number % 2:
                answer = infer(oip_kit.request("sums", **sent), timeout=kit.BOUND)
                assert_is_answer(oip_kit.arrays_of(answer)["y"], sent)
            else:
                assert_is_answer(y_of(predict(kit.request("sums", **sent), timeout=kit.BOUND)), sent)

    kit.in_parallel([lambda number=number: call(number) for number in range(8)], 8)


def test_requests_of_a_stream_that_are_alike(channel: grpc.Channel) -> None:
    """They would be one micro-batch if their rows were first."""
    sent = [made(number, rows=2, time=3) for number in range(40)]
    requests = [kit.request("sums", tag=number + 1, **each) for number, each in enumerate(sent)]
    results = kit.stream_all(
        channel, [kit.message(requests[0]), kit.message(*requests), kit.message(*requests)]
    )
    assert [each.tag for each in results] == [1, *range(1, 41), *range(1, 41)]
    for result, each in zip(results, [sent[0], *sent, *sent], strict=True):
        assert_is_answer(y_of(result), each)
    assert max(each.response.timing.batch_rows for each in results) > 2


def test_a_stream_of_the_other_protocol(channel: grpc.Channel) -> None:
    sent = [made(number, rows=1 + number % 2, time=3) for number in range(20)]
    stream = oip_kit.Stream(channel)
    stream.send(*[oip_kit.request("sums", id=str(number), **each) for number, each in enumerate(sent)])
    for number, each in enumerate(sent):
        answer = stream.next().infer_response
        assert answer.id == str(number)
        assert_is_answer(oip_kit.arrays_of(answer)["y"], each)
    stream.half_close()


def test_each_request_gets_only_the_outputs_that_it_asks_for(channel: grpc.Channel) -> None:
    predict = kit.stub_of(channel).Predict
    x = np.arange(60, dtype=np.float32).reshape(3, 5, 4)

    def call(outputs: list[str], rows: int) -> pb.PredictResponse:
        return predict(kit.request("times", x=x[:rows], outputs=outputs), timeout=kit.BOUND)

    wanted = [(names, rows) for names in ([], ["z"], ["total"]) for rows in (1, 2, 3)] * 2
    responses = kit.in_parallel([lambda names=names, rows=rows: call(names, rows) for names, rows in wanted])
    for response, (names, rows) in zip(responses, wanted, strict=True):
        expected = {"z": x[:rows].transpose(1, 0, 2), "total": x[:rows].sum(axis=1)}
        assert sorted(response.outputs) == sorted(names or expected)
        for name, tensor in response.outputs.items():
            assert np.array_equal(kit.array_of(tensor), expected[name])


def test_a_label_declared_as_one_is_each_callers_own(channel: grpc.Channel) -> None:
    predict = kit.stub_of(channel).Predict
    sent = [np.roll(np.eye(3, dtype=np.float32), number, axis=0)[: 1 + number % 3] for number in range(16)]
    responses = kit.in_parallel(
        [lambda x=x: predict(kit.request("label", x=x), timeout=kit.BOUND) for x in sent]
    )
    for x, response in zip(sent, responses, strict=True):
        assert kit.array_of(response.outputs["label"]).tolist() == x.argmax(axis=1).tolist()


def test_a_request_without_rows_keeps_the_layout(channel: grpc.Channel) -> None:
    sent = {"x": np.zeros((3, 0, 4), np.float32), "scale": np.zeros(0, np.float32)}
    assert y_of(kit.stub_of(channel).Predict(kit.request("sums", **sent))).shape == (3, 0, 4)
    answer = oip_kit.stub_of(channel).ModelInfer(oip_kit.request("sums", **sent))
    assert oip_kit.arrays_of(answer)["y"].shape == (3, 0, 4)


def test_other_numbers_of_rows_are_refused(channel: grpc.Channel) -> None:
    sent = {"x": np.zeros((3, 2, 4), np.float32), "scale": np.zeros(3, np.float32)}
    with pytest.raises(grpc.RpcError) as refused:
        kit.stub_of(channel).Predict(kit.request("sums", **sent))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "all inputs need the same number of rows: x has 2, scale has 3" in refused.value.details()


def test_a_classification_ranks_each_row(channel: grpc.Channel) -> None:
    sent = {"x": np.zeros((1, 2, 4), np.float32), "scale": np.ones(2, np.float32)}
    sent["x"][0, :, 1:] = [[3, 5, 4], [9, 7, 8]]
    wanted = [oip_kit.output("y", classification=oip_pb.InferParameter(int64_param=2))]
    answer = oip_kit.stub_of(channel).ModelInfer(oip_kit.request("sums", outputs=wanted, **sent))
    assert oip_kit.arrays_of(answer)["y"].tolist() == [
        ["5.000000:2", "4.000000:3"],
        ["9.000000:1", "8.000000:3"],
    ]


def test_triton_is_told_whole_shapes(channel: grpc.Channel) -> None:
    """Its rows are always first, and its `dims` leave them out."""
    config = oip_kit.stub_of(channel).ModelConfig(oip_pb.ModelConfigRequest(name="sums")).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [-1, -1, 4])


def test_sequences_keep_their_own_states(channel: grpc.Channel) -> None:
    predict = kit.stub_of(channel).Predict

    def sequence(number: int) -> None:
        total = np.zeros(2, np.float32)
        for each in range(6):
            x = np.full((1 + each % 2, 1, 2), number + each, np.float32)
            step = pb.Sequence(id=f"turned-{number}", start=each == 0, end=each == 5)
            y = y_of(predict(kit.request("recurrent", x=x, sequence=step), timeout=kit.BOUND))
            assert np.array_equal(y, total + x.cumsum(axis=0))
            total = y[-1, 0]

    kit.in_parallel([lambda number=number: sequence(number) for number in range(8)], 8)
    two = kit.request("recurrent", x=np.zeros((1, 2, 2), np.float32), sequence=pb.Sequence(id="two"))
    with pytest.raises(grpc.RpcError) as refused:
        predict(two)
    assert "a step of a sequence has one row, got 2" in refused.value.details()


def test_the_client_knows_the_axes_and_merges_no_rows(target: str) -> None:
    async def predict_all() -> None:
        async with penstock_client.AsyncClient(target, merge_rows=True) as client:
            info = await client.model("sums")
            assert [each.row_axis for each in (*info.inputs, *info.outputs)] == [1, 0, 1]
            x = np.random.default_rng(2).standard_normal((16, 3, 2, 4)).astype(np.float32)
            await client.predict("plain", {"x": x[0]})  # from now on it knows the model
            answers = await asyncio.gather(*[client.predict("plain", {"x": each}) for each in x])
            for answer, each in zip(answers, x, strict=True):
                np.testing.assert_allclose(answer["y"], each.cumsum(axis=0), rtol=1e-5)

    asyncio.run(predict_all())


def test_the_command_line_takes_whole_tensors(target: str, tmp_path: Path) -> None:
    lines = [{"x": [[[value] * 4]] * 2, "scale": 2} for value in (1, 3)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    done = subprocess.run(
        [SCRIPT, "predict", "--target", target, "sums", "--file", str(rows)],
        capture_output=True, text=True, check=False, timeout=kit.BOUND,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["y"] for line in done.stdout.splitlines()]
    assert answers == [[[[2.0] * 4], [[4.0] * 4]], [[[6.0] * 4], [[12.0] * 4]]]
