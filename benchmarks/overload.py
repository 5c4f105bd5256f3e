"""More requests than a model can answer in time: how many are, beside how many it could.

    python -m benchmarks.overload [--seconds 5]

Serves a model that takes 4 ms a run, one run at a time, on one core, and sends it requests with a deadline of
50 ms at even intervals from another core: first as many as it can answer, then multiples of that. What counts
is goodput: answers in time, as a share of the best rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support import zoo
from support.servers import RunningServer, running_server

DEADLINE_SECONDS = 0.05
FACTORS = (0.5, 0.9, 1.0, 1.5, 2.0, 3.0)
SETTINGS = "runs_in_parallel = 1\n[batching]\nenabled = false\n[runtime]\nintra_op_threads = 1\n"
PENSTOCK = Path(sys.executable).with_name("penstock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure each rate")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        path = zoo.repository(Path(folder) / "models", {"slow": zoo.slow(4)})
        (path / "slow" / "model.toml").write_text(SETTINGS)
        with running_server(path) as server:
            subprocess.run(
                ["taskset", "-a", "-p", "-c", "0", str(server.pid)], check=True, capture_output=True
            )
            measure(server, seconds)


def measure(server: RunningServer, seconds: float) -> None:
    best = load(server, seconds, "--concurrency", "8")["requests_per_second"]
    print(f"best rate {best:.0f}/s; deadline {DEADLINE_SECONDS * 1000:.0f} ms")
    print(f"{'offered':>9} {'in time':>9} {'goodput':>8}  refused as")
    for factor in FACTORS:
        rate = int(best * factor)
        found = load(server, seconds, "--rate", str(rate), "--timeout", str(DEADLINE_SECONDS))
        in_time = found["answered"] / seconds
        print(f"{rate:>7}/s {in_time:>7.0f}/s {in_time / min(rate, best):>7.0%}  {found['errors'] or ''}")


def load(server: RunningServer, seconds: float, *flags: str) -> dict[str, Any]:
    command = [PENSTOCK, "bench", "slow", "--target", server.target, "--json", "--warmup", "0.5"]
    done = subprocess.run(
        ["taskset", "-c", "1", *map(str, command), "--duration", str(seconds), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    level: dict[str, Any] = json.loads(done.stdout)["levels"][0]
    return level


if __name__ == "__main__":
    main()
