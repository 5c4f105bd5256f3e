#!/usr/bin/env bash
# A weights file is replaced by one of the same length, in place (as `rsync --inplace` or a plain copy does), while
# a session of ONNX Runtime uses it. The session then answers with the numbers of neither file.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux, x86-64.
#
# Why: ONNX Runtime maps external data into memory, so a table read by Gather changes with the file, without a
# restart. Weights of MatMul were copied into another order at load, so they stay as they were. A model with both is
# half new and half old. One would expect the old weights (they were loaded) or, at worst, all of the new ones.
# To replace a file safely, write it beside the old one and rename it, or use a new folder.
#
# Seen on 2026-11-29 (the model is table[i] @ matrix; old weights 1 and 1, new weights 5 and 7):
#   before: 1, the new model: 35, the running session after the copy: 5
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON' >"$folder/seen"
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROWS, WIDTH = 10_000, 64


def save(folder, table, matrix):
    weights = np.full((ROWS, WIDTH), table / WIDTH, "f4"), np.full((WIDTH, WIDTH), matrix, "f4")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["row"]), helper.make_node("MatMul", ["row", "matrix"], ["y"])],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(array, name) for array, name in zip(weights, ("table", "matrix"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    folder.mkdir()
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnxruntime.InferenceSession(folder / "model.onnx")


def answer(session):
    return f"{session.run(None, {'i': [ROWS - 1]})[0][0, 0]:g}"


root = Path(sys.argv[1])
old, new = save(root / "old", 1, 1), save(root / "new", 5, 7)
before = answer(old)
data = (root / "new/weights.bin").read_bytes()
assert len(data) == (root / "old/weights.bin").stat().st_size
with open(root / "old/weights.bin", "r+b") as file:
    file.write(data)
print(f"before: {before}, the new model: {answer(new)}, the running session after the copy: {answer(old)}")
PYTHON

cat "$folder/seen"
diff - "$folder/seen" <<'EXPECTED'
before: 1, the new model: 35, the running session after the copy: 5
EXPECTED
