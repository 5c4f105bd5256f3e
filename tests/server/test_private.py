"""A server writes no file that it was not asked for, and connects to no other machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server import kit
from support.servers import SCRIPT, running_server

FOLDERS = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
)
SWITCHES = ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "GITHUB_ACTIONS")
"""Variables that keep ONNX Runtime from reporting to its maker."""

ADDRESS = re.compile(r"AF_INET6?.*?(?:inet_addr\(\"|inet_pton\(AF_INET6, \")([^\"]+)\"")
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.|::$|0\.0\.0\.0$")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders where programs put their files unasked; nothing switches reports off."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def files(folder: Path) -> list[str]:
    return [str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_file_is_left_behind(folders: Path, processes: str) -> None:
    with running_server(kit.EXAMPLES, "--processes", processes):
        pass
    assert files(folders) == []


def test_what_was_learned_is_kept_where_caches_belong(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CACHE__FOLDER")
    with running_server(kit.EXAMPLES):
        pass
    found = files(folders)
    assert found
    assert all(each.startswith("XDG_CACHE_HOME/penstock/") for each in found)


def test_nothing_is_kept_where_that_is_switched_off(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CACHE__FOLDER")
    with running_server(kit.EXAMPLES, env={"PENSTOCK_CACHE__ENABLED": "false"}):
        pass
    assert files(folders) == []


def test_a_home_that_cannot_be_written_is_not_complained_about(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by libraries; the server itself says once that what it learned is not kept."""
    monkeypatch.delenv("PENSTOCK_CACHE__FOLDER")
    for name in FOLDERS:
        monkeypatch.setenv(name, "/dev/null/folder")
    with running_server(kit.EXAMPLES) as server:
        pass
    assert [line for line in server.stderr if "event" not in json.loads(line)] == []
    assert sum("is not kept for the next start" in each["event"] for each in kit.logged(server)) == 1


def test_no_other_machine_is_asked(folders: Path) -> None:
    """Name servers included."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not here")
    trace = folders / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not watch processes here")
    serve = [str(SCRIPT), "serve", str(kit.EXAMPLES), "--port", "0", "--ops-port", "0"]
    with subprocess.Popen([*command, *serve], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "Try it" not in process.stdout.readline():
            assert process.poll() is None
        [server] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(server), signal.SIGTERM)
        assert process.wait(kit.BOUND) == 0
    seen = trace.read_text(errors="replace")
    assert "127.0.0.1" in seen, "the server's own test of its transport should be in the trace"
    assert [each for each in ADDRESS.findall(seen) if not LOOPBACK.match(each)] == []


@pytest.mark.parametrize(("value", "kept"), [(None, "1"), ("0", "0"), ("1", "1")])
def test_reports_are_off_unless_the_operator_has_decided(
    monkeypatch: pytest.MonkeyPatch, value: str | None, kept: str
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if value is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    code = "import os, penstock.backends; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"{kept}\n"
