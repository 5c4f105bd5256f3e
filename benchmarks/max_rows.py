"""What the largest batch should be: throughput and the server's CPU for several bounds, on two networks.

    python benchmarks/max_rows.py

256 requests are in flight on one stream, so that there is always enough to fill a batch. The default of
`batching.max_rows` rests on this; see docs/decisions/0004-batching.md.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

sys.path.insert(0, str(Path(__file__).parent))
import load
from run import LOAD_CORE, SERVICE, Figure, Running, models_in, penstock, server

BOUNDS = (8, 16, 32, 64, 128)
WIDTHS = {"tiny_mlp": 64, "medium_mlp": 256}
MESSAGES = {"tiny_mlp": 2000, "medium_mlp": 400}
ROWS_A_MESSAGE, IN_FLIGHT, ROUNDS = 16, 16, 5


def main() -> None:
    with contextlib.ExitStack() as stack:
        models = models_in(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        servers = {
            bound: stack.enter_context(
                server(str(bound), penstock(models, "reactor"), PENSTOCK_BATCHING__MAX_ROWS=str(bound))
            )
            for bound in BOUNDS
        }
        rounds = [
            {(model, bound): measure(servers[bound], model) for model in WIDTHS for bound in BOUNDS}
            for _ in range(ROUNDS + 1)
        ][1:]
    print("| model | max_rows | predictions a second | server CPU, µs each |\n|---|---|---|---|")
    for model, bound in rounds[0]:
        rate = statistics.median(each[model, bound].rate for each in rounds)
        cpu = statistics.median(each[model, bound].cpu_us for each in rounds)
        print(f"| {model} | {bound} | {rate:,.0f} | {cpu:.1f} |")


def measure(running: Running, model: str) -> Figure:
    before = running.cpu_seconds()
    seconds = load.stream(
        running.target, SERVICE + "PredictStream", message(model), MESSAGES[model], IN_FLIGHT, LOAD_CORE
    )
    return Figure(MESSAGES[model] * ROWS_A_MESSAGE, seconds, running.cpu_seconds() - before)


def message(model: str) -> bytes:
    request = pb.PredictRequest(model=model)
    tensor = request.inputs["x"]
    tensor.datatype = tensor_pb2.FP32
    tensor.shape.extend((1, WIDTHS[model]))
    tensor.raw = np.random.default_rng(0).standard_normal((1, WIDTHS[model]), np.float32).tobytes()
    return pb.PredictStreamRequest(requests=[request] * ROWS_A_MESSAGE).SerializeToString()


if __name__ == "__main__":
    main()
