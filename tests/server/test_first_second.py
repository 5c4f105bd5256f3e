"""Signals and progress before a server serves."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from server import kit
from server.test_startup import FREE_PORTS
from support import zoo
from support.servers import SCRIPT, START_SECONDS, RunningServer

SLOW = 3000.0  # milliseconds of a run; loading takes several
CAUGHT = "SigCgt:"


@pytest.fixture(autouse=True)
def _models_are_tried_in_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TRIAL__ENABLED", "true")


def test_nothing_is_imported_before_signals_are_heard() -> None:
    code = """if True:
        import sys
        sys.argv = ["penstock", "serve"]
        before = set(sys.modules)
        from penstock.cli import _end_on_signals
        _end_on_signals()
        import signal
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        print(*sorted({each.partition(".")[0] for each in set(sys.modules) - before}))
        """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= {"penstock", "signal", "enum", "types", "operator", "_operator"} | set(
        sys.stdlib_module_names
    )
    assert not {"click", "socket", "threading"} & set(run.stdout.split())


@pytest.mark.parametrize("signals", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_first_moment(tmp_path: Path, signals: signal.Signals) -> None:
    """As soon as the process has a handler for it, as process 1 of a container needs one."""
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    server = RunningServer(path, fresh=True)
    try:
        kit.wait_until(lambda: is_caught(server.pid, signal.SIGTERM), "there is a handler")
        assert server.stop(signals) == 0
        assert server.stdout == ""
        assert [line for line in server.stderr if "serving" in line or "Traceback" in line] == []
    finally:
        server.close()


def is_caught(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next((line.removeprefix(CAUGHT) for line in lines if line.startswith(CAUGHT)), "0")
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_process_1_of_a_container_ends(tmp_path: Path) -> None:
    """There, the kernel drops a signal that has no handler."""
    space = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], check=False).returncode:
        pytest.skip("no process can be made process 1 here: that takes unshare, and root")
    path = zoo.repository(tmp_path, {"slow": zoo.slow(SLOW)})
    with subprocess.Popen(
        [*space, str(SCRIPT), "serve", str(path), *FREE_PORTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        kit.wait_until(lambda: bool(children.read_text().split()), "it is forked")
        inner = int(children.read_text())
        kit.wait_until(lambda: is_caught(inner, signal.SIGTERM), "there is a handler")
        os.kill(inner, signal.SIGTERM)
        assert process.wait(kit.BOUND) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""


@pytest.mark.parametrize("signals", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_loads(tmp_path: Path, signals: signal.Signals) -> None:
    """The server does not wait for the load, does not say that it serves, and nothing is lost."""
    server = RunningServer(zoo.repository(tmp_path, {"slow": zoo.slow(SLOW)}), fresh=True)
    try:
        assert '"model": "slow", "version": 1' in server.wait_for_log('"loading"', START_SECONDS)
        assert server.stop(signals) == 0
        events = [each["event"] for each in kit.logged(server)]
        assert events == ["loading", "stopped before the server was ready"]
        assert server.stdout == ""
    finally:
        server.close()


@pytest.mark.parametrize("signals", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_workers_load(tmp_path: Path, signals: signal.Signals) -> None:
    server = RunningServer(zoo.repository(tmp_path, {"slow": zoo.slow(SLOW)}), "--processes", "2", fresh=True)
    try:
        server.wait_for_log('"loading"', START_SECONDS)
        assert server.stop(signals) == 0
        events = {each["event"] for each in kit.logged(server)}
        assert events == {"loading", "stopping", "process ended", "stopped"}
        assert kit.problems(server) == []
        assert server.stdout == ""
    finally:
        server.close()


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    """A line that is drawn again and again, below the log; at the end, the cursor is shown again."""
    path = zoo.repository(tmp_path, {"a": zoo.identity(), "slow": zoo.slow(SLOW)})
    controller, terminal = pty.openpty()
    serve = [str(SCRIPT), "serve", str(path), *FREE_PORTS]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    seen = bytearray()
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=terminal, env=environ) as process:
        os.close(terminal)
        reader = threading.Thread(target=read_all, args=(controller, seen))
        reader.start()
        kit.wait_until(lambda: b"loading slow version 1 (2 of 2)" in seen, "it is drawn")
        process.send_signal(signal.SIGTERM)
        assert process.wait(kit.BOUND) == 0
        reader.join()
    os.close(controller)
    assert b"model ready" in seen  # of the first
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") >= 0


def read_all(controller: int, seen: bytearray) -> None:
    while True:
        try:
            data = os.read(controller, 4096)
        except OSError:  # the last process that had the terminal has ended
            return
        if not data:
            return
        seen += data
        time.sleep(0.001)


def test_a_pipe_has_log_lines_only(tmp_path: Path) -> None:
    server = RunningServer(zoo.repository(tmp_path, {"a": zoo.identity(), "b": zoo.identity()}), fresh=True)
    try:
        server.wait_until_ready()
        assert server.stop() == 0
        events = [each["event"] for each in kit.logged(server)]
        assert events[:4] == ["loading", "model ready", "loading", "model ready"]
    finally:
        server.close()


def test_the_processors_are_shown(tmp_path: Path) -> None:
    """And why they are not all that the machine has."""
    path = zoo.repository(tmp_path, {"a": zoo.identity()})
    one = min(os.sched_getaffinity(0))
    serve = ["taskset", "-c", str(one), str(SCRIPT), "serve", str(path), *FREE_PORTS]
    if shutil.which("taskset") is None or (os.cpu_count() or 1) == 1:
        pytest.skip("a process cannot be kept from a processor here")
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("processors"))
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert line == f"processors  1 of {os.cpu_count()}: CPU affinity\n"
