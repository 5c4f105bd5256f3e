"""The results as tables: plain ones for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Results, median
from benchmarks.groups import GROUPS, Group

COLUMNS = {
    "rate": ("a second", 1.0),
    "mean_us": ("mean µs", 1.0),
    "cpu_us": ("CPU µs", 1.0),
}


def plain(results: Results) -> str:
    """All groups, one line a series."""
    return "\n".join(line for name in results.figures for line in _plain_group(name, results))


def _plain_group(name: str, results: Results) -> Iterator[str]:
    group = GROUPS[name]
    reference = results.fastest(name, group.references)
    yield f"{group.title:50}{'a second':>10}{'min':>10}{'max':>10}{'mean µs':>9}{'CPU µs':>8}{'ratio':>8}"
    for series in results.figures[name]:
        yield _plain_line(name, series, group, reference, results)
    for series, reason in results.missing.get(name, {}).items():
        yield f"  {group.series[series].title}: not measured, {reason}"
    yield ""


def _plain_line(name: str, series: str, group: Group, reference: str | None, results: Results) -> str:
    rates = results.values(name, series, "rate")
    ratio = median(results.ratios(name, series, reference, group.number))
    numbers = [median(rates), min(rates), max(rates)]
    numbers += [results.median(name, series, key) for key in ("mean_us", "cpu_us")]
    shown = "".join(
        f"{number(value):>{width}}" for value, width in zip(numbers, (10, 10, 10, 9, 8), strict=True)
    )
    mark = " *" if series == reference else ""
    return f"  {group.series[series].title:48}{shown}{number(ratio, 2):>8}{mark}"


def number(value: float | None, digits: int | None = None) -> str:
    """A number with three or more significant digits, or a dash for none."""
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"
