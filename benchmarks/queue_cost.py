"""What the queue and the batcher cost: CPU of this process's thread for a request, without a model or gRPC.

    python -m benchmarks.queue_cost [--rounds 15] [--source src]

Puts requests into a model's queue and runs them with a backend that does nothing: one at a time, and 32 in a
batch; without a deadline, and with one of a second. With `--source` it measures another checkout's code, so
that two can be compared in the same minute. The least of the rounds counts: nothing else makes it less.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REQUESTS = 3200
BATCH = 32


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each measurement (15)")
    parser.add_argument("--source", type=Path, help="the folder with the package penstock to measure")
    arguments = parser.parse_args(words)
    if arguments.source:
        sys.path.insert(0, str(arguments.source))
    pour = pouring()
    for rows in (1, BATCH):
        for seconds in (math.inf, 1.0):
            cost = min(pour(rows, seconds) for _ in range(arguments.rounds))
            deadline = "no deadline" if seconds == math.inf else "a deadline"
            print(f"{rows:2} a batch, {deadline:11}  {cost * 1e6:5.2f} µs a request")


def pouring() -> Callable[[int, float], float]:
    """What puts requests in and runs them; says how many seconds of CPU each took.

    Its arguments are the requests of a batch, and in how many seconds each is due.
    """
    # Only now, since the source to take them from is known only now.
    try:
        from penstock.core import request as requests
    except ImportError:  # an older layout of the code
        from penstock import messages as requests
    from penstock.scheduling.batcher import BatchPolicy, DynamicBatcher
    from penstock.scheduling.cost import RunCost

    class Request(getattr(requests, "Request", None) or requests.InferRequest):
        __slots__ = ()

        def reply(self, result: object) -> None:
            """Does nothing."""

    class Backend:
        def run(self, outputs: Sequence[str], inputs: dict[str, Any], stop: object = None) -> list[Any]:
            return [inputs["x"]]

    settings = {"batched": True, "max_rows": 2 * BATCH, "max_delay_seconds": 0.0, "runs_in_parallel": 1}
    room = {"queue_rows": 2**15, "queue_bytes": 2**30}
    known = {field.name for field in dataclasses.fields(BatchPolicy)}  # older code has fewer settings
    policy = BatchPolicy(**{name: value for name, value in (settings | room).items() if name in known})
    batcher = DynamicBatcher(Backend(), policy, RunCost(1e-5, BATCH, 2e-5))
    row = np.zeros((1, 4), np.float32)

    def pour(rows: int, seconds: float) -> float:
        begun = time.thread_time()
        for _ in range(REQUESTS // rows):
            for _ in range(rows):
                now = time.monotonic()
                batcher.put(Request({"x": row}, ("y",), 1, None, "Predict", now, now + seconds))
            batcher.run_once()
        return (time.thread_time() - begun) / REQUESTS

    return pour


if __name__ == "__main__":
    main()
