"""Prints the results on a terminal: tables and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from penstock_bench.numerals import duration, plain
from penstock_bench.pacing import Load
from penstock_bench.results import Level

_BAR_WIDTH = 40
_CURVE_WIDTH = 30
_MOST_BARS = 20
_NONE = "-"

_Column = tuple[str, Callable[[Level], str]]


def show(console: Console, levels: Sequence[Level]) -> None:
    """Prints all figures of all levels.

    Args:
        console: prints them.
        levels: the results; nothing is printed if it is empty.
    """
    if not levels:
        return
    for table in tables(levels):
        console.print(table)
        console.print()
    for line in remarks(levels):
        console.print(line, soft_wrap=not console.is_terminal)
    if sum(level.latency is not None for level in levels) > 1:
        console.print(Text("\nlatency by level, p50 and p99", style="bold"))
        console.print(curve(levels))
    shown = next((level for level in reversed(levels) if level.latency), None)
    if shown is not None:
        console.print(Text(f"\nlatencies at {named(shown)}", style="bold"))
        console.print(histogram(shown))


def interruption(seconds: float, not_run: Sequence[Load]) -> str:
    """A line on the time of the interruption and the levels that were not measured."""
    rest = f"; not measured: {', '.join(map(named, not_run))}" if not_run else ""
    return f"interrupted after {plain(round(seconds, 1))} s{rest}"


def named(level: Level | Load) -> str:
    """A level in a few words."""
    if level.rate:
        return f"{plain(level.rate, 6)} requests/s"
    return f"{level.concurrency} in flight"


def tables(levels: Sequence[Level]) -> list[Table]:
    """The figures, a row for each level: two tables, as one is too wide for a terminal of 80 columns."""
    return [_table(levels, _latency_columns()), _table(levels, _cost_columns(levels))]


def _table(levels: Sequence[Level], columns: Sequence[_Column]) -> Table:
    columns = [_level_column(levels), *columns]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for level in levels:
        table.add_row(*(cell(level) for _, cell in columns))
    return table


def _level_column(levels: Sequence[Level]) -> _Column:
    if levels[0].rate:
        return "rate", lambda level: plain(level.rate or 0.0, 6)
    return "in flight", lambda level: f"{level.concurrency or 0:,}"


def _latency_columns() -> list[_Column]:
    """Throughput and latency."""
    columns: list[_Column] = [
        ("requests/s", lambda level: _number(level.requests_per_second)),
        ("errors", lambda level: f"{level.failed:,}"),
    ]
    for title, name in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")):
        columns.append((title, lambda level, name=name: _time(getattr(level.latency, name, None))))  # type: ignore[misc]
    return columns


def _cost_columns(levels: Sequence[Level]) -> list[_Column]:
    """Rows, the server's timings, and the resources used by the load tool."""
    columns: list[_Column] = [("rows/s", lambda level: _number(level.rows_per_second))]
    if any(level.server for level in levels):
        columns += [
            ("queue", lambda level: _time(getattr(level.server, "queue_mean_seconds", None))),
            ("compute", lambda level: _time(getattr(level.server, "compute_mean_seconds", None))),
            ("batch", lambda level: plain(level.server.average_batch_rows) if level.server else _NONE),
        ]
    columns.append(("client CPU", lambda level: _time(level.generator.cpu_seconds_per_request)))
    return columns


def remarks(levels: Sequence[Level]) -> list[Text]:
    """Errors by code, and notes on the results."""
    lines = []
    for level in levels:
        prefix = f"{named(level)}: " if len(levels) > 1 else ""
        for code, count in level.errors.items():
            text = f"{prefix}{count:,} {code}: {' '.join(level.error_examples.get(code, '').split())}"
            lines.append(Text(text, style="red"))
        if level.unfinished:
            lines.append(Text(f"{prefix}{level.unfinished:,} requests were unanswered at the end"))
        lines += [Text(f"{prefix}{note}", style="yellow") for note in level.generator.notes]
    return lines


def histogram(level: Level) -> RenderableType:
    """How many answers took how long, as bars."""
    edges, counts = _fewer(level.histogram_edges_seconds, level.histogram_counts)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    most = max(counts)
    for edge, count in zip(edges, counts, strict=False):
        table.add_row(_time(edge), f"{count:,}", Bar(most, 0, count, width=_BAR_WIDTH))
    return table


def curve(levels: Sequence[Level]) -> RenderableType:
    """The latencies of all levels beside each other, as bars on a logarithmic axis."""
    low, high = _range(levels)
    table = Table.grid(padding=(0, 1))
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for level in levels:
        for name in ("p50", "p99"):
            value = getattr(level.latency, name, None)
            if value is not None:
                bar = Bar(1, 0, math.log(value / low) / math.log(high / low), width=_CURVE_WIDTH)
                what = (
                    (named(level), _number(level.requests_per_second) + "/s") if name == "p50" else ("", "")
                )
                table.add_row(*what, f"{name} {_time(value)}", bar)
    return table


def _range(levels: Sequence[Level]) -> tuple[float, float]:
    """The ends of an axis for all quantiles, with a margin below the lowest."""
    values = [each for level in levels if level.latency for each in (level.latency.p50, level.latency.p99)]
    if not values:
        return 1.0, 2.0
    low = min(values) / 2
    return low, max(*values, low * 2)


def _fewer(edges: list[float], counts: list[int]) -> tuple[list[float], list[int]]:
    """The same data in few enough bins for a clear picture."""
    step = math.ceil(len(counts) / _MOST_BARS)
    return edges[::step], [sum(counts[at : at + step]) for at in range(0, len(counts), step)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else plain(value)


def _time(seconds: float | None) -> str:
    return _NONE if seconds is None or math.isnan(seconds) else duration(seconds)
