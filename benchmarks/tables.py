"""The results as plain tables for a terminal, and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Results, median
from benchmarks.groups import GROUPS

HEADINGS = {
    "rate": "a second",
    "mean_us": "mean µs",
    "cpu_us": "CPU µs each",
    "client_cpu_us": "client CPU µs",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "p999_us": "p99.9 µs",
    "max_us": "max µs",
    "late_us": "sent late µs",
    "tail": "p99/p50",
    "busy": "of a core",
    "growth_mb": "growth MB",
    "resident_mb": "resident MB",
    "start_seconds": "seconds",
}
TITLE_WIDTH, WIDTH = 50, 14


def plain(results: Results) -> str:
    """All groups, one line a series; the reference of the ratios has a star."""
    return "\n".join(line for name in GROUPS for line in _group(name, results))


def _group(name: str, results: Results) -> Iterator[str]:
    group = GROUPS[name]
    if name in results.figures:
        headings = [HEADINGS[column] for column in group.columns]
        yield _line(group.title, [*headings, "min", "max", "ratio" if group.ratio else ""])
    for series in results.figures.get(name, {}):
        yield _line(f"  {group.series[series].title}", row(name, series, results))
    for series, reason in results.missing.get(name, {}).items():
        yield f"  {group.series[series].title}: not measured, {reason}"
    if name in results.figures:
        yield ""


def row(name: str, series: str, results: Results) -> list[str]:
    """The cells of a line: the medians, the least and the most of the first number, and the ratio."""
    group = GROUPS[name]
    spread = results.values(name, series, group.columns[0])
    cells = [number(results.median(name, series, column)) for column in group.columns]
    cells += [number(min(spread)), number(max(spread))]
    reference = results.fastest(name, group.references)
    ratio = median(results.ratios(name, series, reference, group.ratio))
    return [*cells, number(ratio, 2) + (" *" if series == reference else "") if group.ratio else ""]


def _line(title: str, cells: list[str]) -> str:
    return f"{title:{TITLE_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def number(value: float | None, digits: int | None = None) -> str:
    """A number with about three significant digits, or a dash for none."""
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
