"""The tables of docs/importing.md: one for the libraries of each environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from importing.outcomes import Outcome

PAGE = Path(__file__).parents[2] / "docs/importing.md"
_ROW = re.compile(r"^\| `(?P<name>.*)` \| (?P<result>\w+) \| (?P<why>.*) \|$", re.MULTILINE)
_HEADING = re.compile(r"^### (?P<library>.+) (?P<version>\S+)$", re.MULTILINE)


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        name: of the case.
        result: "right", "refused" or "WRONG".
        why: the rest.
    """

    name: str
    result: str
    why: str


def replaced(text: str, group: str, table: str) -> str:
    """The text of the page with another table of a group.

    Raises:
        ValueError: the page has no place for it.
    """
    begin, end = _marks(group)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{PAGE.name} does not have one {begin} and one {end}")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}\n{table}{end}{after}"


def write(group: str, table: str) -> None:
    """Writes a group's table, or leaves the page as it was."""
    text = replaced(PAGE.read_text(encoding="utf-8"), group, table)
    beside = PAGE.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, PAGE)


def table(found: Mapping[str, Sequence[tuple[str, Outcome]]], version: Callable[[str], str]) -> Iterator[str]:
    """A group's table in pieces.

    Args:
        found: for each library the cases and what became of them.
        version: of a library.
    """
    yield f"\n{counts([outcome.result for cases in found.values() for _, outcome in cases])}\n"
    for library, cases in found.items():
        yield f"\n### {library} {version(library)}\n\n"
        yield "| estimator | becomes | on rows it never saw, or why |\n|---|---|---|\n"
        for name, outcome in cases:
            yield f"| `{name}` | {outcome.result} | {_said(outcome.why)} |\n"
    yield "\n"


def counts(results: Sequence[str]) -> str:
    """The line above a table."""
    right, refused, wrong = (results.count(each) for each in ("right", "refused", "WRONG"))
    return (
        f"{len(results)} estimators and settings: {right} right, {refused} refused with a reason, "
        f"{wrong} silently wrong."
    )


def rows(text: str, group: str) -> dict[tuple[str, str], list[Row]]:
    """The rows of a group's table on the page, for each library and its version."""
    parts = _HEADING.split(part(text, group))
    return {
        (library, version): [Row(*each) for each in _ROW.findall(lines)]
        for library, version, lines in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def part(text: str, group: str) -> str:
    """What the page has between the marks of a group."""
    begin, end = _marks(group)
    return text.partition(begin)[2].partition(end)[0]


def _marks(group: str) -> tuple[str, str]:
    return f"<!-- table of {group}: written by make {group} ARGS=--write -->", f"<!-- end of {group} -->"


def _said(why: str) -> str:
    lines = why.splitlines()
    said = lines[0] if len(lines) == 1 or not lines[-1].startswith("known: ") else f"{lines[0]}; {lines[-1]}"
    return said.replace("|", r"\|")
