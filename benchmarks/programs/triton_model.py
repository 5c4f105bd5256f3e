"""The model that Triton's Python backend runs: ONNX Runtime on all the requests of a batch at once."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, as ONNX Runtime is loaded

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        path = json.loads(arguments["model_config"])["parameters"]["path"]["string_value"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        inputs = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        [y] = self._session.run(None, {"x": np.concatenate(inputs)})
        ends = np.cumsum([len(rows) for rows in inputs])
        return [triton.InferenceResponse([triton.Tensor("y", rows)]) for rows in np.split(y, ends[:-1])]
