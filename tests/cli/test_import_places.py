"""Where `penstock import` and `penstock optimize` are told to write: places that a server would serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import onnx
import pytest

from penstock.cli import import_model
from penstock.cli.arguments import ModelFolder
from penstock.core.tensors import DataType
from support import zoo

if TYPE_CHECKING:
    from conftest import Cli

REPORT = {
    "title": "an ONNX model", "inputs": ["x"], "outputs": ["y"], "classes": [], "by_position": [],
    "ignored": [], "sample": "1 row", "hard": "", "ties": 0, "largest": 0.0, "not_compared": {},
    "example": {"x": 1.0}, "example_row": 1, "expected": {"y": 1.0}, "golden": 1,
}  # fmt: skip


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that an import would do; none is done."""
    jobs: list[Any] = []

    def run(job: Any) -> dict[str, Any]:
        jobs.append(job)
        return REPORT

    monkeypatch.setattr(import_model, "_run", run)
    return jobs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("x\n1\n")
    Path("file").touch()
    onnx.save(zoo.identity(DataType.FP32, ("N", 1)), "m.onnx")
    (tmp_path / "models/leads/2").mkdir(parents=True)
    return tmp_path


PLACES = {
    "models/leads/2": "2 is the name of a version, and this is the folder of its model, such as models/leads",
    "models/leads/9": "9 is the name of a version, and this is the folder of its model, such as models/leads",
    "3": "3 is the name of a version, and this is the folder of its model, such as models/leads",
    "models/.hid": "servers pass over names that begin with a dot",
    "file": "file is no folder",
    "file/leads": "file is no folder",
    "models/" + 300 * "m": "it cannot be written: File name too long",
    "/proc/leads": "it cannot be written: No such file or directory",
}


@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_served(cli: Cli, folder: Path, work: list[Any], place: str) -> None:
    """Told before the work."""
    before = sorted(folder.rglob("*"))
    ran = cli("import", "m.onnx", "--sample", "rows.csv", "--to", place)
    assert (ran.code, ran.out, work) == (2, "", [])
    assert ran.err.splitlines()[-1].startswith(f"Error: Invalid value for '--to': {place}: {PLACES[place]}")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("place", [each for each in PLACES if "written" not in PLACES[each]])
def test_optimize_takes_no_other(cli: Cli, folder: Path, place: str) -> None:
    """What cannot be written is found later there."""
    ran = cli("optimize", "m.onnx", "--to", place)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"Error: Invalid value for '--to': {place}: {PLACES[place]}")


def test_the_root_has_no_name() -> None:
    """Not by a command, which would write there."""
    with pytest.raises(click.BadParameter, match="/: it has no name"):
        ModelFolder().convert("/", None, None)


@pytest.mark.parametrize("place", ["models/leads", "models/leads/", "models/new", "models/2024", "."])
def test_places_that_can(cli: Cli, folder: Path, work: list[Any], place: str) -> None:
    """A model may be called by a number, where versions are in its folder."""
    (folder / "models/2024/1").mkdir(parents=True)
    (folder / "models/2024/1/model.onnx").touch()
    ran = cli("import", "m.onnx", "--sample", "rows.csv", "--to", place)
    assert (ran.code, len(work)) == (0, 1), ran.err


def test_a_folder_of_its_own(cli: Cli, folder: Path, work: list[Any]) -> None:
    """The folder that one is in has a name, too, and the lines to copy have it."""
    ran = cli("import", "m.onnx", "--sample", "rows.csv", "--to", ".")
    assert f"/predict/{folder.name} " in ran.out
    assert f"penstock serve {folder.parent}\n" in ran.out


def test_a_name_that_an_address_cannot_hold(cli: Cli, work: list[Any]) -> None:
    ran = cli("import", "m.onnx", "--sample", "rows.csv", "--to", "models/my modèle?")
    assert "  curl -s http://127.0.0.1:8000/predict/my%20mod%C3%A8le%3F -d" in ran.out
    assert '"model": "my modèle?"' in ran.out
