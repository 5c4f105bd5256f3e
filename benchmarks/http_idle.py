"""What an HTTP server that nothing calls costs those who call gRPC: `python -m benchmarks.http_idle`.

    python -m benchmarks.http_idle [--rounds 3] [--count 1000]

The times of two processes differ by more than a small share even on a quiet machine, so this counts
instructions; see `benchmarks.callgrind`. Two servers with the same models take turns, one of them with
`http = false`.

Per call: the instructions of the thread that takes the calls, one call at a time and 32 in flight. The other
threads wake by the clock, and a server under callgrind is some fifty times slower; so what they do is counted
by the second, while nothing is called.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import callgrind, load, machine, messages
from benchmarks.callgrind import Counted
from benchmarks.rounds import progress
from benchmarks.subjects import SCRIPT, TIMING_BYTES

IDLE_SECONDS = 10.0
IN_FLIGHT = (1, 32)


def per_call(counted: Counted, calls: load.Calls, count: int, in_flight: int, core: int) -> float:
    """The instructions of the thread that takes calls, for each."""
    with counted.counting() as found:
        load.unary(counted.server.target, calls, count, load.shape(in_flight), core)
    return found[0] / count


def idle(counted: Counted) -> float:
    """The instructions of all threads in a second without calls."""
    with counted.counting() as found:
        time.sleep(IDLE_SECONDS)
    return sum(found) / IDLE_SECONDS


def start(stack: ExitStack, models: Path, core: int, words: Sequence[str]) -> Counted:
    """Starts a server under callgrind."""
    command = [sys.executable, SCRIPT, "serve", models, "--port", "0", "--ops-port", "0", *words]
    return callgrind.start(stack, command, core)


def measure(rounds: int, count: int, folder: Path) -> None:
    """Measures, and prints the ratios."""
    core, load_core = machine.cores()
    models = messages.make_models(folder / "models")
    found: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        without = start(stack, models, core, ["--no-http"])
        with_http = start(stack, models, core, ["--http", "--http-port", "0"])
        request = messages.request().SerializeToString()
        size = load.one_answer(
            without.server.target, load.Calls(messages.SERVICE + "Predict", request, 0, 2**20)
        )
        least = len(size) - TIMING_BYTES
        calls = load.Calls(messages.SERVICE + "Predict", request, least, len(size) + TIMING_BYTES)
        for number in range(rounds + 1):  # the first one warms up
            progress(f"round {number} of {rounds}")
            lines = {
                f"a call, {each} in flight": [
                    per_call(server, calls, count, each, load_core) for server in (without, with_http)
                ]
                for each in IN_FLIGHT
            }
            lines["a second without calls"] = [idle(server) for server in (without, with_http)]
            for title, (below, above) in lines.items() if number else ():
                found.setdefault(title, []).append((below, above))
    progress("")
    print(f"{'instructions':26}{'without HTTP':>14}{'with':>14}  ratio")
    for title, pairs in found.items():
        below, above = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(b / a for a, b in pairs)
        words = f"{statistics.median(ratios):.4f}  ({ratios[0]:.4f} to {ratios[-1]:.4f})"
        print(f"{title:26}{below:14,.0f}{above:14,.0f}  {words}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http_idle", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="calls of each measurement")
    arguments = parser.parse_args()
    load.require_h2load()
    callgrind.require()
    with tempfile.TemporaryDirectory() as name:
        measure(arguments.rounds, arguments.count, Path(name))


if __name__ == "__main__":
    main()
