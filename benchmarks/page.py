"""Writes the measured part of docs/benchmarks.md, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import pictures, reach
from benchmarks.figures import Results
from benchmarks.groups import GROUPS
from benchmarks.servers import ROOT
from benchmarks.tables import HEADINGS, row

PAGE = ROOT / "docs/benchmarks.md"
BEGIN = "<!-- From here to the end marker, `make bench` writes. -->"
END = "<!-- The end of what `make bench` writes. -->"


def write(results: Results, page: Path = PAGE) -> None:
    """Replaces the measured part of the page and draws the pictures beside it.

    Raises:
        ValueError: the page has no markers to write between.
    """
    drawn = pictures.draw(results, page.parent / "pictures")
    page.write_text(renewed(page.read_text(encoding="utf-8"), results, drawn), encoding="utf-8")


def renewed(text: str, results: Results, drawn: dict[str, str]) -> str:
    """The page's text with another measured part; `drawn` has the titles of pictures by their names.

    Raises:
        ValueError: the text has no markers to write between.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page must hold these two lines:\n{BEGIN}\n{END}")
    middle = "\n".join(_measured(results, drawn))
    return f"{before}{BEGIN}\n\n{middle}\n{END}{after}"


def _measured(results: Results, drawn: dict[str, str]) -> Iterator[str]:
    yield from _facts(results)
    yield "## Targets\n"
    yield from reach.table(results)
    yield ""
    yield from (_picture(name, title) for name, title in drawn.items())
    for name in GROUPS:
        if name in results.figures:
            yield from _table(name, results)


def _facts(results: Results) -> Iterator[str]:
    facts = results.facts
    versions = facts["versions"] | facts.get("peers", {})
    yield f"{facts['machine']}. {facts['date']}, commit {facts['commit']}.\n"
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + f", {facts['h2load']}.\n"
    yield f"Made by `{facts['command']}`: {facts['rounds']} rounds, {facts['seconds']:g} s a measurement.\n"


def _picture(name: str, title: str) -> str:
    dark, light = (f"pictures/{name}-{theme}.svg" for theme in ("dark", "light"))
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img alt="{title}" src="{light}">\n</picture>\n'
    )


def _table(name: str, results: Results) -> Iterator[str]:
    group = GROUPS[name]
    headings = [HEADINGS[column] for column in group.columns]
    headings += ["min", "max", *(["ratio"] if group.ratio else [])]
    yield f"### {group.title}\n"
    yield f"| | {' | '.join(headings)} |"
    yield "|---" * (len(headings) + 1) + "|"
    for series in results.figures[name]:
        cells = row(name, series, results)[: len(headings)]
        yield f"| {group.series[series].title} | {' | '.join(cells).replace(' *', ' ★')} |"
    yield ""
    for series, reason in results.missing.get(name, {}).items():
        yield f"Not measured: {group.series[series].title}, since {reason}.\n"
