"""What `benchmarks.overload` has measured: tables on a terminal, the page's measured part, and pictures."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.overload_measures import DEADLINE_SECONDS, ROW_MILLISECONDS, SUBJECTS, TOLERANCE_SECONDS
from benchmarks.pictures import PYTHON
from benchmarks.servers import ROOT
from benchmarks.subjects import PROGRAMS

PAGE = ROOT / "docs/scheduling.md"
BEGIN = "<!-- From here to the end marker, `python -m benchmarks.overload --peers` writes. -->"
END = "<!-- The end of what `python -m benchmarks.overload --peers` writes. -->"

Results = dict[str, Any]
Rows = list[list[str]]

MADE = """\
Made by `{command}`: medians of {rounds} rounds, {seconds:g} s a load. The load average was {busy:.1f} before.

The model takes about 4 ms a run, with one row a run and one run at a time. The server and the load
generator have one core each. Calls use the Open Inference Protocol and are sent at random times (a Poisson
process with the same seed for all servers), without waiting for answers. A latency is measured from the
time at which the call was due, by the client's clock. "Late" counts answers that arrived more than
{tolerance:g} ms after the deadline; the server's clock for a deadline starts when it reads the call. "Plain
FIFO" is this server with a queue that ignores deadlines and priorities. MLServer has the model in a worker
process, which is its default. Goodput is the rate of answers in time as a share of the best rate. The best
rate is measured with eight calls in flight, as the mean of one measurement before and one after the loads
of a round. Medians of the best rates: {best}.
"""

CODES = {"-1": "broken off", "-2": "no answer", "4": "DEADLINE_EXCEEDED", "8": "RESOURCE_EXHAUSTED"}
HEADINGS = (
    "load",
    "offered/s",
    "in time/s",
    "goodput",
    "p50 ms",
    "p99 ms",
    "rejected",
    "status after ms",
    "late",
    "status",
)
PICTURES = {
    "goodput": ("Answers in time, as a share of the best rate", "%"),
    "p50": ("Half of the answers came within", "ms"),
    "p99": ("99 of 100 answers came within", "ms"),
}
"""By the name after `overload-`: the title, and what the axis counts."""


def plain(results: Results) -> str:
    """The tables for a terminal."""
    return "\n".join(line for title, rows in _tables(results) for line in (f"\n{title}", *_aligned(rows)))


def write(results: Results, page: Path) -> None:
    """Replaces the measured part of a page, or adds one at its end, and draws the pictures beside it."""
    text = page.read_text(encoding="utf-8")
    drawn = draw(results, page.parent / "pictures") if "levels" in results else []
    page.write_text(renewed(text, "\n".join(_measured(results, drawn))), encoding="utf-8")


def require(page: Path) -> None:
    """Makes sure that the page and its pictures can be written, before minutes of measuring.

    Raises:
        SystemExit: they cannot.
    """
    if not page.exists():
        raise SystemExit(
            f"{page} is not there, whose measured part is to be written; --no-write goes without"
        )
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON.relative_to(ROOT)} is not there, to draw pictures; `make bench` makes it")


def renewed(text: str, measured: str) -> str:
    """A page's text with another measured part; where it has none, at its end."""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Measured\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"after the line\n{BEGIN}\nthe page must hold the line\n{END}")
    return f"{before}{begin}\n\n{measured}\n{end}{after}"


def draw(results: Results, folder: Path) -> list[str]:
    """Draws the levels, in a light and a dark version; returns the names of the pictures."""
    folder.mkdir(exist_ok=True)
    given = [
        {"name": f"overload-{name}", "title": title, "unit": unit, "lines": list(_lines(name, results))}
        for name, (title, unit) in PICTURES.items()
    ]
    command = [PYTHON, PROGRAMS / "draw_lines.py", folder]
    subprocess.run(command, input=json.dumps(given), text=True, check=True)
    return [picture["name"] for picture in given]


def _lines(name: str, results: Results) -> Iterator[dict[str, Any]]:
    for subject, levels in results["levels"].items():
        points = []
        for factor, rounds in levels.items():
            value = (
                100 * (median(rounds, "goodput") or 0.0)
                if name == "goodput"
                else median(rounds, f"{name}_ms")
            )
            points.append((float(factor), value))
        yield {"label": SUBJECTS[subject].title, "points": points}


