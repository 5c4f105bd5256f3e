"""`penstock predict` as a process: its pipes, its signals, its terminal."""

from __future__ import annotations

import array
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from penstock.cli.predict import streaming
from penstock.cli.predict.streaming import MOST_WAITING, OrderedWriter
from penstock.row_files.readers import CsvReader, Row
from penstock.scoring.writers import CsvWriter
from penstock_client import Prediction, Timing
from support import commands
from support.forked import ForkedProcess
from support.servers import SCRIPT, RunningServer

SECONDS = 30.0

Start = Callable[..., Any]


@pytest.fixture
def start(server: RunningServer) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `penstock predict` with pipes, and ends what is left at the end."""
    started = []

    def run(*args: str | Path, **pipes: Any) -> subprocess.Popen[str]:
        command = [SCRIPT, "predict", *map(str, args), "--target", server.target]
        all_pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = commands.popen(command, text=True, encoding="utf-8", **{**all_pipes, **pipes})
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def send(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def many_rows(path: Path, count: int = 300_000) -> Path:
    path.write_text("x\n" + "1\n" * count)
    return path


def bytes_in(pipe: IO[str]) -> int:
    """How much has been written to a pipe and not been read."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def is_stuck(pipe: IO[str]) -> bool:
    """Whether a pipe takes no more. Its pages are not always full, so it may hold half of its 64 KiB."""
    before = bytes_in(pipe)
    time.sleep(0.2)
    return before > 25_000 and bytes_in(pipe) == before


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("fresh", [True, False])
def test_standard_input_is_answered_as_it_comes(start: Start, fresh: bool) -> None:
    process = start("below_100", "--file", "-", fresh=fresh)
    assert isinstance(process, ForkedProcess) == (not fresh and sys.platform == "linux")
    send(process, "x\n5\n")
    assert [process.stdout.readline() for _ in range(2)] == ["x,y,error\n", "5,5,\n"]
    send(process, "bad\n")
    assert process.stdout.readline().startswith("bad,,")
    send(process, "6\n")
    assert process.stdout.readline() == "6,6,\n"
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (1, "")
    assert err == 'Error: 1 of 3 rows failed; see their column "error"\n'


def test_standard_input_may_be_json(start: Start) -> None:
    process = start("below_100", "--file", "-", "--output", "-")
    out, err = process.communicate('{"x": 5, "z": "ü"}\n', timeout=SECONDS)
    assert (process.returncode, json.loads(out), err) == (0, {"x": 5, "z": "ü", "y": 5}, "")


def test_standard_input_may_have_tabs(start: Start) -> None:
    process = start("below_100", "--file", "-", "--output", "-")
    out, err = process.communicate("x\tz\n5\ta, b\n", timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "x\tz\ty\terror\n5\ta, b\t5\t\n", "")


@pytest.mark.parametrize("text", ['[{"x": 5}]\n', '[\n  {"x": 5},\n  {"x": 6}\n]\n', "[ [1], [2]]\n"])
def test_a_json_list_is_said_to_be_one(start: Start, text: str) -> None:
    process = start("below_100", "--file", "-", "--output", "-")
    out, err = process.communicate(text, timeout=SECONDS)
    assert (process.returncode, out) == (1, "")
    assert err == "Error: standard input: it is a JSON list; JSON Lines have an object on every line\n"


@pytest.mark.alone
def test_the_input_is_read_no_faster_than_it_is_answered(start: Start) -> None:
    process = start("slow", "--file", "-", stdout=subprocess.DEVNULL)
    pipe = process.stdin.fileno()
    os.set_blocking(pipe, False)
    row = b"1,%s\n" % (b"." * 10_000)
    left, written, until = b"x,padding\n", 0, time.monotonic() + 3
    while time.monotonic() < until and written < 50_000_000:
        if select.select([], [pipe], [], 0.1)[1]:
            sent = os.write(pipe, left)
            written += sent
            left = left[sent:] or row
    assert process.poll() is None
    # What is in flight and what a pipe holds; and each row takes at least about 20 ms.
    assert 100_000 < written < 256 * len(row) + 1_000_000 + 3 * 100 * len(row)


def test_rows_that_fail_do_not_pile_up_behind_one_that_is_not_answered() -> None:
    out = io.StringIO()
    rows = CsvReader(1, "x\n", [])
    line = OrderedWriter(CsvWriter(out, rows, [], []), out.flush, fail_fast=False)
    line.sent(Row(2, ["x"], ["1"]), {})
    taken = 0

    def refuse() -> None:
        nonlocal taken
        for taken in range(1, 3 * MOST_WAITING):
            line.refused(Row(taken, ["x"], [str(taken)]), "bad")

    refusing = threading.Thread(target=refuse)
    refusing.start()
    wait_until(lambda: taken == MOST_WAITING)
    refusing.join(0.1)
    assert refusing.is_alive()
    assert (taken, line.rows) == (MOST_WAITING, 0)
    line.answered(Prediction("m", "1", "", {}, Timing(0, 0, 1)))
    refusing.join(SECONDS)
    assert (line.rows, line.failed) == (3 * MOST_WAITING, 3 * MOST_WAITING - 1)
    assert out.getvalue().splitlines()[:3] == ["x,error", "1,", "1,bad"]


