#!/usr/bin/env bash
# onnx-asr makes Whisper's features of several recordings at once, and a loud recording changes those of a quiet one.
#
# Versions: onnx-asr 0.12.0, onnxruntime 1.32.0, numpy 2.4.6; Python 3.11, Linux, x86-64.
#
# Why: the features are cut off 8 below the largest value (they are logarithms to the base of 10). That is the largest
# value of the whole batch; Whisper's own code takes it of each recording. Both ways to compute features that onnx-asr
# has do so, the one with NumPy and the file for ONNX Runtime. The other features (Kaldi, NeMo, GigaAM) do not mix.
#
# Seen on 2026-11-29 (the largest difference of the quiet recording's features):
#   with ONNX Runtime: alone twice 0.00, beside a loud one 1.00; span 2.0
#   with NumPy: alone twice 0.00, beside a loud one 1.00; span 2.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  onnx-asr==0.12.0 onnxruntime==1.32.0 numpy==2.4.6

export ORT_DISABLE_TELEMETRY=1
(cd "$folder" && venv/bin/python -) <<'PYTHON'
import numpy as np
from onnx_asr.preprocessors.numpy_preprocessor import WhisperPreprocessorNumpy
from onnx_asr.preprocessors.preprocessor import OnnxPreprocessor

rng = np.random.default_rng(0)
time = np.arange(16000) / 16000
quiet = (0.01 * np.sin(2 * np.pi * 300 * time) + 1e-5 * rng.standard_normal(16000)).astype(np.float32)
loud = np.sin(2 * np.pi * 500 * time).astype(np.float32)

for title, features in (
    ("ONNX Runtime", OnnxPreprocessor("whisper80", {})),
    ("NumPy", WhisperPreprocessorNumpy("whisper80")),
):

    def of_the_first(*recordings):
        return features(np.stack(recordings), np.full(len(recordings), 16000))[0][0]

    alone = of_the_first(quiet)
    again, beside = (abs(of_the_first(*each) - alone).max() for each in ((quiet,), (quiet, loud)))
    print(f"with {title}: alone twice {again:.2f}, beside a loud one {beside:.2f}; span {np.ptp(alone):.1f}")
    assert again == 0 and beside > 0.5
PYTHON
