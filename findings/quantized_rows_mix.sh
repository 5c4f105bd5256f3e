#!/usr/bin/env bash
# After dynamic quantization, which ONNX Runtime's pages recommend for transformers, a row's answer depends on the other
# rows of its batch. One large row makes all others coarse.
#
# Versions: onnxruntime 1.32.0 with its quantize_dynamic, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux, x86-64.
#
# Why: "dynamic" means that the scale of the inputs is worked out from the values of each run, and it is one scale for
# the whole batch. One expects an error that is larger than in float32 but the row's own. A server that batches calls
# of several users then mixes them: the same request gives other answers from one call to the next.
#
# Seen on 2026-11-29 (the largest difference from float32, relative to the row's largest answer):
#   alone: 0.4%, beside a row 100 times as large: 30%
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
(cd "$folder" && venv/bin/python -) <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
weights = rng.standard_normal((16, 4)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "weights"], ["y"])],
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    [numpy_helper.from_array(weights, "weights")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), "float.onnx")
quantize_dynamic("float.onnx", "quantized.onnx")
session = onnxruntime.InferenceSession("quantized.onnx")
row = rng.standard_normal((1, 16)).astype(np.float32)
right = row @ weights


def error(batch):
    return abs(session.run(None, {"x": batch})[0][0] - right[0]).max() / abs(right).max()


alone, beside = error(row), error(np.concatenate([row, 100 * row]))
print(f"alone: {alone:.1%}, beside a row 100 times as large: {beside:.0%}")
assert alone < 0.01 and beside > 0.1
PYTHON
