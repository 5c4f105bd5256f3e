#!/usr/bin/env bash
# Two exporters declare shapes that their models do not give, and ONNX Runtime passes both on without an error: its
# description of the model has the declared shape, its answers have the other one.
#
# Versions: onnxmltools 1.16.0, lightgbm 4.7.0, catboost 1.2.10, onnxruntime 1.32.0, onnx 1.23.2; Python 3.11, Linux.
#
# Why: shapes are not inferred for these operators (of ai.onnx.ml, or behind them), so nothing corrects the exporter.
# One expects that at least the number of axes of an answer is what the model says. A server or client that believes it
# takes a classifier for one of a fixed batch of one, or reads [rows, 1] as [rows].
#
# Seen on 2026-11-29, for three rows:
#   LightGBM's classifier, label: declared [1], given [3]
#   CatBoost's regressor, predictions: declared ['N'], given [3, 1]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnxmltools==1.16.0 skl2onnx==1.20.0 lightgbm==4.7.0 scikit-learn==1.9.1 catboost==1.2.10 onnxruntime==1.32.0 \
  onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON' >"$folder/seen"
import sys

import catboost
import lightgbm
import numpy as np
import onnxmltools
import onnxruntime
from onnxmltools.convert.common.data_types import FloatTensorType

onnxruntime.set_default_logger_severity(3)  # it warns of one of the two, in its log
x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
labels = (x[:, 0] > 0).astype(int)


def show(what, file, output):
    session = onnxruntime.InferenceSession(file)
    (declared,) = [each.shape for each in session.get_outputs() if each.name == output]
    (given,) = session.run([output], {session.get_inputs()[0].name: x[:3]})
    print(f"{what}, {output}: declared {declared}, given {list(given.shape)}")


model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(x, labels)
types = [("x", FloatTensorType([None, 4]))]
file = onnxmltools.convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=False)
show("LightGBM's classifier", file.SerializeToString(), "label")

model = catboost.CatBoostRegressor(iterations=2, verbose=0, allow_writing_files=False).fit(x, x[:, 0])
model.save_model(f"{sys.argv[1]}/model.onnx", format="onnx")
show("CatBoost's regressor", f"{sys.argv[1]}/model.onnx", "predictions")
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(.*: declared .*\)/\1/p' "$0" | diff - "$folder/seen"
