"""A column of booleans into an input of numbers: every kind of file, JSON and the client give 1 and 0."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from penstock.core.tensors import DataType
from penstock.row_files.golden import FILE
from penstock_client import Client
from support import zoo
from support.servers import RunningServer, running_server

if TYPE_CHECKING:
    from conftest import Cli

ROWS = [True, False, True, True, False]
ANSWERS = [1, 0, 1, 1, 0]
NUMBERS = {
    "singles": DataType.FP32, "doubles": DataType.FP64, "halves": DataType.FP16, "brains": DataType.BF16,
    "longs": DataType.INT64, "bytes8": DataType.UINT8,
}  # fmt: skip
FLOATS = ["singles", "doubles", "halves", "brains"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {name: zoo.identity(datatype, ("N", 1)) for name, datatype in NUMBERS.items()}
    return zoo.repository(tmp_path_factory.mktemp("numbers"), {**made, "text": zoo.identity(DataType.BYTES)})


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server(root, "--http", "--http-port", "0") as running:
        yield running


def rest(server: RunningServer, model: str, body: Any) -> Any:
    request = urllib.request.Request(f"{server.http}/predict/{model}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(frame.to_json(orient="records"))
    return found


@pytest.mark.parametrize("model", NUMBERS)
def test_files_as_pandas_writes_them(cli: Cli, server: RunningServer, tmp_path: Path, model: str) -> None:
    frame = pd.DataFrame({"x": ROWS})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        out = tmp_path / f"{name}.out.jsonl"
        ran = cli("score", model, tmp_path / name, "-o", out, "--target", server.target)
        assert (ran.code, ran.err) == (0, "")
        assert [json.loads(line)["y"] for line in out.read_text().splitlines()] == ANSWERS


@pytest.mark.parametrize("model", NUMBERS)
def test_json_and_the_client(server: RunningServer, model: str) -> None:
    frame = pd.DataFrame({"x": ROWS})
    answers = rest(server, model, {"instances": records(frame)})["predictions"]
    assert [each["y"] for each in answers] == ANSWERS
    assert rest(server, model, {"inputs": {"x": ROWS}}) == {"outputs": {"y": [[each] for each in ANSWERS]}}
    assert rest(server, model, {"x": True}) == {"y": 1}
    with Client(server.target) as client:
        for table in (frame, pa.Table.from_pandas(frame), records(frame), {"x": np.array(ROWS)}, {"x": ROWS}):
            assert client.predict(model, table)["y"].ravel().tolist() == ANSWERS


@pytest.mark.parametrize("model", FLOATS)
def test_those_that_are_missing_are_nan(cli: Cli, server: RunningServer, tmp_path: Path, model: str) -> None:
    frame = pd.DataFrame({"x": pd.Series([True, None, False], dtype="boolean")})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        out = tmp_path / f"{name}.out.jsonl"
        assert cli("score", model, tmp_path / name, "-o", out, "--target", server.target).code == 0
        assert [json.loads(line)["y"] for line in out.read_text().splitlines()] == [1, "NaN", 0]
    answers = rest(server, model, {"instances": records(frame)})["predictions"]
    assert [each["y"] for each in answers] == [1, "NaN", 0]
    with Client(server.target) as client:
        assert repr(client.predict(model, frame)["y"].ravel().tolist()) == "[1.0, nan, 0.0]"


@pytest.mark.parametrize(("cell", "answer"), [("True", 1), ("false", 0), (" TRUE ", 1)])
def test_a_value_of_the_command_line(cli: Cli, server: RunningServer, cell: str, answer: int) -> None:
    for model in NUMBERS:
        ran = cli("predict", model, f"x={cell}", "--json", "--target", server.target)
        assert json.loads(ran.out)["outputs"]["y"] == [[answer]], ran.out


@pytest.mark.parametrize("cell", ["yes", "T", "truest", "True1"])
def test_other_words_are_no_numbers(cli: Cli, server: RunningServer, tmp_path: Path, cell: str) -> None:
    (tmp_path / "rows.csv").write_text(f"x\n1\n{cell}\nTrue\n")
    for model in ("singles", "longs"):
        out = tmp_path / f"{model}.csv"
        ran = cli("score", model, tmp_path / "rows.csv", "-o", out, "--target", server.target)
        assert "1 of 3 rows have no answer" in ran.err
        assert f'got \\"{cell}\\"' in Path(f"{out}.rejected.jsonl").read_text()


def test_golden_rows_may_have_them(cli: Cli, root: Path, server: RunningServer, tmp_path: Path) -> None:
    """The answers of JSON lines with booleans are golden rows as they are."""
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"x": {json.dumps(each)}}}\n' for each in ROWS))
    (tmp_path / "models/singles/1").mkdir(parents=True)
    (tmp_path / "models/singles/1/model.onnx").symlink_to(root / "singles/1/model.onnx")
    golden = tmp_path / "models/singles/1" / FILE
    flags = ["--file", tmp_path / "rows.jsonl", "-o", golden, "--target", server.target]
    assert cli("predict", "singles", *flags).code == 0
    with running_server(tmp_path / "models") as running, Client(running.target) as client:
        assert client.model("singles").metadata["penstock.golden"].startswith("5 rows: ")


def test_a_text_is_no_boolean(server: RunningServer) -> None:
    with pytest.raises(urllib.request.HTTPError, match="400"):
        rest(server, "text", {"x": [True, "a", "b"]})
