"""`penstock score`: files in every format, rows to blame, and runs that go on where they ended."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from support import commands, zoo
from support.servers import SCRIPT, RunningServer, running_server

if TYPE_CHECKING:
    from conftest import Cli

SECONDS = 60.0


@pytest.fixture
def score(cli: Cli, server: RunningServer) -> Cli:
    """`penstock score` against the server."""
    return lambda *args: cli("score", *args, "--target", server.target)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(path: Path, count: int, start: int = 0) -> Path:
    path.write_text("id,x\n" + "".join(f"{i},{i % 90}\n" for i in range(start, start + count)))
    return path


def check_scored(path: Path, count: int) -> None:
    """All rows in their order, none lost or twice, each beside its answer."""
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["id"] for row in rows] == [str(i) for i in range(count)]
    assert all(row["y"] == row["x"] for row in rows)


def test_rows_and_those_without_an_answer(score: Cli, tmp_path: Path) -> None:
    file, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    file.write_text('x,z\n1,a\n"many\nlines",b\n200,c\n4\n\n5,e\n,f\n' + "7,g\n" * 600)
    ran = score("below_100", file, "-o", out)
    assert ran.code == 1
    rejected = tmp_path / "out.csv.rejected.jsonl"
    assert ran.err == f"Error: 4 of 606 rows have no answer; their reasons are in {rejected}\n"
    assert out.read_text() == "x,z,y\n1,a,1\n5,e,5\n" + "7,g,7\n" * 600
    said = lines_of(rejected)
    assert [(each["row"], each["line"]) for each in said] == [(2, 3), (3, 5), (4, 6), (6, 9)]
    assert [each["values"].get("z") for each in said] == ["b", "c", "", "f"]
    reasons = [
        "not a whole number",
        "out of data bounds",
        "1 cells, but the header has 2",
        "it is empty, and INT64",
    ]
    for each, why in zip(said, reasons, strict=True):
        assert why in each["error"]
    assert not (tmp_path / "out.csv.checkpoint").exists()


def test_text_formats_and_several_files(score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").write_text("x\tz\n1\ta,b\n2\tc\n")
    assert score("below_100", "a.tsv", "-o", "a.out.tsv").code == 0
    assert Path("a.out.tsv").read_text() == "x\tz\ty\n1\ta,b\t1\n2\tc\t2\n"
    for number in (2, 1):
        with gzip.open(f"part{number}.jsonl.gz", "wt") as file:
            file.write(f'{{"x": {number}}}\n{{"x": {number}0, "z": "ü"}}\n')
    ran = score("below_100", "part*.jsonl.gz", "-o", "-", "--rejected", "r")
    assert (ran.code, ran.err) == (0, "")
    assert [json.loads(line)["y"] for line in ran.out.splitlines()] == [1, 10, 2, 20]
    Path("b.csv").write_text("x,other\n1,2\n")
    Path("c.csv").write_text("x,z\n1,2\n")
    ran = score("below_100", "c.csv", "b.csv", "-o", "o.csv")
    assert (ran.code, "b.csv: it has other columns than c.csv" in ran.err) == (1, True)


def test_an_address(score: Cli, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    numbers(tmp_path / "1.csv", 3)
    numbers(tmp_path / "2.csv", 3, 3)
    out = tmp_path / "out" / "o.csv"
    out.parent.mkdir()
    assert score("below_100", f"file://{tmp_path}/*.csv", "-o", out).code == 0
    check_scored(out, 6)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_with_datatypes(score: Cli, tmp_path: Path, suffix: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    feather = pytest.importorskip("pyarrow.feather")
    vectors = [[float(i), 1.0, 2.0] for i in range(700)]
    vectors[5] = [1.0]
    table = pa.table({
        "id": range(700), "x": pa.array(vectors, pa.list_(pa.float64())),
        "name": pa.array([f"n{i % 3}" for i in range(700)]).dictionary_encode(),
    })  # fmt: skip
    file, out = tmp_path / f"rows.{suffix}", tmp_path / f"out.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, file, row_group_size=300)
    else:
        feather.write_feather(table, file)
    ran = score("triples", file, "-o", out)
    assert "1 of 700 rows have no answer" in ran.err
    (bad,) = lines_of(tmp_path / f"out.{suffix}.rejected.jsonl")
    assert (bad["row"], bad["values"]["x"]) == (6, [1.0])
    read = (pq.read_table(out) if suffix == "parquet" else feather.read_table(out)).to_pydict()
    kept = [i for i in range(700) if i != 5]
    assert read["id"] == kept
    assert read["y"] == [[2 * value for value in vectors[i]] for i in kept]
    assert read["name"][:3] == ["n0", "n1", "n2"]
    assert score("triples", file, "-o", tmp_path / "out.csv").code == 1  # and as text
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == '0,"[0.0, 1.0, 2.0]",n0,0.0,2.0,4.0'


def test_csv_becomes_parquet(score: Cli, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert score("below_100", numbers(tmp_path / "rows.csv", 600), "-o", tmp_path / "out.parquet").code == 0
    read = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert read["y"] == [int(each) for each in read["x"]] == [i % 90 for i in range(600)]


def test_a_model_file_without_a_server(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    model = models / "below_100" / "1" / "model.onnx"
    command = [SCRIPT, "score", "--model", model, numbers(tmp_path / "rows.csv", 500), "-o", out]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    check_scored(out, 500)


@pytest.mark.parametrize("content", ["", "x\n", "x\n\n"])
def test_files_without_rows_are_said(
    score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """It is no failure, as with jq and csvkit: a day without rows must not stop what comes after it."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.csv", "two.csv"):
        Path(name).write_text(content)
    ran = score("below_100", "one.csv", "-o", "out.csv")
    assert (ran.code, ran.err) == (0, "one.csv has no rows, so nothing was scored\n")
    ran = score("below_100", "one.csv", "two.csv", "-o", "both.csv")
    assert (ran.code, ran.err) == (0, "the 2 files have no rows, so nothing was scored\n")


