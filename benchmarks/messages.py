"""The bytes that are sent, and the answers that are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

SERVICE = "/penstock.v1.PredictionService/"
WIDTHS = {"tiny_mlp": (64, 8), "medium_mlp": (256, 16)}
"""Of the benchmark models: how many numbers a row of input and of output has."""
ROOT = Path(__file__).parents[1]


def make_models(folder: Path) -> Path:
    """Makes a repository with the benchmark models in `folder`, and returns it."""
    command = [sys.executable, "examples/mlp/make.py", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def row(model: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The input that is sent to a model: float32 [1, width]."""
    return np.random.default_rng(0).standard_normal((1, WIDTHS[model][0]), np.float32)


def request(model: str = "tiny_mlp") -> pb.PredictRequest:
    """A request for one row."""
    message = pb.PredictRequest(model=model)
    _fill(message.inputs["x"], row(model))
    return message


def gathered(model: str, requests: int) -> bytes:
    """A stream's message of that many requests, serialized."""
    return pb.PredictStreamRequest(requests=[request(model)] * requests).SerializeToString()


def golden(models: Path, model: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What ONNX Runtime itself answers to `row`: float32 [1, width]."""
    import onnxruntime

    path = models / model / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {"x": row(model)})
    return answer  # type: ignore[no-any-return]


def echo_answer(timing: bool = True) -> bytes:
    """An answer like the tiny model's, serialized; without `timing`, no good one is smaller."""
    message = pb.PredictResponse(model="tiny_mlp", version="1")
    _fill(message.outputs["y"], np.zeros((1, WIDTHS["tiny_mlp"][1]), np.float32))
    if timing:
        message.timing.queue.nanos = message.timing.compute.nanos = 100_000
        message.timing.batch_rows = 8
    return message.SerializeToString()


def check_answer(answer: bytes, right: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Raises ValueError unless a serialized PredictResponse holds the numbers that it must."""
    outputs = pb.PredictResponse.FromString(answer).outputs
    if set(outputs) != {"y"}:
        raise ValueError(f"the answer holds {sorted(outputs)}, not y")
    got = np.frombuffer(outputs["y"].raw, np.float32)
    if got.size != right.size or not np.allclose(got.reshape(right.shape), right, rtol=1e-4, atol=1e-5):
        raise ValueError(f"the answer is {got}, and should be {right}")


def _fill(tensor: Any, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    tensor.datatype = tensor_pb2.FP32
    tensor.shape.extend(values.shape)
    tensor.raw = values.tobytes()
