"""Requests for models that do not exist are recognised: recognised means equal, here too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import NotFound, RequestError
from penstock.protocols.fast_path import known_rejections
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.service import PredictionService
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from protocols.test_known_spans import INFER, PREDICT, Side, damaged, infers, pieces, predicts, slowly


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_rejections, "LEARNING_SECONDS", 0.0)


class Counting:
    """Counts requests that reach no model."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def failed(self, rpc: str, error: RequestError) -> None:
        self.errors.append((rpc, str(error)))


def side(kind: Any = PredictionService, learns: bool = True) -> Side:
    """A service that asks the router, as a server's does."""
    made = Side(kind)
    made.engine.route = made.engine.router.find  # type: ignore[method-assign]
    made.service.telemetry = Counting()
    if not learns:
        made.service.known_rejections.learn = lambda *_: None
        made.service.known_requests.learn = lambda *_: None
    return made


def predict(value: float, model: str = "gone", **fields: Any) -> bytes:
    made = pb.PredictRequest(model=model, **fields)
    raw = np.float32([[value, 2]]).tobytes()
    made.inputs["x"].CopyFrom(tensor_pb2.Tensor(datatype="FP32", shape=(1, 2), raw=raw))
    return made.SerializeToString(deterministic=True)


def test_a_request_for_the_same_unknown_model_is_not_parsed_again() -> None:
    known = side()
    answers = [known.send(PREDICT, predict(value)) for value in range(5)]
    assert answers == [["no model 'gone'; available: m"]] * 5
    assert known.decoded == 1
    assert known.service.telemetry.errors == [("Predict", "no model 'gone'; available: m")] * 5


def test_a_request_like_the_last_rejected_one_is_looked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    known = side()
    looked: list[bytes] = []
    find = known.service.known_requests.find
    monkeypatch.setattr(known.service.known_requests, "find", lambda data: looked.append(data) or find(data))
    for value in range(5):
        known.send(PREDICT, predict(value))
    assert looked == [predict(0), predict(1)]
    assert known.service.known_rejections.last_matched
    known.send(PREDICT, predict(1, "lost"))
    assert not known.service.known_rejections.last_matched
    assert looked[2:] == [predict(1, "lost")]


def test_ids_of_any_length_and_timeouts_may_be_there() -> None:
    known = side()
    ids = ["a", "bb", "ccc", "dddd", "ä", "bb"]
    assert len({str(known.send(PREDICT, predict(1, id=id, timeout={"seconds": 5}))) for id in ids}) == 1
    assert known.decoded == 2  # "ä" might be no UTF-8


def test_another_model_or_version_is_another_rejection() -> None:
    known = side()
    for _ in range(3):
        assert known.send(PREDICT, predict(1)) == ["no model 'gone'; available: m"]
        assert known.send(PREDICT, predict(1, "lost")) == ["no model 'lost'; available: m"]
        assert known.send(PREDICT, predict(1, "m", version="9")) == [
            "model m has no version or label '9'; it has 1"
        ]
    assert known.decoded == 3


def test_once_other_models_exist_the_error_names_those() -> None:
    known = side()
    known.send(PREDICT, predict(1))
    served = known.engine.served
    served.name = "gone2"
    known.engine.router.set([served])
    assert known.send(PREDICT, predict(2)) == ["no model 'gone'; available: gone2"]
    assert known.send(PREDICT, predict(3)) == ["no model 'gone'; available: gone2"]
    served.name = "gone"
    known.engine.router.set([served])
    assert known.send(PREDICT, predict(4)) != ["no model 'gone'; available: gone2"]
    assert known.decoded == 3


def test_a_later_field_of_the_same_number_counts() -> None:
    known = side()
    for _ in range(3):
        known.send(PREDICT, predict(1))
    again = pb.PredictRequest(model="lost").SerializeToString()
    assert known.send(PREDICT, predict(1) + again) == ["no model 'lost'; available: m"]


def test_requests_of_open_inference_as_well() -> None:
    known = side(InferenceService)
    for value in range(3):
        made = oip.ModelInferRequest(model_name="gone", raw_input_contents=[np.float32([value]).tobytes()])
        made.inputs.add(name="x", datatype="FP32", shape=(1,))
        assert known.send(INFER, made.SerializeToString()) == ["no model 'gone'; available: m"]
    assert known.decoded == 1


def test_nothing_of_a_call_is_kept() -> None:
    known = side()
    known.send(PREDICT, predict(1))
    (kept,) = known.service.known_rejections._lists.all
    assert isinstance(kept.error, NotFound)
    assert kept.error.__traceback__ is None
    assert kept.error.__context__ is None


def test_models_that_are_replaced_are_not_kept() -> None:
    known = side()
    known.send(PREDICT, predict(1))
    known.send(PREDICT, misfit(1, 1, 3))
    rejections = known.service.known_rejections
    assert len(rejections) == 2
    known.engine.router.set([known.engine.served])
    known.send(PREDICT, misfit(1, 1, 2))
    assert all(each.models is known.engine.router.targets for each in rejections._lists.all)
    assert len(rejections) == 1


