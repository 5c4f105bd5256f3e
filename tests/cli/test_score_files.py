"""`penstock score`: one model in one output, whose files they are, and runs that ended at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import commands, zoo
from support.servers import SCRIPT, RunningServer, running_server

if TYPE_CHECKING:
    from conftest import Cli

SECONDS = 60.0
ROWS = 400_000


@pytest.fixture
def score(cli: Cli, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`penstock score` against the server, in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("score", *args, "--target", server.target)


def numbers(path: Path, count: int) -> Path:
    path.write_text("id,x\n" + "".join(f"{i},{i % 90}\n" for i in range(count)))
    return path


def begin(*args: str | Path, **options: Any) -> subprocess.Popen[str]:
    return commands.popen(
        [SCRIPT, "score", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def rows_in(checkpoint: Path) -> int:
    return int(json.loads(checkpoint.read_text())["rows"]) if checkpoint.exists() else 0


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# One model


def test_a_model_file_that_was_replaced_does_not_go_on(tmp_path: Path) -> None:
    model = zoo.write(zoo.fails_on(100), tmp_path / "model.onnx")
    out, before = tmp_path / "out.csv", sha256(model)
    command = ("--model", model, numbers(tmp_path / "rows.csv", ROWS), "-o", out)
    run = begin(*command, "--checkpoint-seconds", "0.05")
    wait_for(lambda: rows_in(tmp_path / "out.csv.checkpoint") > 0 or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=SECONDS)
    kept = out.read_text()
    zoo.write(zoo.fails_on(101), model)
    again = begin(*command)
    _, err = again.communicate(timeout=SECONDS)
    assert again.returncode == 1
    assert f"SHA-256 {before} then, {sha256(model)} now" in err
    assert out.read_text() == kept
    zoo.write(zoo.fails_on(100), model)
    again = begin(*command)
    assert (again.communicate(timeout=SECONDS)[1].splitlines()[0][:11], again.returncode) == (
        "going on af",
        0,
    )


@pytest.mark.parametrize("waits", [True, False])
def test_a_server_that_comes_back_with_another_model_ends_the_run(tmp_path: Path, waits: bool) -> None:
    """Whether a request waits for the server, or none is under way while it is replaced."""
    models, out = tmp_path / "models", tmp_path / "out.csv"
    zoo.repository(models, {"below_100": zoo.fails_on(100)})
    file = models / "below_100" / "1" / "model.onnx"
    before = sha256(file)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    rows = numbers(tmp_path / "rows.csv", ROWS)
    target = ("--target", f"127.0.0.1:{port}", "--checkpoint-seconds", "0.05")
    with running_server(models, "--port", port, exit_code=None) as one:
        if waits:
            run = begin("below_100", rows, "-o", out, *target)
            wait_for(lambda: rows_in(tmp_path / "out.csv.checkpoint") > 0)
        else:
            run = begin(
                "below_100", "-", "-o", "-", "--rejected", "r", *target, stdin=subprocess.PIPE, cwd=tmp_path
            )
            assert run.stdin is not None
            assert run.stdout is not None
            run.stdin.write("x\n1\n")
            run.stdin.flush()
            assert [run.stdout.readline() for _ in range(2)] == ["x,y\n", "1,1\n"]
        one.process.kill()
        one.process.wait(SECONDS)
    zoo.write(zoo.fails_on(101), file)
    with running_server(models, "--port", port):
        _, err = run.communicate(None if waits else "2\n", timeout=SECONDS)
    assert run.returncode == 1
    assert f"SHA-256 {before} then, {sha256(file)} now" in err


def test_another_version_or_file_for_rejected_rows_is_another_run(
    score: Cli, server: RunningServer, tmp_path: Path
) -> None:
    command = ("below_100", numbers(tmp_path / "rows.csv", ROWS), "-o", "o.csv")
    run = begin(*command, "--rejected", "r", "--checkpoint-seconds", "0.05", "--target", server.target,
                cwd=tmp_path)  # fmt: skip
    wait_for(lambda: rows_in(Path("o.csv.checkpoint")) > 0 or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=SECONDS)
    Path("mine").write_text("precious\n")
    err = score(*command, "--rejected", "mine", "--version", "1").err
    assert "rejected ('r' then, 'mine' now)" in err
    assert "version ('' then, '1' now)" in err
    assert Path("mine").read_text() == "precious\n"


# Whose files


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["in.csv", "-o", "out.csv", "--rejected", "in.csv"], "--rejected in.csv is one of the input files"),
        (["in.csv", "-o", "out.csv", "--rejected", "./out.csv"], "--rejected out.csv is the output as well"),
        (["in.csv", "-o", "out.csv", "--rejected", "out.csv.checkpoint"], "is the checkpoint as well"),
        (["in.csv", "-o", "out.csv", "--rejected", "notes.txt"], "notes.txt exists, and no run of penstock"),
        (["in.csv", "-o", "out.csv", "--rejected", "notes.txt", "--restart"], "notes.txt exists, and no run"),
        (["in.csv", "-o", "full.parquet.parts"], "full.parquet.parts is a folder; name a file to write"),
        (
            ["in.csv", "-o", "out.csv", "--rejected", "bad.csv"],
            "--rejected bad.csv: rows without an answer are",
        ),
        (["in.csv", "-o", ""], "the name of --output is empty"),
        (["", "-o", "out.csv"], "the name of a FILE is empty"),
        (["in.csv", "-o", "."], ". is a folder; name a file to write"),
        (["in.csv", "-o", "-", "--rejected", "notes.txt"], "notes.txt exists, and no run of penstock"),
        (
            ["o.rejected.jsonl", "-o", "o"],
            "o.rejected.jsonl, for rows without an answer, is one of the input",
        ),
        (
            ["o.checkpoint", "-o", "o", "--format", "csv", "--input-format", "csv"],
            "is one of the input files",
        ),
        (["in.csv", "-o", "full.parquet"], "mine.txt, which no run of penstock score made"),
        (["in.csv", "-o", "full.parquet", "--restart"], "mine.txt, which no run of penstock score made"),
        (["in.csv", "-o", "alike.parquet"], "00000000.arrows, which no run of penstock score made"),
    ],
)
def test_what_a_run_did_not_make_is_kept(score: Cli, tmp_path: Path, args: list[str], why: str) -> None:
    if "parquet" in args[2]:
        pytest.importorskip("pyarrow")
    for name in ("in.csv", "o.checkpoint"):
        Path(name).write_text("x\n1\n200\n")
    Path("o.rejected.jsonl").write_text('{"x": 1}\n')
    Path("notes.txt").write_text("precious\n")
    for name in ("full.parquet.parts/mine.txt", "alike.parquet.parts/00000000.arrows"):
        Path(name).parent.mkdir()
        Path(name).write_text("precious\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ran = score("below_100", *args)
    assert ran.code in (1, 2)
    assert why in ran.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_rejected_rows_of_an_earlier_run_are_replaced_on_demand(score: Cli) -> None:
    Path("in.csv").write_text("x\n1\n200\n")
    assert score("below_100", "in.csv", "-o", "out.csv").code == 1
    Path("out.csv").unlink()
    ran = score("below_100", "in.csv", "-o", "out.csv")
    assert "out.csv.rejected.jsonl exists, of another run; --restart replaces it" in ran.err
    Path("in.csv").write_text("x\n1\n")
    assert score("below_100", "in.csv", "-o", "out.csv", "--restart").code == 0
    assert not Path("out.csv.rejected.jsonl").exists()


# One run at a time


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_two_runs_do_not_write_one_output(
    score: Cli, server: RunningServer, tmp_path: Path, suffix: str
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = f"out.{suffix}"
    command = ("below_100", numbers(tmp_path / "rows.csv", ROWS), "-o", out)
    first = begin(*command, "--target", server.target, cwd=tmp_path)
    wait_for(lambda: Path(f"{out}.checkpoint").exists() or first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    try:
        for more in ([], ["--restart"], ["-o", "other.csv", "--rejected", f"{out}.rejected.jsonl"]):
            ran = score(*command, *more)
            assert (ran.code, "another run of penstock score is writing it" in ran.err) == (1, True)
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=SECONDS) == ("", "")
    assert first.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["rows.csv", out, f"{out}.done"])


def test_a_lock_that_a_killed_run_left_is_taken(score: Cli, tmp_path: Path) -> None:
    Path("out.csv.lock").touch()
    with open("other.csv.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        rows = numbers(tmp_path / "rows.csv", 3)
        assert score("below_100", rows, "-o", "out.csv").code == 0
        assert "other.csv: another run of penstock" in score("below_100", rows, "-o", "other.csv").err


# Files without a header


@pytest.mark.parametrize("blank", ["", "\n\n"])
def test_files_without_anything_are_passed_over(score: Cli, tmp_path: Path, blank: str) -> None:
    """As jobs leave them where a part has no rows. They stopped the run halfway, or before its start."""
    for name in ("0.csv", "2.csv", "4.csv"):
        Path(name).write_text(blank)
    Path("1.csv").write_text("x,z\n1,a\n")
    Path("3.csv").write_text("x,z\n300,b\n3,c\n")
    for names in (("0.csv", "1.csv", "2.csv", "3.csv", "4.csv"), ("0.csv", "2.csv", "1.csv", "3.csv")):
        ran = score("below_100", *names, "-o", "out.csv", "--restart")
        assert (ran.code, "1 of 3 rows have no answer" in ran.err) == (1, True)
        assert Path("out.csv").read_text() == "x,z,y\n1,a,1\n3,c,3\n"
        (rejected,) = map(json.loads, Path("out.csv.rejected.jsonl").read_text().splitlines())
        assert (rejected["row"], rejected["file"], rejected["values"]) == (2, "3.csv", {"x": 300, "z": "b"})
    Path("5.csv").write_text("x\n1\n")
    ran = score("below_100", "0.csv", "1.csv", "5.csv", "-o", "other.csv")
    assert (ran.code, "5.csv: it has other columns than 1.csv" in ran.err) == (1, True)


# The earlier output


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["typo", "in.csv"], "typo"),
        (["below_100", "other.csv"], 'no column for input "x"'),
        (["below_100", "in.csv", "other.csv"], "other.csv: it has other columns than in.csv"),
        (["below_100", "rejected.csv", "broken.csv"], "broken.csv"),
    ],
)
def test_a_restart_keeps_the_output_until_there_is_another(
    score: Cli, tmp_path: Path, args: list[str], why: str
) -> None:
    Path("in.csv").write_text("x\n" + "1\n" * 1000)
    Path("other.csv").write_text("z\n1\n")
    Path("rejected.csv").write_text("x\n200\n")
    Path("broken.csv").write_text('"x\n')
    Path("keep.csv").write_text("GOOD\n")
    ran = score(*args, "-o", "keep.csv", "--restart")
    assert (ran.code, why in ran.err) == (1, True)
    assert Path("keep.csv").read_text() == "GOOD\n"


# Any moment


def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on(
    score: Cli, server: RunningServer, tmp_path: Path
) -> None:
    command = ("below_100", numbers(tmp_path / "rows.csv", ROWS), "-o", "out.csv")
    first = begin(*command, "--target", server.target, "--checkpoint-seconds", "1000", cwd=tmp_path)
    out = Path("out.csv")
    wait_for(lambda: (out.exists() and out.stat().st_size > 0) or first.poll() is not None)
    first.kill()
    first.communicate(timeout=SECONDS)
    assert score(*command).code == 0
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == [str(i) for i in range(ROWS)]


def test_a_full_disk_is_told_with_the_rows_that_are_kept(score: Cli, tmp_path: Path, models: Path) -> None:
    model = models / "below_100" / "1" / "model.onnx"
    command = ("--model", model, numbers(tmp_path / "rows.csv", 5000), "-o", "out.csv")
    # Files of 8 KiB at most, which is reported like a full disk.
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", SCRIPT, "score", *map(str, command)]
    ran = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    done = rows_in(Path("out.csv.checkpoint"))
    assert ran.returncode == 1
    assert f"File too large\n{done:,} rows are done; the same command goes on" in ran.stderr
    again = begin(*command, cwd=tmp_path)
    assert (again.communicate(timeout=SECONDS)[0], again.returncode) == ("", 0)
    ids = [line.split(",")[0] for line in Path("out.csv").read_text().splitlines()[1:]]
    assert ids == [str(i) for i in range(5000)]


def test_an_error_before_the_first_row_leaves_nothing_behind(score: Cli, tmp_path: Path) -> None:
    Path("rows.csv").write_text("z\n1\n")
    assert score("below_100", "rows.csv", "-o", "out.csv").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("value", ["1", "200"])
def test_a_finished_run_is_known_as_such(score: Cli, value: str) -> None:
    Path("rows.csv").write_text(f"x\n1\n{value}\n")
    first = score("below_100", "rows.csv", "-o", "out.csv")
    written = Path("out.csv").read_text()
    again = score("below_100", "rows.csv", "-o", "out.csv")
    assert again.code == first.code == int(value == "200")
    rows = "1 row is in out.csv and 1 in out.csv.rejected.jsonl" if first.code else "2 rows are in out.csv"
    assert again.err == f"already done: {rows}; --restart begins again\n{first.err}"
    # A run that was killed between the two has its record, and its checkpoint still.
    Path("out.csv.checkpoint").write_bytes(Path("out.csv.done").read_bytes())
    assert score("below_100", "rows.csv", "-o", "out.csv").err == again.err
    assert not Path("out.csv.checkpoint").exists()
    Path("out.csv").write_text("changed\n")
    assert "out.csv exists, and has been changed since" in score("below_100", "rows.csv", "-o", "out.csv").err
    Path("out.csv").unlink()
    Path("out.csv.rejected.jsonl").unlink(missing_ok=True)
    assert score("below_100", "rows.csv", "-o", "out.csv").code == first.code
    assert Path("out.csv").read_text() == written


def test_an_output_of_another_finished_run_is_told_as_such(score: Cli) -> None:
    Path("rows.csv").write_text("x\n1\n2\n")
    assert score("below_100", "rows.csv", "-o", "out.csv").code == 0
    Path("rows.csv").write_text("x\n1\n2\n3\n")
    ran = score("below_100", "rows.csv", "-o", "out.csv")
    assert ran.code == 1
    assert "out.csv exists, of a finished run that is another one: rows.csv changed in between; --" in ran.err
    assert score("below_100", "rows.csv", "-o", "out.csv", "--restart").code == 0


# Nothing to write


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("count", [0, 2])
def test_no_row_with_an_answer_is_a_file_without_rows(score: Cli, suffix: str, count: int) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    feather = pytest.importorskip("pyarrow.feather")
    names = pa.array(["n"] * count, pa.string()).dictionary_encode()
    vectors = pa.array([[1.0]] * count, pa.list_(pa.float64()))
    pq.write_table(pa.table({"x": vectors, "name": names}), "rows.parquet")
    ran = score("triples", "rows.parquet", "-o", f"out.{suffix}")
    assert ran.code == (1 if count else 0)
    assert ("2 of 2 rows have no answer" in ran.err) == bool(count)
    pq.write_table(pa.table({"x": [[1.0, 2.0, 3.0]], "name": ["n"]}), "full.parquet")
    assert score("triples", "full.parquet", "-o", f"full.{suffix}x", "--format", suffix).code == 0
    read = pq.read_table if suffix == "parquet" else feather.read_table
    empty = read(f"out.{suffix}")
    assert empty.num_rows == 0
    assert empty.schema.field("y").type == read(f"full.{suffix}x").schema.field("y").type
    assert (empty.schema.field("name").type, empty.schema.names) == (pa.string(), ["x", "name", "y"])


# Messages


def test_values_of_a_column_are_shown_as_values(score: Cli) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": [0.5, 1.0]}), "rows.parquet")
    score("below_100", "rows.parquet", "-o", "out.csv")
    (said,) = [json.loads(line) for line in Path("out.csv.rejected.jsonl").read_text().splitlines()]
    assert "[0.5]" in said["error"]
    assert "pyarrow" not in said["error"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("größe,id\n1,2\n".encode("latin-1"), 'the header is not UTF-8; the columns are: "gr��e", "id"'),
        ("id,x\n1,2\n".encode("utf-16"), "rows.csv: it is UTF-16, not UTF-8"),
        (b"\xfe\xff" + "id,x\n1,2\n".encode("utf-16-be"), "rows.csv: it is UTF-16, not UTF-8"),
    ],
)
def test_a_header_that_is_not_utf_8(score: Cli, content: bytes, why: str) -> None:
    Path("rows.csv").write_bytes(content)
    ran = score("below_100", "rows.csv", "-o", "out.csv")
    assert (ran.code, why in ran.err, "udc" in ran.err) == (1, True, False)


def test_cells_that_are_not_utf_8(score: Cli) -> None:
    """Text keeps them byte by byte; Parquet cannot hold them."""
    Path("rows.csv").write_bytes("x,t\n1,a\n2,é\n3,b\n".encode("latin-1"))
    assert score("below_100", "rows.csv", "-o", "out.csv").code == 0
    assert Path("out.csv").read_bytes() == "x,t,y\n1,a,1\n2,é,2\n3,b,3\n".encode("latin-1")
    pq = pytest.importorskip("pyarrow.parquet")
    assert "1 of 3 rows have no answer" in score("below_100", "rows.csv", "-o", "out.parquet").err
    assert pq.read_table("out.parquet").to_pydict() == {"x": ["1", "3"], "t": ["a", "b"], "y": [1, 3]}
    assert "it is not UTF-8" in Path("out.parquet.rejected.jsonl").read_text()
    Path("rows.csv").write_bytes("x,größe\n1,a\n".encode("latin-1"))
    assert score("below_100", "rows.csv", "-o", "o.csv").code == 0
    assert "the header is not UTF-8" in score("below_100", "rows.csv", "-o", "o.parquet").err