def test_rejected_rows_have_the_cells_of_the_others(
    score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("x,z\n1,007\n200,007\nabc,1\n5\n")
    for out in ("out.jsonl", "out.csv"):
        assert score("below_100", "rows.csv", "-o", out).code == 1
        values = [each["values"] for each in lines_of(Path(f"{out}.rejected.jsonl"))]
        assert values[:2] == [{"x": 200, "z": "007"}, {"x": "abc", "z": "1"}]
    assert lines_of(Path("out.jsonl")) == [{"x": 1, "z": "007", "y": 1}]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("models/below_100", "is the folder of one model: name its file, --model {}/2/model.onnx; or"),
        ("models/below_100/2", "or name the file: --model {}/model.onnx"),
        ("models", "models has 2 models: below_100, more; name the file of one, such as models/"),
        ("nothing", "no model found in nothing"),
    ],
)
def test_a_folder_where_a_model_file_belongs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = zoo.fails_on(100)
    zoo.repository(tmp_path / "models", {"below_100": {1: model, 2: model}, "more": model})
    Path("nothing").mkdir()
    Path("rows.csv").write_text("x\n1\n")
    ran = cli("score", "--model", path, "rows.csv", "-o", "out.csv")
    assert ran.code == 1
    assert why.format(path) in ran.err
    assert "serve the folder above it, /" not in ran.err


