"""Batches under concurrency: the answers are those of ONNX Runtime called directly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

import grpc
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from penstock.core.tensors import DataType
from server import kit
from support import zoo

Inputs = Mapping[str, np.ndarray]
ROWS = [1, 2, 3, 4, 5, 6, 7]
CONCURRENCY = 200


def floats(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def lead(count: int, seed: int) -> Inputs:
    random = np.random.default_rng(seed)
    sources = np.array(["paid_ads", "organic_search", "referral", "nobody knows"], object)
    return {
        "lead_source": random.choice(sources, (count, 1)),
        "number_of_courses_viewed": random.integers(0, 9, (count, 1)),
        "annual_income": random.uniform(1e4, 2e5, (count, 1)).astype(np.float32),
    }


def tensors(inputs: Inputs) -> dict[str, Any]:
    kinds = {"O": DataType.BYTES, "i": DataType.INT64, "f": DataType.FP32}
    return {name: kit.raw(array, kinds[array.dtype.kind]) for name, array in inputs.items()}


def lead_scoring() -> onnx.ModelProto:
    return onnx.load(zoo.EXAMPLES / "models" / "lead_scoring" / "1" / "model.onnx")


# The model, its inputs, and how far the last bits may be apart: what the self-check tolerates.
MODELS: dict[str, Any] = {
    "add": (zoo.add, lambda n, s: {"a": floats(n, 3, s), "b": floats(n, 3, s + 1)}, 0.0),
    "tiny_mlp": (zoo.tiny_mlp, lambda n, s: {"x": floats(n, 64, s)}, 1e-4),
    "lead_scoring": (lead_scoring, lead, 1e-4),
}


def directly(session: ort.InferenceSession, inputs: Inputs) -> dict[str, np.ndarray]:
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def assert_same(came: Any, wanted: Mapping[str, np.ndarray], tolerance: float) -> None:
    assert set(came.outputs) == set(wanted)
    for name, array in wanted.items():
        output = kit.array_of(came.outputs[name])
        if tolerance and array.dtype.kind == "f":
            np.testing.assert_allclose(output, array, rtol=0, atol=tolerance * np.abs(array).max())
        else:
            np.testing.assert_array_equal(output, array)


@pytest.mark.parametrize("name", MODELS)
def test_200_callers_of_mixed_rows(server, stub, name) -> None:
    make, make_inputs, tolerance = MODELS[name]
    session = zoo.session(make())
    inputs = [make_inputs(count, seed) for seed, count in enumerate(islice(cycle(ROWS), 3 * CONCURRENCY))]
    messages = [kit.request(name, id=str(n), **tensors(each)) for n, each in enumerate(inputs)]
    before = kit.Metrics(server.ops)
    responses = call_all(stub, messages)
    for number, (each, response) in enumerate(zip(inputs, responses, strict=True)):
        assert response.id == str(number)
        assert_same(response, directly(session, each), tolerance)
    assert_batched(server.ops, name, before, inputs)


def call_all(stub: Any, messages: list[Any]) -> list[Any]:
    """The answers, with as many calls under way as the test promises."""
    responses: list[Any] = []
    under_way: list[Any] = []
    for each in messages:
        if len(under_way) == CONCURRENCY:
            responses.append(under_way.pop(0).result(kit.BOUND))
        under_way.append(stub.Predict.future(each, timeout=kit.BOUND))
    return responses + [each.result(kit.BOUND) for each in under_way]


def assert_batched(ops: str, name: str, before: kit.Metrics, inputs: list[Inputs]) -> None:
    rows = sum(len(next(iter(each.values()))) for each in inputs)

    def counted() -> bool:
        return kit.metric(ops, "rows_total", model=name) - before.sum("rows_total", model=name) == rows

    kit.wait_until(counted, "every row is counted once")
    after = kit.Metrics(ops)
    batches = after.sum("batches_total", model=name) - before.sum("batches_total", model=name)
    assert batches < len(inputs), "no two requests were run together"


@pytest.mark.parametrize("name", MODELS)
def test_streams_of_mixed_rows(server, channel, name) -> None:
    make, make_inputs, tolerance = MODELS[name]
    session = zoo.session(make())
    inputs = [make_inputs(count, seed) for seed, count in enumerate(islice(cycle(ROWS), 300))]
    messages = [kit.request(name, tag=n, **tensors(each)) for n, each in enumerate(inputs)]
    before = kit.Metrics(server.ops)
    halves = kit.in_parallel(
        [lambda part=part: kit.stream_all(channel, [kit.message(*messages[part::2])]) for part in (0, 1)]
    )
    results = sorted([*halves[0], *halves[1]], key=lambda each: each.tag)
    assert [each.tag for each in results] == list(range(300))
    for each, result in zip(inputs, results, strict=True):
        assert_same(result.response, directly(session, each), tolerance)
    assert_batched(server.ops, name, before, inputs)


def test_lengths_of_open_axes_do_not_mix(stub) -> None:
    arrays = [floats(1 + n % 3, 1 + n % 5, n) for n in range(CONCURRENCY)]
    responses = call_all(stub, [kit.request("row_sum", x=each) for each in arrays])
    for array, response in zip(arrays, responses, strict=True):
        np.testing.assert_allclose(kit.array_of(response.outputs["y"]), array.sum(1), rtol=1e-4, atol=1e-5)


def test_everybody_gets_the_outputs_they_asked_for(stub) -> None:
    choices = [[], ["total"], ["double", "positive"], ["positive"], ["total", "total"]]
    messages = [
        kit.request("multi", x=kit.rows(1 + n % 3, n), outputs=choices[n % len(choices)])
        for n in range(CONCURRENCY)
    ]
    for number, response in enumerate(call_all(stub, messages)):
        wanted = choices[number % len(choices)] or ["double", "total", "positive"]
        assert set(response.outputs) == set(wanted)
        if "total" in wanted:
            np.testing.assert_allclose(
                kit.array_of(response.outputs["total"]), [3.0 * number] * (1 + number % 3)
            )


def test_a_request_larger_than_a_batch_runs_alone(stub) -> None:
    array = floats(1000, 64, 0)
    response = stub.Predict(kit.request("tiny_mlp", x=array), timeout=kit.BOUND)
    assert response.timing.batch_rows == 1000
    assert_same(response, directly(zoo.session(zoo.tiny_mlp()), {"x": array}), 1e-4)


@pytest.mark.parametrize(("name", "make"), [("centred", zoo.centred_rows), ("reversed", zoo.reversed_rows)])
def test_models_that_mix_rows_are_served_alone(stub, name, make) -> None:
    session = zoo.session(make())
    arrays = [floats(1 + n % 7, 3, n) for n in range(CONCURRENCY)]
    for array, response in zip(
        arrays, call_all(stub, [kit.request(name, x=each) for each in arrays]), strict=True
    ):
        assert_same(response, directly(session, {"x": array}), 0.0)
        assert response.timing.batch_rows == 1


def number(value: int) -> Any:
    return kit.raw(np.array([[value]], np.int64), DataType.INT64)


def test_only_the_guilty_rows_fail(server, channel, stub) -> None:
    already = len(failures_logged(server))
    guilty = set(range(5, 300, 37))
    values = [1000 if n in guilty else n % 100 for n in range(300)]
    messages = [kit.request("fails", tag=n, x=number(value)) for n, value in enumerate(values)]
    futures = [stub.Predict.future(each, timeout=kit.BOUND) for each in messages]
    codes = [kit.code_of_future(each) for each in futures]
    assert {n for n, code in enumerate(codes) if code is grpc.StatusCode.INTERNAL} == guilty
    assert {code for n, code in enumerate(codes) if n not in guilty} == {grpc.StatusCode.OK}
    for n, future in enumerate(futures):
        if n not in guilty:
            assert kit.array_of(future.result().outputs["y"]).tolist() == [[values[n]]]
    results = kit.stream_all(channel, [kit.message(*messages)])
    assert [each.tag for each in results] == list(range(300))
    assert {each.tag for each in results if each.HasField("error")} == guilty
    kit.wait_until(
        lambda: len(failures_logged(server)) == already + 2 * len(guilty), "each failure is logged once"
    )
    for text in [futures[5].details(), results[5].error.message]:
        assert not any(part in text for part in ("/", "Traceback", ".cc", ".py")), text


def failures_logged(server: Any) -> list[Any]:
    return [each for each in kit.logged(server) if each["event"] == "model failed"]
