"""Goes through the rounds of every group."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.bench import Bench
from benchmarks.figures import Results
from benchmarks.groups import Group, Series


def measure(bench: Bench, groups: Mapping[str, Group], rounds: int, results: Results) -> None:
    """Measures groups, one after the other, and adds every round's figures to `results`.

    The first round warms everything up, finds out how many calls make a measurement long enough, and does
    not count.
    """
    for name, group in groups.items():
        wanted = min(rounds, group.rounds or rounds)
        series = _there(name, group, results)
        for number in range(wanted + 1):
            for each, line in series.items():
                _progress(f"{name}: round {number} of {wanted}, {line.title}")
                figure = line.measure(bench)
                if number:
                    results.add(name, each, figure)
    _progress("")


def _there(name: str, group: Group, results: Results) -> dict[str, Series]:
    """The series that can be measured; why the others cannot is noted."""
    reasons = {each: line.missing() for each, line in group.series.items()}
    if missing := {each: reason for each, reason in reasons.items() if reason}:
        results.missing[name] = missing
    return {each: line for each, line in group.series.items() if not reasons[each]}


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<78.78}\r", end="", file=sys.stderr, flush=True)
