#!/usr/bin/env bash
# ONNX Runtime's LSTM and GRU give ordinary numbers for a sequence with NaN in it, if they have a bias, as exporters write
# them. Without a bias, and in RNN, everything from that step on is NaN.
#
# Versions: onnxruntime 1.32.0, onnx 1.22.0; Python 3.11, Linux.
#
# Why: NaN goes through sums, products, sigmoid and tanh, so one expects NaN from a recurrent layer, as Keras and PyTorch
# give, and code behind it that looks for NaN to find broken input. A bias cannot make a number of NaN.
#
# Seen on 2026-11-30:
#   LSTM without bias: 4 of 4 are NaN
#   LSTM with bias: 0 of 4 are NaN
#   GRU without bias: 4 of 4 are NaN
#   GRU with bias: 0 of 4 are NaN
#   RNN without bias: 4 of 4 are NaN
#   RNN with bias: 4 of 4 are NaN
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - <<'PYTHON' >"$folder/seen"
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

UNITS = 4


def last_step(operator, gates, has_bias):
    rng = np.random.default_rng(0)
    shapes = {"w": (1, gates * UNITS, 2), "r": (1, gates * UNITS, UNITS), "b": (1, 2 * gates * UNITS)}
    names = list(shapes)[: 3 if has_bias else 2]
    weights = [numpy_helper.from_array(rng.normal(0, 0.5, shapes[n]).astype(np.float32), n) for n in names]
    node = helper.make_node(operator, ["x", *names], ["", "last"], hidden_size=UNITS)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "last")]
    graph = helper.make_graph([node], "recurrent", ends[:1], ends[1:], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    steps = rng.normal(0, 1, (5, 1, 2)).astype(np.float32)
    steps[2, 0, 0] = np.nan
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["last"], {"x": steps})[0]


for operator, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    for has_bias in (False, True):
        missing = int(np.isnan(last_step(operator, gates, has_bias)).sum())
        print(f"{operator} {'with' if has_bias else 'without'} bias: {missing} of {UNITS} are NaN")
PYTHON

cat "$folder/seen"
sed -n 's/^#   \([A-Z]*: .*\|[A-Z]* with.*\)/\1/p' "$0" | diff - "$folder/seen"
