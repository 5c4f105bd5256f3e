"""More requests than a model can answer in time: how many are, beside how many it could.

    python -m benchmarks.overload [--seconds 1.5] [--rounds 3] [--only NAME ...] [--peers]

Serves a model that takes about 4 ms a run, one run at a time and one row a run, on one core, and sends it
requests with a deadline of 50 ms from another core, at random times that do not depend on the answers. What
counts is goodput: answers in time, as a share of the best rate, which is measured for every server by itself,
in every round before and after the loads: the machine may be faster now than a minute ago.

    levels     goodput, latencies, refusals: at 0.5 to 3 times the best rate
    batches    the same at 2 and 3 times, of a model of 2 ms a row whose requests run in batches
    burst      how long after a burst at twice the best rate latencies are normal again
    priority   high priority beside a crowd of low priority
    neighbour  a model of 1 ms beside one of 200 ms

The same server with a queue that is first come, first served (programs/fifo_server.py) is measured beside
it, and with --peers MLServer. A run of everything writes the measured part of docs/scheduling.md and its
pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import facts, load, overload_page
from benchmarks import overload_measures as measures
from benchmarks.overload_measures import FACTORS, SUBJECTS, Bench, chosen
from benchmarks.servers import ServerError

Results = dict[str, Any]
OURS: dict[str, Callable[[Bench, float], measures.Figure]] = {
    "priority": measures.priority,
    "neighbour": measures.neighbour,
}
MEASUREMENTS = ("levels", "batches", "burst", *OURS)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, or takes what was measured before, and prints the tables."""
    arguments = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)  # so that servers are stopped however the run ends
    whole = arguments.peers and not arguments.only
    writes = whole if arguments.write is None else arguments.write
    if writes:
        overload_page.require(arguments.page)
    results = json.loads(arguments.results.read_text()) if arguments.results else measure(arguments)
    print(overload_page.plain(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if results["failed"]:
        sys.exit("nothing is written, since not all was measured:\n" + "\n".join(results["failed"]))
    if writes:
        overload_page.write(results, arguments.page)
        print(f"written: {arguments.page}")


def measure(arguments: argparse.Namespace) -> Results:
    """All that was asked for, round by round, so that what else the machine does hits everybody alike."""
    only = arguments.only or MEASUREMENTS
    subjects = list(chosen(arguments.peers)) if {"levels", "burst"} & set(only) else ["penstock"]
    results: Results = {"facts": _facts(arguments), "best": {}, "failed": []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(Path(folder), arguments.seconds, stack)
        measures.make_models(Path(folder) / "models")
        try:
            for turn in range(arguments.rounds):
                _round(bench, subjects, only, results, f"round {turn + 1} of {arguments.rounds}")
        except KeyboardInterrupt:
            results["failed"].append("stopped early")
    progress("")
    return results


def _round(bench: Bench, subjects: Sequence[str], only: Sequence[str], results: Results, name: str) -> None:
    for subject in subjects:
        title = f"{name}: {SUBJECTS[subject].title}"
        with _noting(results, title):
            best = _best(bench, subject, results, title)
            if "levels" in only:
                _levels(bench, subject, results, title, best)
            if "burst" in only:
                progress(f"{title}, burst")
                _note(results, "burst", subject, "", measures.burst(bench, subject, best))
    if "batches" in only:
        title = f"{name}: {SUBJECTS['batches'].title}"
        with _noting(results, title):
            best = _best(bench, "batches", results, title)
            _levels(bench, "batches", results, title, best, "batches", FACTORS[-2:])
    for other in OURS.keys() & set(only):
        progress(f"{name}: {other}")
        with _noting(results, other):
            best = statistics.median(results["best"]["penstock"])
            _note(results, other, "penstock", "", OURS[other](bench, best))


def _best(bench: Bench, subject: str, results: Results, title: str) -> float:
    progress(f"{title}, best rate")
    best = measures.best_rate(bench, subject)
    results["best"].setdefault(subject, []).append(best)
    return best


def _levels(
    bench: Bench,
    subject: str,
    results: Results,
    title: str,
    best: float,
    measurement: str = "levels",
    factors: Sequence[float] = FACTORS,
) -> None:
    """A server's loads of one round, as multiples of its best rate before them."""
    figures = {}
    for factor in factors:
        progress(f"{title}, {factor:g} x {best:.0f}/s")
        figures[factor] = measures.at_rate(bench, subject, factor * best)
    best = (best + _best(bench, subject, results, title)) / 2
    for factor, figure in figures.items():
        _note(results, measurement, subject, f"{factor:g}", {**figure, "goodput": figure["in_time"] / best})


@contextlib.contextmanager
def _noting(results: Results, what: str) -> Iterator[None]:
    """Notes that a measurement failed, so that the others go on."""
    try:
        yield
    except (load.LoadError, ServerError) as error:
        results["failed"].append(f"{what}: {error}")


def _note(results: Results, measurement: str, subject: str, level: str, figure: measures.Figure) -> None:
    levels = results.setdefault(measurement, {}).setdefault(subject, {})
    levels.setdefault(level, []).append(figure)


def progress(text: str) -> None:
    """Says on a terminal what is being measured, in one line; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _facts(arguments: argparse.Namespace) -> measures.Figure:
    command = shlex.join(["python", "-m", "benchmarks.overload", *sys.argv[1:]])
    busy = os.getloadavg()[0]
    if busy > 1:
        print(f"the load average is {busy:.1f}: the machine is busy, and figures suffer", file=sys.stderr)
    return {**facts.facts(command, arguments.rounds, arguments.seconds), "busy": busy}


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="to measure each load (1.5)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements; medians count (3)")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--peers", action="store_true", help="measure MLServer, too (make bench-peers)")
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    parser.add_argument("--results", type=Path, help="measure nothing: take the figures that --json wrote")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="write the page and its pictures; left out: only in a run of everything, with --peers",
    )
    parser.add_argument("--page", type=Path, default=overload_page.PAGE, help="docs/scheduling.md")
    return parser


if __name__ == "__main__":
    main()
