"""The models that Triton's Python backend runs here; the parameter `do` says which."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        self._do = json.loads(arguments["model_config"])["parameters"]["do"]["string_value"]
        self._version = int(arguments["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = {each.name(): each.as_numpy() for each in request.inputs()}
        if self._do == "fail" and (inputs["x"] >= 100).any():
            return triton.InferenceResponse(error=triton.TritonError("the model does not like it"))
        tensors = getattr(self, f"_{self._do}")(*inputs.values())
        return triton.InferenceResponse([triton.Tensor(name, array) for name, array in tensors.items()])

    def _same(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": x}

    def _fail(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": x}

    def _scale(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": x * np.float32(self._version)}

    def _add(self, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": a + b}

    def _multi(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"double": x + x, "total": x.sum(axis=1), "positive": x > 0}

    def _sleep(self, x: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.2)
        return {"y": x}
