"""Whole numbers beyond 2**53, such as ids: FP64 has only some of them, and none is rounded in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from support.servers import RunningServer

if TYPE_CHECKING:
    from conftest import Cli

ID = 2**53 + 1
EXACT = 2**53 + 2
WHY = "FP64 does not have this whole number, only 9007199254740992 near it"


@pytest.fixture(params=[1, 300])
def more(request: pytest.FixtureRequest) -> int:
    """How many ordinary rows follow: many are read a column at a time."""
    count: int = request.param
    return count


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, more: int) -> Path:
    rows = [{"x": ID, "id": ID}, {"x": EXACT, "id": ID}, *[{"x": n, "id": ID} for n in range(more)]]
    if path.suffix == ".csv":
        path.write_text("x,id\n" + "".join(f"{row['x']},{row['id']}\n" for row in rows))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("out_name", ["out.csv", "out.jsonl"])
def test_an_id_is_refused_or_kept(
    cli: Cli, server: RunningServer, tmp_path: Path, name: str, out_name: str, more: int
) -> None:
    rows, out = written(tmp_path / name, more), tmp_path / out_name
    ran = cli("score", "doubles", rows, "-o", out, "--target", server.target)
    assert ran.code == 1
    [rejected] = lines_of(tmp_path / f"{out_name}.rejected.jsonl")
    assert WHY in rejected["error"]
    assert rejected["row"] == 1
    assert int(rejected["values"]["x"]) == ID
    text = out.read_text()
    assert "9007199254740993.0" not in text
    assert text.count(str(ID)) == more + 1, "columns that the model does not take are kept"
    if out_name == "out.jsonl":
        first, *others = lines_of(out)
        assert (first["x"], first["y"]) == (EXACT, EXACT)
        assert [each["y"] for each in others] == list(range(more))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_what_failed_keeps_the_id(predict: Cli, tmp_path: Path, name: str, more: int) -> None:
    ran = predict("doubles", "--file", written(tmp_path / name, more), "--format", "jsonl")
    assert ran.code == 1
    failed, *others = [json.loads(line) for line in ran.out.splitlines()]
    assert failed["x"] == ID
    assert WHY in failed["error"]
    assert not any("error" in each for each in others)


def test_a_narrower_input_is_rounded_as_ever(predict: Cli, tmp_path: Path) -> None:
    """FP32 and smaller round most numbers; what is written beside the answer is what came."""
    rows = tmp_path / "rows.csv"
    rows.write_text(f"x.0,x.1,x.2\n{ID},16777217,1.5\n")
    ran = predict("triples", "--file", rows, "--format", "jsonl")
    row = json.loads(ran.out)
    assert (ran.code, row["x.0"], row["x.1"]) == (0, ID, 16777217)
    assert np.float32(row["y"]).tolist() == [2.0**54, 2.0**25, 3.0]
