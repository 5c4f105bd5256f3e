"""`penstock score`: rows that are scored again, and files that do not belong together, told at once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli
    from support.servers import RunningServer


@pytest.fixture
def score(cli: Cli, server: RunningServer) -> Cli:
    """`penstock score` against the server."""
    return lambda *args: cli("score", *args, "--target", server.target)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_whose_timeout_passed_are_scored_again(score: Cli) -> None:
    """As docs/scoring.md says: they are rejected like others, and `values` has what they were."""
    Path("rows.csv").write_text("id,x\n007,1\n008,2\n")
    ran = score("slow", "rows.csv", "-o", "o.csv", "--timeout", "0.005")
    assert (ran.code, "2 of 2 rows have no answer" in ran.err) == (1, True), ran.err
    rejected = [json.loads(line) for line in Path("o.csv.rejected.jsonl").read_text().splitlines()]
    Path("again.jsonl").write_text("".join(json.dumps(each["values"]) + "\n" for each in rejected))
    ran = score("slow", "again.jsonl", "-o", "again.csv")
    assert (ran.code, ran.err) == (0, "")
    assert Path("again.csv").read_text() == "id,x,y\n007,1.0,1.0\n008,2.0,2.0\n"


@pytest.mark.parametrize("header", ["x,other", "x,z,w", "x"])
def test_other_columns_are_told_at_once(score: Cli, folder: Path, header: str) -> None:
    """And not when that file is reached, perhaps after an hour."""
    Path("1.csv").write_text("x,z\n" + "1,2\n" * 3000)
    Path("2.csv").write_text("x,z\n1,2\n")
    Path("3.csv").write_text(f"{header}\n1,2\n")
    before = sorted(folder.iterdir())
    ran = score("below_100", "1.csv", "2.csv", "3.csv", "-o", "o.csv")
    assert (ran.code, ran.err) == (1, "Error: 3.csv: it has other columns than 1.csv\n")
    assert sorted(folder.iterdir()) == before


def test_another_format_is_told_at_once(score: Cli, folder: Path) -> None:
    Path("1.csv").write_text("x\n1\n")
    with gzip.open("2.jsonl.gz", "wt") as file:
        file.write('{"x": 1}\n')
    before = sorted(folder.iterdir())
    ran = score("below_100", "1.csv", "2.jsonl.gz", "-o", "o.csv")
    assert (ran.code, ran.err) == (1, "Error: 2.jsonl.gz: it is jsonl, and 1.csv is csv\n")
    assert sorted(folder.iterdir()) == before
