"""Requests, who waits for their answers, and backends written for one purpose: no server around them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from penstock.backends.backend import ModelFile, RunControl
from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import DeadlineExpired, RequestError
from penstock.core.request import Flush, Request, Response, Run
from penstock.core.tensors import Array, DataType, Signature, TensorSpec
from penstock.models.model import Batching, Model
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.policy import BatchPolicy, Isolation
from support import zoo

ONE_THREAD = RuntimeConfig(intra_op_threads=1)
BOUND_SECONDS = 20.0


class Caller:
    """Waits for the answer to one request.

    Args:
        flush: what it returns to the code that answers.

    Attributes:
        results: everything that came: one result, if all is well.
    """

    def __init__(self, flush: Flush | None = None) -> None:
        self.results: list[Response | RequestError] = []
        self._flush = flush
        self._answered = threading.Event()

    def __call__(self, result: Response | RequestError) -> Flush | None:
        self.results.append(result)
        self._answered.set()
        return self._flush

    def wait(self, seconds: float = BOUND_SECONDS) -> bool:
        """Waits for an answer, and says whether one came."""
        return self._answered.wait(seconds)

    def output(self, name: str = "y") -> Array:
        """An output of the one answer."""
        (result,) = self.results
        assert isinstance(result, Response), result
        return result.outputs[name]

    def error(self) -> RequestError:
        """The one error."""
        (result,) = self.results
        assert isinstance(result, RequestError), result
        return result


class MadeRequest(Request):
    """A request that is answered by calling a function."""

    __slots__ = ("waits",)

    waits: Caller | Callable[[Response | RequestError], Flush | None]

    def reply(self, result: Response | RequestError) -> Flush | None:
        return self.waits(result)


def request(
    inputs: Mapping[str, Array] | Sequence[float] = (0.0,),
    *,
    outputs: Sequence[str] = ("y",),
    rows: int | None = None,
    shape_key: object = None,
    rpc: str = "Predict",
    reply: Caller | Callable[[Response | RequestError], Flush | None] | None = None,
    arrived: float | None = None,
    deadline: float = math.inf,
    priority: int = 0,
) -> MadeRequest:
    """A request that has just arrived, as a rule; a list of numbers is the FP32 input `x` [N, 1]."""
    if not isinstance(inputs, Mapping):
        inputs = {"x": np.array(inputs, np.float32).reshape(-1, 1)}
    made = MadeRequest(
        inputs,
        outputs,
        len(next(iter(inputs.values()))) if rows is None else rows,
        shape_key,
        rpc,
        time.monotonic() if arrived is None else arrived,
        deadline,
        priority,
    )
    made.waits = Caller() if reply is None else reply
    return made


def caller(request: Request) -> Caller:
    """Who waits for a request's answer."""
    assert isinstance(request, MadeRequest)
    assert isinstance(request.waits, Caller)
    return request.waits


class Tally:
    """The observer that remembers everything it is told."""

    def __init__(self) -> None:
        self.done: list[Request] = []
        self.batches: list[int] = []
        self.failures: list[tuple[str, RequestError]] = []
        self.events: list[str] = []

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        assert run.started <= run.assembled <= run.finished <= answered
        self.done.extend(requests)
        self.batches.append(run.rows)

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        self.failures += [(rpc, error)] * count

    def on_event(self, event: str, **facts: object) -> None:
        self.events.append(event)


RunByHand = Callable[[Sequence[str], Mapping[str, Array]], Sequence[Array]]


class HandBackend:
    """A backend whose run is a Python function; x FP32 [N, 1] to y FP32 [N, 1], where not said otherwise."""

    providers: Sequence[str] = ("by hand",)

    def __init__(self, run: RunByHand, signature: Signature | None = None) -> None:
        self._run = run
        self.signature = signature or signature_of([spec("x")], [spec("y")])
        self.file = ModelFile()
        self.closed = False
        self.stop: RunControl | None = None  # of the run that is going on

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: RunControl | None = None
    ) -> Sequence[Array]:
        self.stop = stop
        try:
            return self._run(outputs, inputs)
        finally:
            self.stop = None  # it refers to the batch

    def close(self) -> None:
        self.closed = True


