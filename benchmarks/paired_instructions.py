"""Two builds by the instructions of a prediction: `python -m benchmarks.paired_instructions CHECKOUT`.

    python -m benchmarks.paired_instructions CHECKOUT [--rounds 1] [--only NAME ...]

The lines are those of `benchmarks.paired`, and so is CHECKOUT. What is counted is all that the thread that
polls gRPC does meanwhile, by `benchmarks.callgrind`, for each prediction that the server's metrics count.
Other threads wake by the clock, so in a server that is fifty times slower they would count fifty times as
much. Both servers take batches of up to 256 rows: how many are best is found by timed runs when a server
starts, which callgrind would change.

A ratio of instructions is not one of time: a call of Python takes more time an instruction than a copy does.
But it is the same on every run and every machine, so a change of one percent is seen.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import callgrind, load, machine, paired
from benchmarks.paired import Build, Run
from benchmarks.rounds import progress
from benchmarks.servers import ROOT
from benchmarks.subjects import free_ports

NAMES = [name for name in paired.LINES if name not in {"start", "memory", "client-64"}]
SETTINGS = "[batching]\nenabled = true\nmax_rows = 256\n"
SECONDS = 4.0
"""How long the callers of a shared stream call."""
CALLS = 1500
"""How many predictions the other lines ask for."""
LIMIT_SECONDS = 1200  # of a line


def instructions(run: Run, name: str, build: Build, counted: callgrind.Counted) -> float:
    """The instructions of the polling thread, which has most of them, for a prediction of one line."""
    before = counted.server.predictions()
    with counted.counting() as found:
        paired.LINES[name][1](run, build)
    after = counted.server.predictions()
    assert before is not None
    assert after is not None
    return found[0] / (after - before)


def measured(checkout: Path, names: Sequence[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """The instructions of both builds, by line and round."""
    paired.FIRST_CALLS, load.LIMIT_SECONDS = CALLS, LIMIT_SECONDS
    server_core, load_core = machine.cores()
    run = Run(SECONDS, server_core, load_core)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = paired.make_models(Path(folder))
        (models / "tiny_mlp" / "model.toml").write_text(SETTINGS)
        pair = []
        for name, root in {"before": checkout.resolve(), "after": ROOT}.items():
            progress(f"starting {name}")
            script = root / ".venv/bin/penstock"
            command = [root / ".venv/bin/python", script, "serve", models, *free_ports(script)]
            counted = callgrind.start(stack, command, server_core)
            pair.append((Build(name, root, counted.server), counted))
        for name, values in found.items():
            for number in range(rounds + 1):
                progress(f"{paired.LINES[name][0]}: round {number} of {rounds}")
                before, after = (instructions(run, name, *each) for each in pair)
                if number:  # the first one warms up
                    values.append((before, after))
    progress("")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Counts, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paired_instructions", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkout", type=Path, help="the earlier build's checkout")
    parser.add_argument("--rounds", type=int, default=1, help="counts of each line, after one that warms up")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    arguments = parser.parse_args(words)
    load.require_h2load()
    callgrind.require()
    found = measured(arguments.checkout, arguments.only or NAMES, arguments.rounds)
    print(f"{'instructions of a prediction':42}{'before':>12}{'after':>12}    ratio")
    for name, values in found.items():
        before, after = (statistics.median(column) for column in zip(*values, strict=True))
        ratios = sorted(new / old for old, new in values)
        print(
            f"{paired.LINES[name][0]:42}{before:12,.0f}{after:12,.0f}    {statistics.median(ratios):.3f}"
            f"  ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    sys.exit(main())
