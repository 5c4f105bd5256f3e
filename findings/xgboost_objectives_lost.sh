#!/usr/bin/env bash
# XGBoost models with four common settings convert to ONNX without a word and answer with something else: margins where
# probabilities or hazards belong, and wrong numbers for two targets.
#
# Versions: xgboost 3.2.0, onnxmltools 1.16.0, onnxruntime 1.32.0; Python 3.11, Linux.
#
# Why: whatever is not known as a classifier's or a log link's objective is a sum of leaves. So reg:logistic and
# survival:cox lack their last function; multi:softmax, whose labels are right, has margins in the output named
# "probabilities"; the trees of two targets are added up. Other settings are errors (dart, a `missing` that is not NaN,
# binary:logitraw), so one expects an error for these as well.
#
# Seen on 2026-11-30:
#   reg:squarederror: same
#   count:poisson: same
#   reg:logistic: all between 0 and 1 came as some below 0
#   survival:cox: all above 0 came as some below 0
#   multi:softmax: "probabilities" of which some are below 0, labels same
#   two targets: differs by more than 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check xgboost==3.2.0 \
  onnxmltools==1.16.0 skl2onnx==1.20.0 scikit-learn==1.9.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - <<'PYTHON' >"$folder/seen"
import numpy as np
import onnxruntime
import xgboost
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

onnxruntime.set_default_logger_severity(3)  # a declared shape that differs is another finding
rng = np.random.default_rng(0)
x = rng.standard_normal((500, 4)).astype(np.float32)
y = 2 * x[:, 0] + x[:, 1] + 0.1 * rng.standard_normal(500)


def run(objective, target, kind=xgboost.XGBRegressor):
    model = kind(objective=objective, n_estimators=20, n_jobs=1).fit(x, target)
    file = convert_xgboost(model, initial_types=[("x", FloatTensorType([None, 4]))])
    return model, onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"x": x})


for objective, target in (("reg:squarederror", y), ("count:poisson", abs(y).round())):
    model, (came,) = run(objective, target)
    print(f"{objective}: {'same' if np.allclose(model.predict(x), came[:, 0], atol=1e-4) else 'differs'}")
for objective, target, of in (
    ("reg:logistic", 1 / (1 + np.exp(-y)), "between 0 and 1"),
    ("survival:cox", abs(y), "above 0"),
):
    model, (came,) = run(objective, target)
    expected = model.predict(x)
    whole = "all" if (expected > 0).all() and (expected.max() < 1 or of == "above 0") else "not all"
    print(f"{objective}: {whole} {of} came as {'some' if (came < 0).any() else 'none'} below 0")
model, (labels, came) = run("multi:softmax", np.digitize(y, [-1, 1]), xgboost.XGBClassifier)
equal = "same" if (labels == model.predict(x)).all() else "differ"
print(f'multi:softmax: "probabilities" of which {"some" if (came < 0).any() else "none"} are below 0, labels {equal}')
model, (came,) = run("reg:squarederror", np.c_[y, -y])
print(f"two targets: differs by {'more than 1' if abs(model.predict(x) - came).max() > 1 else 'less'}")
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(\(reg\|count\|survival\|multi\|two\).*: .*\)/\1/p' "$0" | diff - "$folder/seen"
