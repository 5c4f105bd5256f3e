"""Messages of the Open Inference Protocol, made of tritonclient's own, and the steps that send them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb

SECONDS = 20.0
X = np.array([[1, 2, 3], [6, 5, 4]], np.float32)

Step = Callable[[Any], Any]
STEPS: dict[str, Step] = {}
"""What is asked, by name, in order."""


def step(name: str, rpc: str, message: Any, **metadata: str) -> None:
    """A step that sends one message."""
    STEPS[name] = lambda stub: getattr(stub, rpc)(message, timeout=SECONDS, metadata=tuple(metadata.items()))


# Requests


def tensor(name: str = "x", array: Any = X, datatype: str = "FP32", **fields: Any) -> Any:
    """An input without its elements; `shape`, `contents` and `parameters` may be said."""
    shape = fields.pop("shape", np.shape(array))
    wanted = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    _set_parameters(wanted.parameters, fields.pop("parameters", {}))
    if contents := fields.pop("contents", None):
        wanted.contents.CopyFrom(pb.InferTensorContents(**contents))
    return wanted


def output(name: str = "y", **parameters: Any) -> Any:
    """A requested output with parameters."""
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name=name)
    _set_parameters(wanted.parameters, parameters)
    return wanted


def request(model: str = "identity", inputs: Iterable[Any] | None = None, **fields: Any) -> Any:
    """A request, of `identity` with one good input unless said otherwise; `raw` are the raw contents."""
    inputs = [tensor()] if inputs is None else inputs
    raw = fields.pop("raw", [X.tobytes()])
    parameters = fields.pop("parameters", {})
    message = pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **fields)
    _set_parameters(message.parameters, parameters)
    return message


def packed(*elements: bytes) -> bytes:
    """Elements of BYTES as they travel raw."""
    return b"".join(len(each).to_bytes(4, "little") + each for each in elements)


def _set_parameters(parameters: Any, values: dict[str, Any]) -> None:
    """Takes {"name": value} for the obvious type, and {"name": ("uint64_param", value)} for another."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in values.items():
        kind, value = value if isinstance(value, tuple) else (kinds[type(value)], value)  # noqa: PLW2901
        setattr(parameters[name], kind, value)


# Steps of inference


def infer(name: str, model: str = "identity", inputs: Iterable[Any] | None = None, **fields: Any) -> None:
    step(name, "ModelInfer", request(model, inputs, **fields))


def stream(name: str, *messages: Any, **metadata: str) -> None:
    """A step that sends messages on one stream, and closes its side."""

    def run(stub: Any) -> list[Any]:
        call = stub.ModelStreamInfer(iter(messages), timeout=SECONDS, metadata=tuple(metadata.items()))
        answers: list[Any] = []
        try:
            answers.extend(told(each) for each in call)
        except grpc.RpcError as error:
            answers.append(failed(error))
        else:
            answers.append({"code": call.code().name})
        return answers

    STEPS[name] = run


def together(name: str, *messages: Any, last: Any = None) -> None:
    """A step that sends messages at once, each by a call of its own, and counts how they end.

    The `last` is sent when all others surely are there.
    """

    def run(stub: Any) -> dict[str, int]:
        calls = [stub.ModelInfer.future(each, timeout=SECONDS) for each in messages]
        if last is not None:
            time.sleep(0.05)
            calls.append(stub.ModelInfer.future(last, timeout=SECONDS))
        ends = [str(failed(error)) if (error := each.exception()) else "OK" for each in calls]
        return dict(sorted(Counter(ends).items()))

    STEPS[name] = run


def one_by_one(name: str, *messages: Any) -> None:
    """A step that sends messages in turn, whatever comes of each, and tells what the statistics gained."""

    def run(stub: Any) -> dict[str, Any]:
        before = _counts(stub, messages[0].model_name)
        ends = []
        for each in messages:
            error = stub.ModelInfer.future(each, timeout=SECONDS).exception()
            ends.append(error.code().name if error else "OK")
        after = _counts(stub, messages[0].model_name)
        return {"ends": ends, "more": {key: n - before.get(key, 0) for key, n in after.items()}}

    STEPS[name] = run


def _counts(stub: Any, model: str) -> dict[str, int]:
    """Every count in a model's statistics by its name."""
    [stats] = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=SECONDS).model_stats
    counts = {"inference_count": stats.inference_count, "execution_count": stats.execution_count}
    for field, value in stats.inference_stats.ListFields():
        counts[field.name] = value.count
    for each in stats.batch_stats:
        counts[f"batches of {each.batch_size}"] = each.compute_infer.count
    return counts


# What is printed


def told(message: Any) -> Any:
    """A message as JSON."""
    return MessageToDict(message, preserving_proto_field_name=True)


def failed(error: Any) -> dict[str, str]:
    return {"code": error.code().name, "message": error.details()}
