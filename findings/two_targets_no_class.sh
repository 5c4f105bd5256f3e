#!/usr/bin/env bash
# CatBoost writes a regressor with two targets (MultiRMSE) as ONNX without a word, as a classifier that has no classes.
# ONNX Runtime does not load the file, and `onnx.checker` finds nothing wrong with it.
#
# Versions: catboost 1.2.10, onnxruntime 1.32.0, onnx 1.23.2; Python 3.11, Linux.
#
# Why: everything but a regressor with one target is written as TreeEnsembleClassifier with ZipMap, with the names of
# the classes, of which there are none here. One expects a saved model to be one that can be loaded; this shows only
# where it is to be served.
#
# Seen on 2026-11-29:
#   saved: TreeEnsembleClassifier and ZipMap, 0 classes
#   onnx.checker: no complaint
#   onnxruntime: n_targets_or_classes must be positive, got 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  catboost==1.2.10 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - "$folder/model.onnx" <<'PYTHON' >"$folder/seen"
import re
import sys

import catboost
import numpy as np
import onnx
import onnxruntime

onnxruntime.set_default_logger_severity(4)
x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
model = catboost.CatBoostRegressor(loss_function="MultiRMSE", iterations=2, verbose=0, allow_writing_files=False)
model.fit(x, x[:, :2]).save_model(sys.argv[1], format="onnx")

saved = onnx.load(sys.argv[1])
attributes = {each.name: each for each in saved.graph.node[0].attribute}
classes = len(attributes["classlabels_int64s"].ints) if "classlabels_int64s" in attributes else 0
print(f"saved: {' and '.join(node.op_type for node in saved.graph.node)}, {classes} classes")
onnx.checker.check_model(saved)
print("onnx.checker: no complaint")
try:
    onnxruntime.InferenceSession(sys.argv[1])
    print("onnxruntime: loaded")
except Exception as error:
    print("onnxruntime:", re.search("n_targets_or_classes must.*", str(error))[0])
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(saved: .*\|onnx.checker: .*\|onnxruntime: .*\)/\1/p' "$0" | diff - "$folder/seen"