def test_a_path_where_the_name_of_a_model_belongs(
    score: Cli, predict: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/tickets").mkdir(parents=True)
    Path("rows.csv").write_text("x\n1\n")
    said = "models/tickets is a path, and what is expected here is the name of a model of the server"
    assert said in score("models/tickets", "rows.csv", "-o", "out.csv").err
    assert said in predict("models/tickets", "x=1").err
    assert "is a path" not in predict("models/others", "x=1").err


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["below_100"], "name a model and a file"),
        (["below_100", "rows.csv", "-o", "o.xlsx"], "o.xlsx: .xlsx cannot be written, only .csv, .tsv, "),
        (["below_100", "rows.csv", "-o", "o.json"], ".parquet, .pq, .arrow, .ipc, .feather; with --format"),
        (["below_100", "nowhere.csv", "-o", "o"], "nowhere.csv: No such file"),
        (["below_100", "no*.csv", "-o", "o"], "no*.csv: no file matches"),
        (["below_100", ".", "-o", "o"], "Is a directory; for all files in it: '*'"),
        (
            ["below_100", "rows.csv"],
            "without --output, name a file for rows without an answer: --rejected FILE",
        ),
        (["below_100", "rows.csv", "-o", "rows.csv"], "one of the input files"),
        (["below_100", "rows.csv", "-o", "s3://bucket/o.csv"], "the output is a file of this machine"),
        (
            ["below_100", "rows.csv", "-o", "full.csv"],
            "full.csv exists, and no checkpoint beside it says how to go on; --restart",
        ),
        (["below_100", "rows.csv", "-o", "o.csv", "--outputs", "w"], 'unknown output "w"; outputs: y'),
        (["triples", "rows.csv", "-o", "o.csv"], 'columns "x.0" to "x.2"'),
        (["nothing", "rows.csv", "-o", "o.csv"], "nothing"),
        (["below_100", "rows.csv", "-o", "gone/o.csv"], "gone/o.csv: there is no folder gone\n"),
        (
            ["below_100", "rows.csv", "-o", "o.csv.gz"],
            "the output is not compressed, so that a run can go on in it: name it o.csv\n",
        ),
    ],
)
def test_what_cannot_be_run(
    score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("z\n1\n" if args[0] == "triples" else "x\n1\n")
    Path("full.csv").write_text("x,y\n1,1\n")
    ran = score(*args)
    assert ran.code != 0
    assert why in ran.err
    assert Path("full.csv").read_text() == "x,y\n1,1\n"


def test_a_run_whose_input_has_to_change_is_not_said_to_go_on(score: Cli, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("x\n" + "7\n" * 600)
    (tmp_path / "2.csv").write_text("y\n1\n")
    out = tmp_path / "out.csv"
    ran = score("below_100", tmp_path / "2.csv", "-o", out)
    said = 'no column for input "x" INT64[N,1]; the columns are: "y"'
    assert (ran.code, ran.err) == (1, f"Error: {tmp_path / '2.csv'}: {said}\n")
    pytest.importorskip("fsspec")  # what a file at an address has is known when it is reached
    ran = score("below_100", tmp_path / "1.csv", f"file://{tmp_path}/2.csv", "-o", out)
    assert ran.code == 1
    first, second = ran.err.splitlines()
    assert first.endswith("2.csv: it has other columns than " + str(tmp_path / "1.csv"))
    assert second in ("600 rows are done", "512 rows are done", "256 rows are done")


def begin(target: str, *args: str | Path) -> subprocess.Popen[str]:
    return commands.popen(
        [SCRIPT, "score", *map(str, args), "--target", target],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def rows_in(checkpoint: Path) -> int:
    return int(json.loads(checkpoint.read_text())["rows"]) if checkpoint.exists() else 0


ROWS = 60_000


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_row_is_lost_or_twice_when_a_run_is_killed(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, end: signal.Signals
) -> None:
    if suffix == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
    rows, out = numbers(tmp_path / "rows.csv", ROWS), tmp_path / f"out.{suffix}"
    text = rows.read_text().replace("\n12345,", "\nbad12345,x").replace("\n50000,", "\nbad50000,x")
    rows.write_text(text)
    checkpoint = tmp_path / f"out.{suffix}.checkpoint"
    command = ("below_100", rows, "-o", out, "--checkpoint-seconds", "0.05")
    first = begin(server.target, *command)
    wait_for(lambda: rows_in(checkpoint) > 0 or first.poll() is not None)
    first.send_signal(end)
    _, err = first.communicate(timeout=SECONDS)
    assert first.returncode == (-9 if end is signal.SIGKILL else 130)
    done = rows_in(checkpoint)
    if end is signal.SIGINT:
        assert err == f"{done:,} rows are done; the same command goes on from there\n"
    assert 0 < done < ROWS
    second = begin(server.target, *command)
    _, err = second.communicate(timeout=SECONDS)
    assert err.splitlines()[0] == f"going on after {done:,} rows that are done"
    assert f"2 of {ROWS:,} rows have no answer" in err
    if suffix == "parquet":
        ids = pq.read_table(out).column("id").to_pylist()
    else:
        ids = [line.partition(",")[0] for line in out.read_text().splitlines()[1:]]
    assert ids == [str(i) for i in range(ROWS) if i not in (12345, 50000)]
    assert [each["row"] for each in lines_of(tmp_path / f"out.{suffix}.rejected.jsonl")] == [12346, 50001]
    assert not checkpoint.exists()


def test_another_run_does_not_go_on_from_a_checkpoint(score: Cli, tmp_path: Path) -> None:
    rows, out = numbers(tmp_path / "rows.csv", 5), tmp_path / "out.csv"
    checkpoint = tmp_path / "out.csv.checkpoint"
    job = {"model": "below_100", "input": [["other.csv", "1 2"]], "format": "csv", "outputs": ["y"]}
    checkpoint.write_text(json.dumps({"format": 1, "job": job, "rows": 2, "output": 10, "version": "1"}))
    ran = score("below_100", rows, "-o", out)
    assert ran.code == 1
    assert f"is of another run: input (other.csv then, {rows} now), " in ran.err
    checkpoint.write_text("{")
    assert "is not a checkpoint of this version; --restart" in score("below_100", rows, "-o", out).err
    assert score("below_100", rows, "-o", out, "--restart").code == 0
    check_scored(out, 5)


def test_a_restart_of_the_server_is_waited_for(tmp_path: Path) -> None:
    models = tmp_path / "models"
    zoo.repository(models, {"below_100": zoo.fails_on(100)})
    rows, out = numbers(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with running_server(models, "--port", port, exit_code=None) as one:
        run = begin(one.target, "below_100", rows, "-o", out)
        wait_for(lambda: out.exists() and out.stat().st_size > 20_000)
        one.process.kill()
        one.process.wait(SECONDS)
    time.sleep(0.3)
    assert run.poll() is None
    with running_server(models, "--port", port):
        _, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 0
    assert err.splitlines()[0].startswith("waiting for the server: ")
    assert err.splitlines()[-1] == "the server answers again"
    check_scored(out, ROWS)


def test_a_server_that_stays_away_ends_the_run(cli: Cli, tmp_path: Path, models: Path) -> None:
    rows, out = numbers(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv"
    with running_server(models / "below_100" / "1" / "model.onnx", exit_code=None) as one:
        run = begin(one.target, "model", rows, "-o", out, "--patience", "0.2")
        wait_for(lambda: out.exists() and out.stat().st_size > 20_000)
        os.kill(one.pid, signal.SIGKILL)
        _, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 1
    done = rows_in(tmp_path / "out.csv.checkpoint")
    assert f"{done:,} rows are done; the same command goes on from there" in err
    assert 0 < done < ROWS


@pytest.mark.parametrize("cut", [-12, 30])
def test_a_compressed_file_that_ends_early(score: Cli, tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(b"x\n" + b"".join(b"%d\n" % (i % 90) for i in range(20_000)))
    (tmp_path / "rows.csv.gz").write_bytes(packed[:cut])
    ran = score("below_100", tmp_path / "rows.csv.gz", "-o", tmp_path / "out.csv")
    assert ran.code == 1
    assert "rows.csv.gz: the compressed data ends early: the file is not complete" in ran.err
    assert "Aborted" not in ran.err


def test_rows_of_csv_scored_to_json_lines_can_be_scored_again(
    score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("id,x,name\n007,1,5\n008,2.0,six\n")
    assert score("below_100", "rows.csv", "-o", "once.jsonl").code == 0
    assert [json.loads(line) for line in Path("once.jsonl").read_text().splitlines()] == [
        {"id": "007", "x": 1, "name": "5", "y": 1},
        {"id": "008", "x": 2, "name": "six", "y": 2},
    ]
    assert score("below_100", "once.jsonl", "-o", "twice.jsonl").code == 0
    assert json.loads(Path("twice.jsonl").read_text().splitlines()[1])["y_answer"] == 2


def test_lists_in_cells_of_csv_are_json_that_everybody_reads(
    score: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text('x\n"[1, NaN, 1e400]"\n')
    assert score("triples", "rows.csv", "-o", "once.jsonl").code == 0
    (line,) = Path("once.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["x"] == [1, None, "Infinity"]  # orjson, as most parsers, takes no bare NaN
    assert score("triples", "once.jsonl", "-o", "twice.jsonl").code == 0
    again = orjson.loads(Path("twice.jsonl").read_bytes())
    assert again["y_answer"] == again["y"] == [2.0, "NaN", "Infinity"]
