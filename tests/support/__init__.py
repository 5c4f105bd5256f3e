"""What several test modules use. Importing it settles what ONNX Runtime reads from the environment."""

import os

# Tests import ONNX Runtime directly, too, and then nothing else would keep it from reporting to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
