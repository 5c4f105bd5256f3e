#!/usr/bin/env bash
# A float32 Sigmoid of ONNX Runtime is twice the true value at -17 and exactly 0 from -18 on. Its logarithm is
# then minus infinity, although float32 holds numbers down to 1e-38 and the true logarithm is just -18.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux, x86-64 (CPU).
#
# Why it matters: scores of rare events (fraud, clicks, defects) all become 0 and can no longer be ranked, and a
# later logarithm or division fails. One expects an error of a few last bits, as with Exp. The same score through
# Softplus, log(sigmoid(x)) = -Softplus(-x), is right, and so is a graph that ends in the logit.
#
# Seen on 2026-11-29 (at x = -15 and -17 Sigmoid gave 3.6e-07 and 8.9e-08):
#   x = -10: true 4.5e-05, Sigmoid off by less than 1 %, its logarithm -10.0, by Softplus -10.0
#   x = -15: true 3.1e-07, Sigmoid off by more than 10 %, its logarithm -14.8, by Softplus -15.0
#   x = -17: true 4.1e-08, Sigmoid off by more than 10 %, its logarithm -16.2, by Softplus -17.0
#   x = -18: true 1.5e-08, Sigmoid is 0, its logarithm -inf, by Softplus -18.0
#   x = -40: true 4.2e-18, Sigmoid is 0, its logarithm -inf, by Softplus -40.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" - <<'PYTHON' >"$folder/seen"
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

nodes = [
    helper.make_node("Sigmoid", ["x"], ["score"]),
    helper.make_node("Log", ["score"], ["log_score"]),
    helper.make_node("Neg", ["x"], ["minus"]),
    helper.make_node("Softplus", ["minus"], ["softplus"]),
    helper.make_node("Neg", ["softplus"], ["by_softplus"]),
]
outputs = ("score", "log_score", "by_softplus")
x, *y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", *outputs))
model = helper.make_model(
    helper.make_graph(nodes, "g", [x], y), opset_imports=[helper.make_opsetid("", 17)], ir_version=10
)
session = onnxruntime.InferenceSession(model.SerializeToString())
values = np.array([-10, -15, -17, -18, -40], np.float32)
for at, score, log_score, by_softplus in zip(values, *session.run(None, {"x": values})):
    true = 1 / (1 + np.exp(-np.float64(at)))
    error = abs(score - true) / true
    size = "less than 1" if error < 0.01 else "less than 10" if error < 0.1 else "more than 10"
    said = "is 0" if score == 0 else f"off by {size} %"
    print(f"x = {at:g}: true {true:.1e}, Sigmoid {said}, its logarithm {log_score:.1f}, by Softplus {by_softplus:.1f}")
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(x = .*\)/\1/p' "$0" | diff - "$folder/seen"
