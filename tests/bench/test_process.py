"""`penstock bench` as a process: Ctrl-C, the terminal, and what becomes of its load processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pty
import re
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from penstock_bench.fleet import Fleet
from penstock_bench.pacing import Load
from penstock_bench.tally import Tally
from support import commands
from support.oip_server import OipServer
from support.servers import SCRIPT

SECONDS = 60.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(oip: OipServer) -> Iterator[Start]:
    """Starts `penstock bench` against the server, in a process group as a terminal would."""
    started = []

    def run(*args: object, **pipes: Any) -> subprocess.Popen[str]:
        command = [SCRIPT, "bench", "echo", "--target", oip.target, "--warmup", "0", *map(str, args)]
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = commands.popen(
            command, text=True, encoding="utf-8", start_new_session=True, **{**both, **pipes}
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started, as Linux lists them."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("this system does not list a process's children")
    return [int(each) for each in path.read_text().split()]


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_ctrl_c_prints_what_was_measured(start: Start, oip: OipServer, mode: str) -> None:
    flags = ("--concurrency", "2,4", "--duration", 100, "--processes", 2, "--mode", mode, "--json")
    process = start(*flags, fresh=mode == "stream")
    wait_until(lambda: len(oip.requests) > 100)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    said = json.loads(out)
    assert said["interrupted"]
    assert 0 < said["interrupted_after_seconds"] < 100
    assert said["levels_not_run"] == [4]
    [level] = said["levels"]
    assert level["interrupted"]
    assert 0 < level["seconds"] < 100
    assert level["answered"] > 50
    assert level["failed"] == 0


def test_no_report_is_lost_if_ctrl_c_comes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = multiprocessing.Pipe()
    received = Fleet._received

    def interrupted(fleet: Fleet, connection: Any) -> Any:
        report = received(fleet, connection)
        os.kill(os.getpid(), signal.SIGINT)
        return report

    monkeypatch.setattr(Fleet, "_received", interrupted)
    fleet = Fleet.__new__(Fleet)
    fleet._members = [(cast(Any, None), ours)]
    sending = threading.Thread(target=theirs.send, args=(Tally(ok=3),))  # it is too large for a pipe
    sending.start()
    measured = fleet.run(Load(concurrency=1), lambda _: None)
    assert (measured.tally.ok, measured.interrupted) == (3, True)
    sending.join()
    theirs.close()
    ours.close()


def test_ctrl_c_does_not_wait_for_a_server_that_is_silent(start: Start, oip: OipServer) -> None:
    oip.stall_at, oip.stall_seconds = 20, 10
    process = start("--concurrency", 2, "--duration", 100)
    wait_until(lambda: len(oip.requests) >= 20)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert "2 requests were unanswered at the end" in out
    assert time.monotonic() - began < 10  # it did not wait for the server


def test_ctrl_c_in_the_warm_up_leaves_no_row_of_zeros(start: Start, oip: OipServer) -> None:
    process = start("--concurrency", "2,4", "--duration", 100, "--warmup", 100)
    wait_until(lambda: len(oip.requests) > 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    *_, last = out.splitlines()
    assert re.fullmatch(r"interrupted after [0-9.]+ s; not measured: 2 in flight, 4 in flight", last)
    assert "requests/s" not in out


def test_a_level_ends_although_the_rate_is_low(start: Start, oip: OipServer) -> None:
    process = start("--rate", 0.01, "--duration", 1000)
    wait_until(lambda: len(oip.requests) >= 2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "0.01" in out


@pytest.mark.parametrize("arrivals", [[], ["--poisson"]])
def test_a_rate_beyond_everything_ends_in_time(start: Start, arrivals: list[str]) -> None:
    flags = ["--rate", 1e9, "--duration", 0.3, "--max-in-flight", 100, "--json", *arrivals]
    process = start(*flags, "--warmup", 0.5)  # the last one counts
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    [level] = json.loads(out)["levels"]
    assert level["seconds"] == pytest.approx(0.3)
    assert 0 < level["requests"] < 100_000
    assert level["requests"] + level["unsent"] == pytest.approx(3e8, rel=0.01)


def test_a_rate_so_low_that_nothing_more_is_due(start: Start, oip: OipServer) -> None:
    out, _ = start("--rate", 0.001, "--duration", 0.3, "--json").communicate(timeout=SECONDS)
    [level] = json.loads(out)["levels"]
    assert (level["requests"], level["unsent"], len(oip.requests)) == (1, 0, 2)


def test_a_load_process_that_dies(start: Start, oip: OipServer) -> None:
    process = start("--concurrency", 2, "--duration", 100, "--processes", 2)
    wait_until(lambda: len(oip.requests) > 10)
    workers = [pid for pid in children(process.pid) if b"spawn_main" in cmdline(pid)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (1, "")
    assert err == "Error: a load process died with exit code -9\n"
    wait_until(lambda: not cmdline(workers[1]))


def test_load_processes_end_when_nobody_wants_their_figures(start: Start, oip: OipServer) -> None:
    process = start("--concurrency", 2, "--duration", 100)
    wait_until(lambda: len(oip.requests) > 10)
    workers = children(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(cmdline(pid) for pid in workers))


def cmdline(pid: int) -> bytes:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_progress_on_a_terminal_only(start: Start) -> None:
    ours, theirs = pty.openpty()
    process = start("--rate", 100, "--duration", 2, stderr=theirs)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], SECONDS)[0]:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
    os.close(ours)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "100 requests/s" in seen.decode()
    assert "unanswered" in seen.decode()
    assert "\x1b" not in out


@pytest.mark.parametrize("levels", [("--concurrency", "1,1000"), ("--rate", "2000,100000")])
def test_everything_fits_in_a_terminal_of_80_columns(start: Start, levels: tuple[str, str]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    plain = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    # Enough for each level, and time for a slow machine: every request is to be answered.
    sent = ("--requests", 1000, "--rows", 1000, "--timeout", SECONDS)
    process = start(*levels, *sent, stdout=theirs, env=plain)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], SECONDS)[0]:
        try:
            seen += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert process.wait(SECONDS) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in seen.decode()
    words = " ".join(lines).split()
    assert {"requests/s", "p99.9", "max", "errors", "rows/s", "queue", "compute", "batch", "CPU"} <= set(
        words
    )


def test_a_reader_that_leaves(start: Start) -> None:
    process = start("--requests", 10, "--concurrency", 1, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(SECONDS) in (141, 1)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stdout = open(os.devnull)  # noqa: SIM115 - for the fixture to close
