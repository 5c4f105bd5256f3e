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
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        arrays = {name: [_array(request, name) for request in requests] for name in self._inputs}
        outputs = self._session.run(None, {name: np.concatenate(arrays[name]) for name in arrays})
        ends = np.cumsum([len(rows) for rows in arrays[self._inputs[0]]])[:-1]
        split = zip(*(np.split(each, ends) for each in outputs), strict=True)
        return [triton.InferenceResponse(list(map(triton.Tensor, self._outputs, rows))) for rows in split]


def _array(request: Any, name: str) -> Any:
    array = triton.get_input_tensor_by_name(request, name).as_numpy()
    return array.astype(str).astype(object) if array.dtype == object else array  # its texts are bytes