def test_what_is_new_each_time_is_forgotten() -> None:
    known = side()
    for number in range(600):
        known.send(PREDICT, predict(1, f"gone-{number}"))
    assert len(known.service.known_rejections) <= 256


@slowly
@given(st.data())
def test_rejections_are_those_of_a_parser(data: st.DataObject) -> None:
    known, parsed = side(), side(learns=False)
    for one in (known, parsed):
        one.engine.router.set([])
    sent = data.draw(st.lists(predicts(), min_size=1, max_size=3))
    for each in [*sent * 3, *(damaged(data.draw, each) for each in sent * 3)]:
        assert known.send(PREDICT, each) == parsed.send(PREDICT, each)


def test_a_rejection_holds_for_the_mapping_of_models_that_it_was_learned_with() -> None:
    learned = known_rejections.KnownRejections(lambda _: [], str)
    models: dict[tuple[str, str], object] = {}
    learned.learn(b"\x0a\x01a", NotFound("no model"), models, 1.0)
    found = learned.find(b"\x0a\x01a", models)
    assert found is not None
    assert found.status == "no model"
    assert learned.find(b"\x0a\x01a", {}) is None  # another mapping, although an equal one


def misfit(value: float, *shape: int, datatype: Any = tensor_pb2.FP32) -> bytes:
    """A request whose one input may have a wrong shape or datatype."""
    made = pb.PredictRequest(model="m", id=f"id-{value}")
    raw = np.full(shape, value, np.float32).tobytes()
    made.inputs["x"].CopyFrom(tensor_pb2.Tensor(datatype=datatype, shape=shape, raw=raw))
    return made.SerializeToString(deterministic=True)


def test_a_request_that_does_not_fit_is_not_parsed_again() -> None:
    known = side()
    failed = known.engine.served.observer.failures
    for number in range(1, 5):
        (error,) = known.send(PREDICT, misfit(number, 1, 3))
        assert error == "input x has shape [1, 3], expected x FP32[N,2]"
        (other,) = known.send(PREDICT, misfit(number, 1, 2, datatype=tensor_pb2.INT32))
        assert other == "input x has datatype INT32, expected FP32"
        (missing,) = known.send(PREDICT, misfit(number, 1, 2))
        assert missing.startswith("input t is missing")  # type: ignore[attr-defined]
        assert len(failed) == 3 * number, "the model's observer is told of each"
    assert known.decoded == 3


def test_an_error_of_values_is_not_learned() -> None:
    known = side()
    for number in range(3):
        made = pb.PredictRequest.FromString(misfit(number, 1, 2))
        made.inputs["t"].CopyFrom(tensor_pb2.Tensor(datatype="BYTES", shape=(1,), raw=b"\x01\0\0\0\xff"))
        (error,) = known.send(PREDICT, made.SerializeToString(deterministic=True))
        assert "is not UTF-8" in str(error)
    assert known.decoded == 3


@st.composite
def misfits(draw: st.DrawFn) -> bytes:
    """A request that is wrong in one way or in several, its fields in any order."""
    made = pb.PredictRequest.FromString(draw(predicts()))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from([*sorted(made.inputs), "x"]))
        way = draw(st.sampled_from(["missing", "renamed", "shape", "datatype", "cut", "twice"]))
        tensor = made.inputs[name]
        if way == "renamed":
            made.inputs["other"].CopyFrom(tensor)
        if way in ("missing", "renamed"):
            del made.inputs[name]
        elif way == "shape":
            tensor.shape.append(draw(st.sampled_from([1, 2, 3])))
        elif way == "datatype":
            tensor.datatype = draw(st.sampled_from([tensor_pb2.FP64, tensor_pb2.INT32]))
        elif way == "cut":
            tensor.raw = tensor.raw[:-3] or b"\1"
        else:
            tensor.double_values.append(1.0)
    parts = pieces(made)
    return b"".join(draw(st.permutations(parts)) if draw(st.booleans()) else parts)


@slowly
@given(st.data())
def test_what_does_not_fit_is_rejected_as_by_a_parser(data: st.DataObject) -> None:
    known, parsed = side(), side(learns=False)
    sent = data.draw(st.lists(misfits(), min_size=1, max_size=3))
    others = data.draw(st.lists(predicts(), max_size=1))
    for each in [*sent * 3, *(damaged(data.draw, each) for each in sent * 3), *others]:
        assert known.send(PREDICT, each) == parsed.send(PREDICT, each)


@slowly
@given(st.data())
def test_of_open_inference_as_well(data: st.DataObject) -> None:
    known, parsed = side(InferenceService), side(InferenceService, learns=False)
    sent = []
    for each in data.draw(st.lists(infers(), min_size=1, max_size=3)):
        made = oip.ModelInferRequest.FromString(each)
        tensor = made.inputs[data.draw(st.integers(0, len(made.inputs) - 1))]
        tensor.shape.append(data.draw(st.integers(1, 3)))
        tensor.name = data.draw(st.sampled_from([tensor.name, "other"]))
        sent.append(made.SerializeToString(deterministic=True))
    for each in [*sent * 3, *(damaged(data.draw, each) for each in sent * 3)]:
        assert known.send(INFER, each) == parsed.send(INFER, each)
