"""The tables of docs/importing.md are about the cases that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from importing import page
from importing.groups import GROUPS
from importing.outcomes import Outcome
from importing.test_importing import KNOWN_LOST, REFUSED

ROOT = Path(__file__).parents[2]
TEXT = page.PAGE.read_text(encoding="utf-8")
LISTS = {
    "importing": ROOT / "requirements/import.txt",
    "importing-torch": ROOT / "requirements/import-torch.in",
    "importing-keras": ROOT / "requirements/import-keras.in",
}
"""Where the releases of each group are pinned."""


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_has_a_row_for_each_case(group: str) -> None:
    shown = {library: [row.name for row in rows] for (library, _), rows in page.rows(TEXT, group).items()}
    cases = {library: [case.name for case in each.cases] for library, each in GROUPS[group].items()}
    assert shown == cases, f"make {group} ARGS=--write"


@pytest.mark.parametrize("group", GROUPS)
def test_names_of_cases_are_different(group: str) -> None:
    for library in GROUPS[group].values():
        names = [each.name for each in library.cases]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_counts_its_rows(group: str) -> None:
    results = [row.result for rows in page.rows(TEXT, group).values() for row in rows]
    assert set(results) <= {"right", "refused"}
    assert page.counts(results) in page.part(TEXT, group)


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_is_about_the_releases_that_are_pinned(group: str) -> None:
    text = LISTS[group].read_text(encoding="utf-8")
    for library, version in page.rows(TEXT, group):
        name = re.escape(GROUPS[group][library].distribution)
        pins = re.findall(rf"^{name}(?:-cpu)?==(\S+)", text, re.MULTILINE)
        assert version in pins, f"{library}: make {group} ARGS=--write"


def test_the_page_says_what_the_tests_find() -> None:
    rows = {row.name: row.result for rows in page.rows(TEXT, "importing").values() for row in rows}
    found = {**dict.fromkeys(KNOWN_LOST, "right"), **dict.fromkeys(REFUSED, "refused")}
    assert {name: rows[name] for name in found} == found


def test_a_table_is_written_between_its_marks() -> None:
    found = {"Keras": [("Dense(4)", Outcome("right", "400 fresh rows, largest 1e-07"))]}
    made = "".join(page.table(found, lambda library: "3.0"))
    text = page.replaced(TEXT, "importing-keras", made)
    assert page.rows(text, "importing-keras") == {
        ("Keras", "3.0"): [page.Row("Dense(4)", "right", "400 fresh rows, largest 1e-07")]
    }
    assert page.rows(text, "importing") == page.rows(TEXT, "importing")
    with pytest.raises(ValueError, match="does not have one"):
        page.replaced("nothing", "importing", made)
