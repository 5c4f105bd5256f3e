"""A caller that makes one unary call after another, and how long each took.

    python benchmarks/programs/one_at_a_time.py TARGET METHOD REQUEST_FILE SECONDS

Prints a line "ready" after the first answer, and at the end JSON: `seconds`, a list with every call's time,
and `failed`, how many ended with an error.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import grpc


def main() -> None:
    target, method, path, seconds = sys.argv[1:]
    request = Path(path).read_bytes()
    gc.disable()  # a collection would hold a call up
    taken: list[float] = []
    failed = 0
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(method)
        call(request, timeout=30, wait_for_ready=True)
        print("ready", flush=True)
        end = time.perf_counter() + float(seconds)
        while (begun := time.perf_counter()) < end:
            try:
                call(request, timeout=30)
            except grpc.RpcError:
                failed += 1
            taken.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": taken, "failed": failed}))


if __name__ == "__main__":
    main()
