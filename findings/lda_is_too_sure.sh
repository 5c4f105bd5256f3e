#!/usr/bin/env bash
# scikit-learn's LinearDiscriminantAnalysis with two classes, converted by skl2onnx, gives probabilities that are too
# sure: the log-odds are doubled. All labels stay right, so a comparison of labels or of accuracy finds nothing.
#
# Versions: skl2onnx 1.20.0, scikit-learn 1.9.1, onnxruntime 1.32.0, onnx 1.23.2; Python 3.11, Linux.
#
# Why: the converter treats the model as a softmax over the scores -z and z, which is the sigmoid of 2z. With three
# classes the probabilities are right, and so are those of LogisticRegression with two. One expects a linear model on
# ordinary numbers, exported with the default options, to be the safest of all. Thresholds other than 0.5 then cut
# elsewhere.
#
# Seen on 2026-11-29:
#   LinearDiscriminantAnalysis, 2 classes: labels equal, probabilities differ by 0.15, log-odds are 2.00 times as large
#   LinearDiscriminantAnalysis, 3 classes: labels equal, probabilities differ by 0.00
#   LogisticRegression, 2 classes: labels equal, probabilities differ by 0.00, log-odds are 1.00 times as large
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  skl2onnx==1.20.0 scikit-learn==1.9.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" -W ignore - <<'PYTHON' >"$folder/seen"
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.standard_normal((300, 4)).astype(np.float32)
score = x[:, 0] + x[:, 1] + rng.standard_normal(300)
two, three = (score > 0).astype(int), np.digitize(score, [-0.7, 0.7])
for kind, y in ((LinearDiscriminantAnalysis, two), (LinearDiscriminantAnalysis, three), (LogisticRegression, two)):
    model = kind().fit(x, y)
    file = to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString()
    labels, got = onnxruntime.InferenceSession(file).run(None, {"X": x})
    right = model.predict_proba(x)
    same = "equal" if (labels == model.predict(x)).all() else "differ"
    line = f"{kind.__name__}, {right.shape[1]} classes: labels {same}, "
    line += f"probabilities differ by {abs(got - right).max():.2f}"
    if right.shape[1] == 2:
        odds = [np.log(p[:, 1] / p[:, 0]) for p in (got, right)]
        line += f", log-odds are {np.median(odds[0] / odds[1]):.2f} times as large"
    print(line)
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(L.*classes: .*\)/\1/p' "$0" | diff - "$folder/seen"