def spec(
    name: str, shape: tuple[int | str, ...] | None = ("N", 1), datatype: DataType = DataType.FP32
) -> TensorSpec:
    """An input or output, FP32 [N, 1] if nothing is said."""
    return TensorSpec(name, datatype, shape)


def signature_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """The signature of these."""
    return Signature({each.name: each for each in inputs}, {each.name: each for each in outputs})


def opened(model: onnx.ModelProto, folder: Path, config: RuntimeConfig = ONE_THREAD) -> OnnxBackend:
    """A model of the zoo in ONNX Runtime."""
    return OnnxBackend(zoo.write(model, folder / "model.onnx"), config, 1)


def policy(**changes: object) -> BatchPolicy:
    """A policy: batches of up to 8 rows, none held back, one at a time, where not said otherwise."""
    settings: dict[str, object] = {
        "batched": True,
        "max_rows": 8,
        "max_delay_seconds": 0.0,
        "queue_rows": 4096,
        "queue_bytes": 2**30,
        "runs_in_parallel": 1,
    }
    return BatchPolicy(**{**settings, **changes})  # type: ignore[arg-type]


def batcher(
    run: RunByHand | OnnxBackend,
    *,
    expected_seconds: float = 1e-5,
    isolation: Isolation | None = None,
    **changes: object,
) -> tuple[DynamicBatcher, Tally]:
    """A batcher of a backend, or of one that is this function, and what its observer remembers."""
    backend = HandBackend(run) if callable(run) else run
    made = DynamicBatcher(backend, policy(**changes), RunCost(expected_seconds), isolation=isolation)
    tally = Tally()
    made.observer = tally
    return made, tally


def echo(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    """A run: every output is the input `x`."""
    return [inputs["x"] for _ in outputs]


def wait_until(condition: Callable[[], object], seconds: float = BOUND_SECONDS) -> None:
    """Waits for a condition.

    Raises:
        AssertionError: it has not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.0005)


def model(signature: Signature, *, batched: bool = True, name: str = "m", version: int = 1) -> Model:
    """A model of that signature which answers with its input `x`; it is not observed yet."""
    backend = HandBackend(echo, signature)
    made = DynamicBatcher(backend, policy(batched=batched), RunCost(1e-5))
    return Model(name, version, backend, made, Batching(batched, "for a test"))


def run_all(made: DynamicBatcher, *requests: Request) -> None:
    """Puts requests into a queue and runs batches until it is empty."""
    for each in requests:
        made.put(each)
    while made.run_once():
        pass


def put_late(made: DynamicBatcher, *requests: Callable[[float], MadeRequest]) -> list[MadeRequest]:
    """Puts requests into a queue, and waits until their deadline has passed.

    Args:
        made: the batcher.
        requests: make them, given the deadline of all. They are made again, with more time, by a machine so
            slow that the deadline passes before they are put.
    """
    for seconds in (0.005, 0.05, 0.5, 5.0):
        deadline = time.monotonic() + seconds
        late = [make(deadline) for make in requests]
        try:
            for each in late:
                made.put(each)
        except DeadlineExpired:
            made.withdraw()
            continue
        wait_until(lambda: time.monotonic() > deadline)  # noqa: B023 - called here
        return late
    raise AssertionError("the machine is too slow to put a request into a queue")


def failing(error: Exception) -> Run:
    """A run that raises."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise error

    return run


def assert_adds_up(tally: Tally, requests: Sequence[Request]) -> None:
    """The observer has heard of every request once, and as what it was answered."""
    answered = [
        each for each in requests if each.cancelled is False and isinstance(caller(each).results[0], Response)
    ]
    assert sorted(map(id, tally.done)) == sorted(map(id, answered))
    assert len(tally.done) + len(tally.failures) == len(requests)
