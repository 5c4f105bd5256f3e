"""`penstock check`: a server or a file against expected outputs."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock.core.tensors import DataType
from support import zoo
from support.servers import RunningServer

if TYPE_CHECKING:
    from conftest import Cli

LEADS = """\
id,lead_source,number_of_courses_viewed,annual_income
7,paid_ads,2,79276
8,organic,5,120000.5
"""
AGREE = "2 rows: no labels differ, largest 0\n"


class Files:
    """Rows of the bundled model, and what it gives for them."""

    def __init__(self, folder: Path, predict: Cli) -> None:
        self.rows, self.expected, self.golden = (
            folder / name for name in ("leads.csv", "y.csv", "golden.jsonl")
        )
        self.rows.write_text(LEADS)
        for path in (self.expected, self.golden):
            assert predict("lead_scoring", "--file", self.rows, "--output", path).code == 0

    @property
    def flags(self) -> tuple[str | Path, ...]:
        return ("--rows", self.rows, "--expect", self.expected)


@pytest.fixture
def files(tmp_path: Path, predict: Cli) -> Files:
    return Files(tmp_path, predict)


@pytest.fixture
def model(models: Path) -> Path:
    return models / "lead_scoring" / "1" / "model.onnx"


def test_a_server_and_a_file_agree_with_what_they_gave(
    files: Files, cli: Cli, server: RunningServer, model: Path
) -> None:
    target = ("--target", server.target)
    assert cli("check", "lead_scoring", *files.flags, *target) == (0, AGREE, "")
    assert cli("check", "lead_scoring", "--golden", files.golden, *target) == (0, AGREE, "")
    for path in (model, model.parent, model.parent.parent):
        assert cli("check", f"{path}", *files.flags) == (0, AGREE, "")


def test_the_worst_row_is_shown(files: Files, cli: Cli, server: RunningServer, model: Path) -> None:
    lines = files.golden.read_text().splitlines()
    changed = json.loads(lines[1])
    changed["probabilities"][0] += 0.25
    changed["label"] = 1 - changed["label"]
    files.golden.write_text("\n".join([lines[0], json.dumps(changed)]))
    for where in (["lead_scoring", "--target", server.target], [str(model)]):
        code, out, err = cli("check", *where, "--golden", files.golden)
        assert (code, err) == (1, "")
        assert out.startswith(
            "2 rows: 1 label differs, 1 beyond the tolerance of 0.0001, largest 0.25, worst row 2\n"
        )
        assert "  row 2  label: expected " in out
        assert out.endswith("  rows that differ: 2\n")
    code, out, _ = cli("check", model, "--golden", files.golden, "--tolerance", "0.3")
    assert (code, out.partition("\n")[0]) == (1, "2 rows: 1 label differs, largest 0.25, worst row 2")


def test_a_text_that_differs_is_shown(tmp_path: Path, cli: Cli, server: RunningServer, models: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"x": "a", "y": "a"}\n{"x": "é", "y": "other"}\n')
    for where in (["text", "--target", server.target], [str(models / "text")]):
        code, out, err = cli("check", *where, "--golden", golden)
        assert (code, err) == (1, "")
        assert "  row 2  y: expected ['other'], got ['é']\n" in out


def test_a_text_label_that_differs_is_shown(tmp_path: Path, cli: Cli) -> None:
    folder = zoo.repository(tmp_path, {"label": zoo.identity(DataType.BYTES, ("N",))}) / "label"
    (folder / "1/golden.jsonl").write_text('{"x": "a", "y": "a"}\n{"x": "é", "y": "other"}\n')
    code, out, err = cli("check", folder)
    assert (code, err) == (1, "")
    assert "  row 2  y: expected other, got é\n" in out


def test_golden_rows_beside_a_version_are_the_default(tmp_path: Path, cli: Cli) -> None:
    folder = zoo.repository(tmp_path, {"double": zoo.scale(2)}) / "double"
    assert "there is no" in cli("check", folder).err
    (folder / "1/golden.jsonl").write_text(
        '{"golden": {"tolerance": 0.5}}\n{"x": [1, 2, 3], "y": [2, 4, 6.1]}\n'
    )
    assert cli("check", folder).out == "1 row: largest 0.016\n"
    assert cli("check", folder, "--tolerance", "0").code == 1


def test_files_of_different_lengths(files: Files, cli: Cli, model: Path) -> None:
    files.rows.write_text(LEADS + "9,organic,1,5\n")
    assert f"{files.expected} has 2 rows, the other file has more" in cli("check", model, *files.flags).err


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_that_would_be_compared_with_nothing(
    files: Files, cli: Cli, model: Path, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"y.{kind}"
    text = "label,lable,id\n1,1,7\n" if kind == "csv" else '{"label": 1, "lable": 1, "id": 7}\n'
    path.write_text(text)
    ran = cli("check", model, "--rows", files.rows, "--expect", path)
    assert ran.code == 1
    assert f'{path}: "lable": neither an output nor a column of the rows; the outputs are: ' in ran.err
    assert '"label"' not in ran.err
    path.write_text(text.replace("lable", ""))  # as pandas names an index without a name
    assert '""' not in cli("check", model, "--rows", files.rows, "--expect", path).err


def test_a_compressed_file_is_told_as_such(
    files: Files, cli: Cli, predict: Cli, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "y.csv.gz"
    path.write_bytes(gzip.compress(files.expected.read_bytes()))
    for flags in (("--rows", files.rows, "--expect", path), ("--rows", path, "--expect", files.expected)):
        assert f"{path} is compressed: unpack it first" in cli("check", model, *flags).err
    ran = predict("lead_scoring", "--file", path)
    assert f"{path} is compressed: unpack it, or use penstock score" in ran.err


def test_rows_that_another_program_writes(files: Files, cli: Cli, model: Path) -> None:
    read, write = os.pipe()
    with open(write, "w") as pipe:
        pipe.write(LEADS)
    try:
        ran = cli("check", model, "--rows", f"/dev/fd/{read}", "--expect", files.expected)
    finally:
        os.close(read)
    assert ran == (0, AGREE, "")


def test_an_expected_output_that_the_model_lacks(files: Files, cli: Cli, model: Path) -> None:
    files.expected.write_text("score\n1\n2\n")
    ran = cli("check", model, *files.flags)
    assert ran.code == 1
    assert (
        'no column is an output: label INT64[N], probabilities FP32[N,2]; the names are: "score"' in ran.err
    )


@pytest.mark.parametrize("flags", [["--rows"], ["--expect"], []])
def test_flags_that_name_no_pairs(files: Files, cli: Cli, model: Path, flags: list[str]) -> None:
    given = [each for flag in flags for each in (flag, files.rows)]
    ran = cli("check", model, *given)
    assert ran.code == 2
    assert "--rows and --expect" in ran.err


def test_a_missing_text_is_named(cli: Cli, models: Path) -> None:
    golden = models / "text/missing.jsonl"
    golden.write_text('{"x": null, "y": "a"}\n')
    said = (
        'input x BYTES[N,1]: it is not of this datatype; null is no text: "" stands for an empty or missing'
    )
    assert said in cli("check", models / "text", "--golden", golden).err


def test_a_model_on_a_server_without_rows(cli: Cli) -> None:
    ran = cli("check", "lead_scoring")
    assert ran.code == 2
    assert "a server keeps its golden rows to itself: give --golden with a .jsonl file" in ran.err


def test_a_path_without_a_model(cli: Cli, tmp_path: Path) -> None:
    ran = cli("check", tmp_path)
    assert ran.code == 2
    assert "there is no model: neither an .onnx file nor a folder with model.onnx" in ran.err
