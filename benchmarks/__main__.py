"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import benchmarks
from benchmarks import facts, load, page, reach, tables
from benchmarks.bench import running
from benchmarks.figures import Results
from benchmarks.groups import ALL_SUBJECTS, GROUPS, chosen
from benchmarks.rounds import measure

QUICK_ROUNDS, QUICK_SECONDS = 3, 0.4
ROUNDS, SECONDS = 7, 2.0


def main(words: Sequence[str] | None = None) -> None:
    """Measures, or takes what was measured before, and prints the tables."""
    arguments = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)  # so that servers are stopped however the run ends
    if arguments.results:
        results = Results(**json.loads(arguments.results.read_text()))
    else:
        results = _measured(arguments)
    print(tables.plain(results))
    print("\n".join(reach.table(results)))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    whole = not (arguments.quick or arguments.only)
    if whole if arguments.write is None else arguments.write:
        page.write(results)
        print(f"written: {page.PAGE}")
    if results.failed:
        sys.exit("a measurement failed: see above")


def _measured(arguments: argparse.Namespace) -> Results:
    load.require_h2load()
    results = Results()
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if arguments.quick else (ROUNDS, SECONDS)
    rounds, seconds = arguments.rounds or rounds, arguments.seconds or seconds
    groups = chosen(arguments.only, arguments.quick, arguments.peers)
    try:
        with running(ALL_SUBJECTS, seconds) as run:
            measure(run, groups, rounds, results)
    except KeyboardInterrupt:
        print("\nstopped early: these are the rounds that were finished", file=sys.stderr)
        arguments.write = False
    results.facts = facts.facts(_command(), rounds, seconds) | {"peers": facts.peer_versions(results)}
    return results


def _command() -> str:
    words = shlex.join(sys.argv[1:])
    return f'make bench ARGS="{words}"' if words else "make bench"


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("--quick", action="store_true", help="few short rounds, for development")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--peers", action="store_true", help="measure other servers too (make bench-peers)")
    parser.add_argument("--rounds", type=int, help="rounds that count, after one that warms up")
    parser.add_argument("--seconds", type=float, help="about how long one measurement takes")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="write docs/benchmarks.md; left out: only in a full run, of all groups",
    )
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    parser.add_argument("--results", type=Path, help="measure nothing: take the figures that --json wrote")
    return parser


if __name__ == "__main__":
    main()
