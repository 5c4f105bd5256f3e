"""Figures of one run: named numbers per round, their medians, spreads and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Figure: TypeAlias = dict[str, float]
"""What one measurement gave: numbers by name, such as `rate` (a second), `cpu_us` (server CPU each),
`client_cpu_us`, `mean_us`, `p50_us`, `p99_us`."""


@dataclass
class Results:
    """The figures of a run.

    Attributes:
        figures: by group, then by series: one figure a round.
        missing: by group, then by series: why it was not measured.
        facts: the machine, the versions, how the run was made.
        failed: a measurement failed.
    """

    figures: dict[str, dict[str, list[Figure]]] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    def add(self, group: str, series: str, figure: Figure) -> None:
        """Notes a round's figure."""
        self.figures.setdefault(group, {}).setdefault(series, []).append(figure)

    def fail(self, group: str, series: str, reason: str) -> None:
        """Notes that a series failed, and drops what it gave before."""
        self.failed = True
        self.figures.get(group, {}).pop(series, None)
        self.missing.setdefault(group, {})[series] = f"it failed: {reason}"

    def values(self, group: str, series: str, name: str) -> list[float]:
        """One number of every round; empty where it was not measured."""
        rounds = self.figures.get(group, {}).get(series, [])
        return [figure[name] for figure in rounds if name in figure]

    def median(self, group: str, series: str, name: str) -> float | None:
        """The median of a number over the rounds; None where it was not measured."""
        values = self.values(group, series, name)
        return statistics.median(values) if values else None

    def fastest(self, group: str, candidates: Iterable[str]) -> str | None:
        """The series with the highest median rate; None where none of them was measured."""
        rates = {name: self.median(group, name, "rate") for name in candidates}
        measured = {name: rate for name, rate in rates.items() if rate is not None}
        return max(measured, key=lambda name: measured[name]) if measured else None

    def ratios(self, group: str, series: str, reference: str | None, name: str = "rate") -> list[float]:
        """A number over the reference's, round by round; empty where either was not measured."""
        if reference is None:
            return []
        pairs = zip(self.values(group, series, name), self.values(group, reference, name), strict=False)
        return [value / other for value, other in pairs]


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None
