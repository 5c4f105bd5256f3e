#!/usr/bin/env bash
# Decision trees and forests of scikit-learn that were trained with missing values (NaN) convert to ONNX without an
# error or a warning, and then answer differently for rows with a missing value.
#
# Versions: skl2onnx 1.20.0, scikit-learn 1.9.1, onnxruntime 1.32.0, onnx 1.23.2; Python 3.11, Linux.
#
# Why: each split of such a tree has learned where missing values go. The ONNX operator can hold that, but the
# converter does not write it, so all missing values take one side. One expects the converter to refuse what it leaves
# out; it accepts NaN, and for rows without NaN all answers are right. A scikit-learn pipeline that fills in missing
# values first (SimpleImputer) converts correctly.
#
# Seen on 2026-11-29:
#   300 rows, 192 with NaN; standard deviation of the target: 2.2
#   DecisionTreeRegressor, warnings: 0, wrong without NaN: 0, wrong with NaN: 142, largest error 9.3
#   RandomForestRegressor, warnings: 0, wrong without NaN: 0, wrong with NaN: 192, largest error 7.7
#   with SimpleImputer, warnings: 0, wrong without NaN: 0, wrong with NaN: 0, largest error 0.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  skl2onnx==1.20.0 scikit-learn==1.9.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" - <<'PYTHON' >"$folder/seen"
import warnings

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

rng = np.random.default_rng(0)
x = rng.standard_normal((300, 4)).astype(np.float32)
y = 2 * x[:, 0] + x[:, 1]
x[rng.random(x.shape) < 0.2] = np.nan
missing = np.isnan(x).any(axis=1)
print(f"{len(x)} rows, {missing.sum()} with NaN; standard deviation of the target: {y.std():.1f}")
forest = RandomForestRegressor(n_estimators=20, random_state=0)
for name, model in (
    ("DecisionTreeRegressor", DecisionTreeRegressor(random_state=0)),
    ("RandomForestRegressor", forest),
    ("with SimpleImputer", make_pipeline(SimpleImputer(), forest)),
):
    model.fit(x, y)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        file = to_onnx(model, x[:1]).SerializeToString()
    said = [w for w in warned if not issubclass(w.category, (DeprecationWarning, FutureWarning))]
    error = abs(onnxruntime.InferenceSession(file).run(None, {"X": x})[0].ravel() - model.predict(x))
    wrong = error > 1e-3
    counts = f"wrong without NaN: {(wrong & ~missing).sum()}, wrong with NaN: {(wrong & missing).sum()}"
    print(f"{name}, warnings: {len(said)}, {counts}, largest error {error.max():.1f}")
PYTHON

cat "$folder/seen"
sed -n 's/^#   //p' "$0" | diff - "$folder/seen"
