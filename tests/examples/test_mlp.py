"""The perceptrons that the benchmarks serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from support import zoo

make = zoo.example("mlp/make.py")


def by_numpy(model: onnx.ModelProto, x: Any) -> Any:
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    layers = len(weights) // 2
    for layer in range(layers):
        x = x @ weights[f"weight{layer}"] + weights[f"bias{layer}"]
        if layer < layers - 1:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize(("name", "width", "answers"), [("tiny", 64, 8), ("medium", 256, 16)])
def test_computes_its_layers(name: str, width: int, answers: int) -> None:
    model = getattr(make, name)()
    x = np.random.default_rng(1).standard_normal((5, width)).astype(np.float32)
    y = zoo.session(model).run(None, {"x": x})[0]
    assert y.shape == (5, answers)
    assert y.std() > 0.1  # the signal gets through all layers
    np.testing.assert_allclose(y, by_numpy(model, x), rtol=1e-3, atol=1e-4)


def test_every_run_makes_the_same_file() -> None:
    once, again = (make.tiny().SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


def test_the_script_writes_a_repository(tmp_path: Path) -> None:
    script, target = zoo.EXAMPLES / "mlp" / "make.py", tmp_path / "models"
    subprocess.run([sys.executable, script, target], check=True, capture_output=True, timeout=60)
    for name, shapes in {"tiny_mlp": ["N", 64], "medium_mlp": ["N", 256]}.items():
        session = ort.InferenceSession(target / name / "1" / "model.onnx")
        assert [each.shape for each in session.get_inputs()] == [shapes]