def median(rounds: Sequence[dict[str, Any]], name: str) -> float | None:
    """The median of a number over the rounds that have it; None where none has."""
    values = [figure[name] for figure in rounds if figure[name] is not None]
    return statistics.median(values) if values else None


def _tables(results: Results) -> Iterator[tuple[str, Rows]]:
    if "levels" in results:
        yield f"Deadline {DEADLINE_SECONDS * 1e3:g} ms, by multiples of the best rate", _levels(results)
    if "batches" in results:
        yield f"The same of a model of {ROW_MILLISECONDS} ms a row, in batches", _levels(results, "batches")
    if "burst" in results:
        yield "After a burst at twice the best rate for 2 s", _bursts(results)
    if "priority" in results:
        yield "High priority beside low at twice the best rate", _beside(results["priority"])
    if "neighbour" in results:
        yield "A model of 1 ms beside one of 200 ms, on one core", _beside(results["neighbour"])


def _levels(results: Results, measurement: str = "levels") -> Rows:
    rows = [["server", *HEADINGS]]
    for subject, levels in results[measurement].items():
        for factor, rounds in levels.items():
            cells = [_number(median(rounds, name)) for name in ("offered", "in_time")]
            cells.append(f"{median(rounds, 'goodput'):.0%}")
            cells += [_number(median(rounds, name)) for name in ("p50_ms", "p99_ms")]
            cells += [f"{median(rounds, 'refused'):.0%}", _number(median(rounds, "refusal_ms"))]
            cells += [str(sum(figure["late"] for figure in rounds)), _codes(rounds)]
            rows.append([SUBJECTS[subject].title, f"{factor} x", *cells])
    return rows


def _codes(rounds: Sequence[dict[str, Any]]) -> str:
    """The commonest end of those that were not answered."""
    counts: dict[str, int] = {}
    for figure in rounds:
        for code, count in figure["codes"].items():
            counts[code] = counts.get(code, 0) + count
    if not counts:
        return ""
    code = max(counts, key=lambda code: counts[code])
    return CODES.get(code, f"code {code}")


def _bursts(results: Results) -> Rows:
    rows = [["server", "p99 ms before", "normal again after ms"]]
    for subject, levels in results["burst"].items():
        [rounds] = levels.values()
        recovered = [figure["recovery_ms"] for figure in rounds]
        never = sum(value is None for value in recovered) > len(recovered) / 2
        after = "not within 2 s" if never else _number(median(rounds, "recovery_ms"))
        rows.append([SUBJECTS[subject].title, _number(median(rounds, "calm_p99_ms")), after])
    return rows


def _beside(levels: dict[str, Any]) -> Rows:
    rows = [["", "p50 ms", "p99 ms", "not answered"]]
    [rounds] = levels["penstock"].values()
    for name in ("alone", "beside"):
        figures = [figure[name] for figure in rounds]
        cells = [_number(median(figures, column)) for column in ("p50_ms", "p99_ms")]
        rows.append([name, *cells, str(sum(figure["failed"] for figure in figures))])
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _aligned(rows: Rows) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _measured(results: Results, drawn: Sequence[str]) -> Iterator[str]:
    yield from _facts(results)
    for name in drawn:
        yield _picture(name, PICTURES[name.removeprefix("overload-")][0])
    for title, rows in _tables(results):
        yield f"### {title}\n"
        yield f"| {' | '.join(rows[0])} |"
        yield "|---" * len(rows[0]) + "|"
        yield from (f"| {' | '.join(row)} |" for row in rows[1:])
        yield ""


def _facts(results: Results) -> Iterator[str]:
    given = results["facts"]
    yield f"{given['machine']}. {given['date']}, commit {given['commit']}.\n"
    yield ", ".join(f"{name} {version}" for name, version in given["versions"].items()) + ".\n"
    rates = (
        f"{SUBJECTS[name].title} {statistics.median(rates):.0f}/s" for name, rates in results["best"].items()
    )
    yield MADE.format(**given, tolerance=TOLERANCE_SECONDS * 1e3, best=", ".join(rates))


def _picture(name: str, title: str) -> str:
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="pictures/{name}-dark.png">\n'
        f'  <img alt="{title}, by load" src="pictures/{name}-light.png">\n</picture>\n'
    )
