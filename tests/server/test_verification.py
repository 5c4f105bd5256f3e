"""Live traffic shows that the rows of a model affect each other: callers get right answers from then on.

The models are ONNX models whose rows do not affect each other, as the server can see in their graphs. What
they do on some values is added here, so that no check at load can find it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest

from penstock.backends.backend import RunControl
from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig
from penstock.core.tensors import Array
from penstock.scheduling import verification
from penstock.server import Server
from penstock_proto.inference import grpc_service_pb2, grpc_service_pb2_grpc
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from support import zoo

RUN_SECONDS = 0.002
"""What a run takes, so that requests wait and share the next batch."""
LARGE = 1000.0


class Odd:
    """A model whose rows affect each other if one has a large value, or which drops rows with such values."""

    def __init__(self, backend: OnnxBackend, drops: bool) -> None:
        self._backend, self._drops = backend, drops
        self.signature, self.file, self.providers = backend.signature, backend.file, backend.providers
        self.close = backend.close

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        time.sleep(RUN_SECONDS)
        (y,) = self._backend.run(outputs, inputs, control)
        if self._drops:
            return [y[y[:, 0] < LARGE]]
        return [y * np.float32(1 + (y.max(initial=0) > LARGE))]


def odd(path: Path, config: RuntimeConfig, runs_in_parallel: int) -> Odd:
    return Odd(OnnxBackend(path, config, runs_in_parallel), "drops" in path.parts[-3])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    names = ("mixes", "drops", "mixes_on_streams", "drops_on_streams")
    models = dict.fromkeys(names, zoo.identity()) | {"mixes_along": zoo.identity(shape=(2, "batch", 3))}
    path = zoo.repository(tmp_path_factory.mktemp("odd"), models)
    # Tried in this process, where the models are odd.
    settings = {
        "server": {"port": 0, "ops_port": 0, "http": False},
        "batching": {"verify": 1.0},
        "trial": {"enabled": False},
        "cache": {"enabled": False},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "SHARE", 1.0)  # so that the tests need not wait
        made = Server(Config.model_validate(settings), path)
        made._registry._trials._open_backend = odd
        made.start()
        yield made
        made.stop(10)
        made.close()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with kit.connect(f"127.0.0.1:{server.port}") as channel:
        yield channel


def described(channel: grpc.Channel, name: str) -> model_pb2.Model:
    return model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(model=name))


def ops_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.ops_port}"


def metric(server: Server, name: str, **labels: str) -> float:
    return kit.metric(ops_of(server), name, **labels)


def answer(result: pb.PredictResponse) -> list[list[float]]:
    found: list[list[float]] = kit.array_of(result.outputs["y"]).tolist()
    return found


def predict(channel: grpc.Channel, name: str, values: Array) -> list[list[float]]:
    return answer(kit.stub_of(channel).Predict(kit.request(name, x=values), timeout=kit.BOUND))


def values_of(number: int) -> Array:
    """One row; of every third number it is large."""
    return kit.rows(1, float(number if number % 3 else 2000.0))


def until_alone(channel: grpc.Channel, name: str, go_on: Callable[[], object]) -> str:
    """Goes on until a model is not batched any more; returns the reason."""
    end = time.monotonic() + kit.BOUND
    while described(channel, name).batching.enabled:
        assert time.monotonic() < end, "it was not found"
        go_on()
    return described(channel, name).batching.reason


def test_a_model_that_mixes_large_values_is_found(server: Server, channel: grpc.Channel) -> None:
    name = "mixes"
    before = described(channel, name)
    assert before.batching.enabled
    assert metric(server, "model_info", model=name, batched="true") == 1

    def several() -> None:
        kit.in_parallel([lambda v=v: predict(channel, name, kit.rows(1, v)) for v in (1.0, 2.0, 3.0, 2000.0)])
        time.sleep(0.1)  # the server is idle

    reason = until_alone(channel, name, several)
    assert reason.startswith("seen on live requests: output y depends on the other rows of a batch (it diff")
    calls = [lambda n=n: predict(channel, name, kit.rows(1, float(n))) for n in (1, 2000, 3) * 10]
    assert kit.in_parallel(calls) == [[[n] * 3] if n < LARGE else [[2.0 * n] * 3] for n in (1, 2000, 3) * 10]
    kit.wait_until(lambda: metric(server, "batch_mismatch_total", model=name) == 1, "it is counted")
    assert metric(server, "model_info", model=name, batched="false") == 1
    infer = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
    config = infer.ModelConfig(grpc_service_pb2.ModelConfigRequest(name=name)).config
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.input[0].dims) == [-1, 3]


def test_rows_along_another_axis_are_verified_too(server: Server, channel: grpc.Channel) -> None:
    """Requests of several rows, which lie along the second axis, as the graph says."""
    name = "mixes_along"
    assert described(channel, name).batching.enabled

    def of(value: float) -> Array:
        return np.full((2, 2, 3), value, np.float32)

    def several() -> None:
        kit.in_parallel([lambda v=v: predict(channel, name, of(v)) for v in (1.0, 2.0, 3.0, 2000.0)])
        time.sleep(0.1)  # the server is idle

    reason = until_alone(channel, name, several)
    assert reason.startswith("seen on live requests: output y depends on the other rows of a batch (it diff")
    got = kit.in_parallel([lambda n=n: predict(channel, name, of(n)) for n in (1.0, 2000.0, 3.0) * 5])
    assert got == [of(n if n < LARGE else 2 * n).tolist() for n in (1.0, 2000.0, 3.0) * 5]


def test_a_model_that_drops_rows_gives_no_caller_an_error(server: Server, channel: grpc.Channel) -> None:
    numbers = range(1, 201)
    got = kit.in_parallel([lambda n=n: predict(channel, "drops", values_of(n)) for n in numbers])
    assert got == [[[n] * 3] if n % 3 else [] for n in numbers]
    assert "output y has shape" in described(channel, "drops").batching.reason
    kit.assert_counted(ops_of(server), len(numbers), "requests_total", model="drops", code="OK")
    kit.assert_counted(ops_of(server), 1, "batch_mismatch_total", model="drops")
    # Without batching, nothing says how the inputs' first axes belong together.
    assert predict(channel, "drops", np.zeros((0, 3), np.float32)) == []


@pytest.mark.parametrize("name", ["drops_on_streams", "mixes_on_streams"])
def test_micro_batches_of_a_stream_are_taken_apart(server: Server, channel: grpc.Channel, name: str) -> None:
    """Before the model is found, while it is, and after."""
    drops = name.startswith("drops")

    def sent(count: int) -> list[pb.PredictRequest]:
        made = [values_of(n) if drops else kit.rows(1, float(n)) for n in range(count)]
        return [kit.request(name, x=each, tag=1000 + n) for n, each in enumerate(made)]

    def results(*sizes: int) -> list[list[tuple[int, list[list[float]]]]]:
        """What comes of messages of so many requests."""
        stream = kit.Stream(channel)
        for size in sizes:
            stream.send(*sent(size))
        stream.half_close()
        found = [(each.tag, answer(each.response)) for each in stream.rest()]
        assert len(found) == sum(sizes)
        starts = np.cumsum((0, *sizes[:-1]))
        return [found[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def right(size: int) -> list[tuple[int, list[list[float]]]]:
        return [(1000 + n, [] if drops and n % 3 == 0 else [[n] * 3]) for n in range(size)]

    kept = [pb.PredictStreamRequest(requests=[each]) for each in sent(40)[1:3]]
    kit.stream_all(channel, kept)  # the request is known, so that those like it form micro-batches
    if drops:
        assert results(64, 64) == [right(64), right(64)]
        reason = described(channel, name).batching.reason
    else:
        assert results(64) == [right(64)]

        def many() -> None:
            stream = kit.Stream(channel)
            stream.send(kit.request(name, x=kit.rows(1, 2000.0)), *sent(20))
            stream.half_close()
            stream.rest()
            time.sleep(0.1)

        reason = until_alone(channel, name, many)
    assert reason.startswith("seen on live requests: output y")
    assert results(64, 32, 64) == [right(64), right(32), right(64)]
    seen = kit.Metrics(ops_of(server))
    assert seen.sum("requests_total", model=name) == seen.sum("requests_total", model=name, code="OK")
    assert metric(server, "queue_rows", model=name) == 0
