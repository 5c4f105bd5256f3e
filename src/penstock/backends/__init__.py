"""Backends: load model files and run them, with ONNX Runtime.

This package sets an environment variable that ONNX Runtime reads when it is imported, so it must be imported
before onnxruntime.
"""

import os

# From 1.29 on, ONNX Runtime sends telemetry from Linux, too: it writes files into the home folder and looks
# up a host. It reads the variable once, when it is imported. A value that the operator has set is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
