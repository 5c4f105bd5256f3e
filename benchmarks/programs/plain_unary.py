"""One caller that makes unary calls with grpcio's synchronous stub, one after the other.

    python benchmarks/programs/plain_unary.py TARGET REQUEST_FILE SECONDS

The request is made once; the answer is parsed and its output read. Prints JSON: `rate`, and `p50_us` and
`p99_us` of a call. Calls of the first fifth of SECONDS warm up and do not count.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import grpc
import numpy as np

from penstock_proto.v1.prediction_pb2 import PredictRequest
from penstock_proto.v1.prediction_pb2_grpc import PredictionServiceStub

WARM_UP = 0.2


def main() -> None:
    target, path, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    request = PredictRequest.FromString(path.read_bytes())
    latencies: list[float] = []
    with grpc.insecure_channel(target) as channel:
        predict = PredictionServiceStub(channel).Predict
        _call(predict, request, seconds * WARM_UP)
        latencies = _call(predict, request, seconds * (1 - WARM_UP))
    p50, p99 = np.percentile(np.array(latencies) * 1e6, (50, 99))
    print(json.dumps({"rate": len(latencies) / sum(latencies), "p50_us": p50, "p99_us": p99}))


def _call(predict: grpc.UnaryUnaryMultiCallable, request: PredictRequest, seconds: float) -> list[float]:
    latencies = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        np.frombuffer(predict(request).outputs["y"].raw, np.float32)
        latencies.append(time.perf_counter() - started)
    return latencies


if __name__ == "__main__":
    main()
