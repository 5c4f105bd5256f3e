#!/usr/bin/env bash
# CatBoost's own `save_model(format="onnx")` drops the last function of four losses without a word: rates come as their
# logarithms, which may be negative, and probabilities of one-vs-all and multi-label models come through a softmax.
#
# Versions: catboost 1.2.10, onnxruntime 1.32.0; Python 3.11, Linux.
#
# Why: a model is either a regressor, whose trees are added up, or a classifier, which gets one function after the
# trees. What it cannot write is an error elsewhere (set_scale_and_bias, trees that are not symmetric), so one expects
# an error here, or the answers of `predict`.
#
# Seen on 2026-11-30:
#   RMSE: same
#   Logloss: same
#   MultiClass: same
#   Poisson: all above 0 came as some below 0
#   Tweedie: all above 0 came as some below 0
#   MultiClassOneVsAll: differs by more than 0.1
#   MultiLogloss: differs by more than 0.1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  catboost==1.2.10 onnxruntime==1.32.0 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - "$folder/model.onnx" <<'PYTHON' >"$folder/seen"
import sys

import catboost
import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(3)  # a declared shape that differs is another finding
rng = np.random.default_rng(0)
x = rng.standard_normal((500, 4)).astype(np.float32)
y = 2 * x[:, 0] + x[:, 1] + 0.1 * rng.standard_normal(500)


def show(name, kind, target, loss=None):
    model = kind(loss_function=loss or name, iterations=20, verbose=0, allow_writing_files=False).fit(x, target)
    model.save_model(sys.argv[1], format="onnx")
    came = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"features": x})[-1]
    if isinstance(came, list):  # a dictionary of classes for each row
        came = np.array([list(row.values()) for row in came])
    expected = getattr(model, "predict_proba", model.predict)(x).reshape(came.shape)
    if np.allclose(came, expected, atol=1e-5):
        print(f"{name}: same")
    elif (expected > 0).all() and (came < 0).any():
        print(f"{name}: all above 0 came as some below 0")
    else:
        print(f"{name}: differs by more than {0.1 if np.abs(came - expected).max() > 0.1 else 0}")


regressor, classifier = catboost.CatBoostRegressor, catboost.CatBoostClassifier
classes = np.digitize(y, [-1, 1])
show("RMSE", regressor, y)
show("Logloss", classifier, (y > 0).astype(int))
show("MultiClass", classifier, classes)
show("Poisson", regressor, abs(y))
show("Tweedie", regressor, abs(y), "Tweedie:variance_power=1.5")
show("MultiClassOneVsAll", classifier, classes)
show("MultiLogloss", classifier, np.c_[y > 0, y < 1].astype(int))
PYTHON

cat "$folder/seen"
sed -n 's/^#   \([A-Za-z]*: .*\)/\1/p' "$0" | diff - "$folder/seen"
