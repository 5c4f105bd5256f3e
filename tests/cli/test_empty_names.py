"""An argument that is empty, as a variable of a shell that is not set leaves it, is told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli

PATHS = {
    "serve": (["serve", ""], "'PATH'"),
    "serve --config": (["serve", "models", "--config", ""], "'--config'"),
    "config --config": (["config", "--config", ""], "'--config'"),
    "models --config": (["models", "--config", ""], "'--config'"),
    "import": (["import", "", "--sample", "rows.csv", "--to", "models/m"], "'SOURCE'"),
    "import --to": (["import", "m.onnx", "--sample", "rows.csv", "--to", ""], "'--to'"),
    "optimize": (["optimize", ""], "'MODEL'"),
    "optimize --sample": (["optimize", "m.onnx", "--sample", ""], "'--sample'"),
    "optimize --to": (["optimize", "m.onnx", "--to", ""], "'--to'"),
    "score --rejected": (["score", "m", "rows.csv", "--rejected", ""], "'--rejected'"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("x\n1\n")
    return tmp_path


@pytest.mark.parametrize("name", PATHS)
def test_paths(cli: Cli, folder: Path, name: str) -> None:
    words, argument = PATHS[name]
    ran = cli(*words)
    assert (ran.code, ran.err.splitlines()[-1]) == (
        2,
        f"Error: Invalid value for {argument}: the name is empty",
    )
    assert [each.name for each in folder.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("outputs", ["", " ", ",", " , "])
def test_outputs_to_score(cli: Cli, folder: Path, outputs: str) -> None:
    """As those of `penstock predict`; no file is written that has no column of the model."""
    ran = cli("score", "m", "rows.csv", "-o", "out.csv", "--outputs", outputs)
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "Error: --outputs is empty")
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize("output", [[], ["-o", "out.csv"]])
def test_rejected_rows_to_standard_output(cli: Cli, folder: Path, output: list[str]) -> None:
    """They would be mixed with those that have an answer, or would be a file with the name -."""
    ran = cli("score", "m", "rows.csv", *output, "--rejected", "-")
    assert (ran.code, ran.err.splitlines()[-1]) == (
        2,
        "Error: --rejected -: rows without an answer need a file, in which a run can go on",
    )
    assert [each.name for each in folder.iterdir()] == ["rows.csv"]