def test_finished_rows_are_flushed_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else nothing of a slow model's answers would show until the buffer of the output is full."""
    monkeypatch.setattr(streaming, "_FLUSH_SECONDS", 0.0)
    out, flushed = io.StringIO(), []
    writer = CsvWriter(out, CsvReader(1, "x\n", []), [], [])
    line = OrderedWriter(writer, lambda: flushed.append(out.getvalue()), fail_fast=False)
    for number in range(3):
        line.sent(Row(number, ["x"], [str(number)]), {})
    for _ in range(2):
        line.answered(Prediction("m", "1", "", {}, Timing(0, 0, 1)))
    assert flushed == ["x,error\n0,\n", "x,error\n0,\n1,\n"]


@pytest.mark.parametrize("attempt", range(3))
def test_ctrl_c_ends_a_file_quietly_with_whole_rows(start: Start, tmp_path: Path, attempt: int) -> None:
    out = tmp_path / "out.csv"
    process = start("below_100", "--file", many_rows(tmp_path / "rows.csv"), "-o", out)
    wait_until(lambda: out.exists() and out.stat().st_size > attempt * 50_000)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 130
    header, *rows = out.read_text().splitlines(keepends=True)
    assert header == "x,y,error\n"
    assert set(rows) <= {"1,1,\n"}


@pytest.mark.parametrize("fresh", [True, False])
def test_ctrl_c_while_waiting_for_input(start: Start, fresh: bool) -> None:
    process = start("below_100", "--file", "-", fresh=fresh)
    send(process, "x\n5\n")
    assert [process.stdout.readline() for _ in range(2)] == ["x,y,error\n", "5,5,\n"]
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    assert process.stderr.read() == ""


def test_ctrl_c_while_nobody_reads(start: Start, tmp_path: Path) -> None:
    process = start("below_100", "--file", many_rows(tmp_path / "rows.csv"))
    assert process.stdout.readline() == "x,y,error\n"
    wait_until(lambda: is_stuck(process.stdout))
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    assert process.stderr.read() == ""


def test_ctrl_c_while_the_server_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [SCRIPT, "predict", "m", "x=1", "--target", target],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(100)  # the client has said hello and waits for an answer
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=SECONDS) == (b"", b"")
    assert process.returncode == 130


def test_a_reader_that_leaves(start: Start, tmp_path: Path) -> None:
    process = start("below_100", "--file", many_rows(tmp_path / "rows.csv"))
    assert process.stdout.readline() == "x,y,error\n"
    process.stdout.close()
    assert process.wait(SECONDS) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_nobody_reads_a_single_answer(start: Start, flags: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("below_100", "x=1", *flags, stdout=write)
    os.close(write)
    assert process.wait(SECONDS) != 0
    assert process.stderr.read() == ""


def test_no_bar_without_a_terminal(start: Start, tmp_path: Path) -> None:
    process = start("below_100", "--file", many_rows(tmp_path / "rows.csv", 10), "-o", tmp_path / "out.csv")
    assert process.communicate(timeout=SECONDS) == ("", "")


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal's end for a process, and what reads all that was written once the process has ended."""
    ours, theirs = pty.openpty()

    def text() -> str:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], SECONDS)[0]:
            try:
                more = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not more:
                break
            seen += more
        return seen.decode()

    try:
        yield theirs, text
    finally:
        os.close(ours)


def test_a_bar_on_a_terminal(start: Start, tmp_path: Path) -> None:
    rows, out = many_rows(tmp_path / "rows.csv", 2_345), tmp_path / "out.csv"
    with terminal() as (end, text):
        process = start("below_100", "--file", rows, "-o", out, stderr=end)
        assert process.wait(SECONDS) == 0
        seen = text()
    assert re.search(r"━+.* 2,345 rows", seen)
    assert process.stdout.read() == ""
    assert out.read_text().count("\n") == 2_346


def test_no_bar_among_the_rows_on_the_same_terminal(start: Start, tmp_path: Path) -> None:
    with terminal() as (end, text):
        process = start("below_100", "--file", many_rows(tmp_path / "rows.csv", 2), stdout=end, stderr=end)
        assert process.wait(SECONDS) == 0
        assert text().splitlines() == ["x,y,error", "1,1,", "1,1,"]
