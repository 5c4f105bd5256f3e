"""A floor: ONNX Runtime called directly, in a loop, with one thread.

    python benchmarks/programs/onnx_direct.py MODEL_FILE ROWS SECONDS

Prints microseconds per run, the mean over SECONDS after a warm-up of a tenth of that. The inputs are float32
[ROWS, width], the same for every run.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, as ONNX Runtime is loaded

import numpy as np
import onnxruntime


def main() -> None:
    path, rows, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [x] = session.get_inputs()
    batch = np.random.default_rng(0).standard_normal((rows, x.shape[1]), np.float32)
    _time_of_a_run(session, {x.name: batch}, seconds / 10)
    print(_time_of_a_run(session, {x.name: batch}, seconds) * 1e6)


def _time_of_a_run(
    session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], seconds: float
) -> float:
    runs = 0
    started = now = time.perf_counter()
    while now < started + seconds:
        for _ in range(10):
            session.run(None, feed)
        runs += 10
        now = time.perf_counter()
    return (now - started) / runs


if __name__ == "__main__":
    main()
