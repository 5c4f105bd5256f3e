"""ModelInfer requests that look like earlier ones mean what a parser says, whatever bytes they are."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.tensors import DataType
from penstock.models.model import Model
from penstock.protocols.fast_path import known_requests
from penstock.protocols.open_inference.service import InferenceService
from penstock.traffic.router import Router
from penstock_proto.inference import grpc_service_pb2 as pb
from protocols.test_known_requests import Call
from support.work import Tally, model, signature_of, spec

P = pb.InferParameter
SIGNATURE = signature_of([spec("x", ("N", 2)), spec("w", ("N",), DataType.INT64)], [spec("y", ("N", 2))])
X = np.array([[1.5, 2.5]], np.float32)
W = np.array([7], np.int64)


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


class Engine:
    """Takes requests and keeps them."""

    def __init__(self, served: Model) -> None:
        self.taken: list[Any] = []
        self.router = Router()
        self.router.set([served])
        self.served = served

    def route(self, name: str, version: str) -> Model:
        if name != "m":
            raise InvalidRequest(f"there is no model {name}")
        return self.served

    def submit(self, model: Model, request: Any, accepted: bool = False) -> None:
        self.taken.append(request)

    def take_turns(self, turn: Callable[[], bool]) -> None:
        while turn():
            pass

    def release(self, owner: object) -> None: ...


class NoObserver:
    def failed(self, rpc: str, error: RequestError) -> None: ...

    def stream_opened(self) -> None: ...

    def stream_closed(self) -> None: ...

    def stream_received(self, messages: int, requests: int) -> None: ...

    def stream_sent(self, messages: int, results: int) -> None: ...


def served() -> tuple[InferenceService, Engine]:
    made = model(SIGNATURE)
    made.is_default = True
    made.observe(Tally())
    engine = Engine(made)
    parts: Any = (engine, NoObserver(), Executor(), 2**20, 100, print)
    return InferenceService(*parts), engine


def meaning(data: bytes, service: InferenceService, engine: Engine) -> object:
    """All that comes of a message."""
    engine.taken.clear()
    call = Call()
    handler = service.methods()["/inference.GRPCInferenceService/ModelInfer"].handler(call)
    handler.received(data)
    if not engine.taken:
        assert call.status is not None
        return call.status.details
    (asked,) = engine.taken
    inputs = {name: (each.shape, each.dtype, each.tobytes()) for name, each in asked.inputs.items()}
    seconds = round(asked.deadline - asked.arrived, 6)
    return (
        list(inputs.items()), asked.id, asked.form, tuple(asked.outputs), asked.rows,
        asked.shape_key, asked.priority, seconds, asked.cancelled,
    )  # fmt: skip


def message(id: str = "an id", **more: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="m", id=id, **more)
    made.inputs.add(name="w", datatype="INT64", shape=W.shape)
    made.inputs.add(name="x", datatype="FP32", shape=X.shape)
    made.raw_input_contents.extend([W.tobytes(), X.tobytes()])
    return made


VARIANTS = {
    "plain": message(),
    "no id": message(id=""),
    "parameters": message(parameters={"priority": P(uint64_param=1), "timeout": P(int64_param=5_000_000)}),
    "classes": message(
        outputs=[
            pb.ModelInferRequest.InferRequestedOutputTensor(
                name="y", parameters={"classification": P(int64_param=1)}
            )
        ]
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_requests_that_look_alike_are_not_parsed_and_mean_the_same(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, engine = served()
    good = VARIANTS[variant]
    as_it_is = good.SerializeToString(deterministic=True)  # else parameters come in any order
    first = meaning(as_it_is, service, engine)
    other = pb.ModelInferRequest()
    other.CopyFrom(good)
    del other.raw_input_contents[:]
    other.raw_input_contents.extend([np.array([-1], np.int64).tobytes(), (X * 3).tobytes()])
    other.id = "no di" if good.id else ""
    parsed = meaning(other.SerializeToString(deterministic=True), *served())
    monkeypatch.setattr("penstock.protocols.open_inference.decoder.parsed", None)  # calling it would fail
    assert meaning(other.SerializeToString(deterministic=True), service, engine) == parsed
    assert meaning(as_it_is, service, engine) == first


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_are_changed(variant: str, data: st.DataObject) -> None:
    service, engine = served()
    good = VARIANTS[variant].SerializeToString()
    meaning(good, service, engine)
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    assert meaning(bytes(changed), service, engine) == meaning(bytes(changed), *served())


def test_a_stream_with_an_error_is_let_go_of_at_once() -> None:
    """An error that is kept keeps its traceback, and that the request: all would wait for the collector."""
    service, engine = served()
    tally = engine.served.observer
    assert isinstance(tally, Tally)
    gc.disable()
    try:
        stream = service._open_stream(Call())
        stream.received(pb.ModelInferRequest(model_name="m", id="bad").SerializeToString())
        stream.closed(cancelled=False)
        assert len(tally.failures) == 1
        tally.failures.clear()  # it keeps errors, as no real observer does
        seen = ref(stream)
        del stream
        assert seen() is None
    finally:
        gc.enable()
