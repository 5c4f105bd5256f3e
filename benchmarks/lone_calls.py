"""What `benchmarks.lone` calls."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import messages
from benchmarks.load import Calls
from penstock_proto.v1 import prediction_pb2 as pb

ECHO, PREDICT = "/bench/Echo", messages.SERVICE + "Predict"


def echo() -> Calls:
    """A call of an echo, with the request of the tiny MLP."""
    return Calls(ECHO, messages.request().SerializeToString())


def changed(**fields: object) -> Callable[[], Calls]:
    """A Predict of the tiny MLP with other fields."""
    return lambda: Calls(PREDICT, _changed(**fields).SerializeToString())


def _changed(**fields: object) -> pb.PredictRequest:
    request = messages.request()
    for name in fields:
        request.ClearField(name)
    request.MergeFrom(pb.PredictRequest(**fields))  # type: ignore[arg-type]
    return request


def misfit() -> Calls:
    """A Predict whose input has a wrong shape."""
    request = messages.request()
    request.inputs["x"].shape[1] -= 1
    return Calls(PREDICT, request.SerializeToString())


def other_input() -> Calls:
    """A Predict with an input of another name."""
    request = messages.request()
    request.inputs["other"].CopyFrom(request.inputs["x"])
    del request.inputs["x"]
    return Calls(PREDICT, request.SerializeToString())


def unknown_method() -> Calls:
    """A call of a method that does not exist."""
    return Calls(messages.SERVICE + "Predicted", messages.request().SerializeToString())


def garbage() -> Calls:
    """A Predict that cannot be parsed."""
    return Calls(PREDICT, b"\xff" * len(messages.request().SerializeToString()))
