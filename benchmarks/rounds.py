"""Goes through the rounds of every group."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.bench import Bench
from benchmarks.figures import Results
from benchmarks.groups import Group, Series
from benchmarks.load import LoadError
from benchmarks.servers import ServerError


def measure(bench: Bench, groups: Mapping[str, Group], rounds: int, results: Results) -> None:
    """Measures groups, one after the other, and adds every round's figures to `results`.

    The first round warms everything up, finds out how many calls make a measurement long enough, and does
    not count. A series that fails is left out from then on and noted with its reason; the others go on.
    """
    for name, group in groups.items():
        wanted = min(rounds, group.rounds or rounds)
        series = _there(name, group, results)
        for number in range(wanted + 1):
            for each, line in list(series.items()):
                progress(f"{name}: round {number} of {wanted}, {line.title}")
                try:
                    figure = line.measure(bench)
                except (LoadError, ServerError) as error:
                    results.fail(name, each, str(error))
                    del series[each]
                    continue
                if number:
                    results.add(name, each, figure)
    progress("")


def _there(name: str, group: Group, results: Results) -> dict[str, Series]:
    """The series that can be measured; why the others cannot is noted."""
    reasons = {each: line.missing() for each, line in group.series.items()}
    if missing := {each: reason for each, reason in reasons.items() if reason}:
        results.missing[name] = missing
    return {each: line for each, line in group.series.items() if not reasons[each]}


def progress(text: str) -> None:
    """Shows what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:<78.78}\r", end="", file=sys.stderr, flush=True)
