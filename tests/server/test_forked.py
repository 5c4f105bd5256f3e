"""Servers that tests fork, beside those that the console script starts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server import kit
from support import zoo
from support.forked import ForkedProcess
from support.servers import RunningServer, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no server is forked here")
PORT = re.compile(r"127\.0\.0\.1:\d+")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_both_say_and_log_the_same(processes: str, tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    seen = []
    for fresh in (True, False):
        with running_server(path, "--processes", processes, fresh=fresh) as server:
            assert isinstance(server.process, subprocess.Popen if fresh else ForkedProcess)
        events = [json.loads(line) for line in server.stderr]
        seen.append((PORT.sub("", server.stdout), sorted(each["event"] for each in events)))
    assert seen[0] == seen[1]


def test_it_ends_as_a_child_process_does(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with running_server(path, exit_code=-signal.SIGKILL) as server:
        assert server.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.01)
        server.process.kill()
        assert server.process.wait(kit.BOUND) == server.process.wait() == -signal.SIGKILL
        server.process.terminate()  # there is nothing left to end


def test_one_that_does_not_start() -> None:
    server = RunningServer("nowhere")
    assert server.wait() == 1
    assert server.stderr == ["Error: there is no file or folder nowhere"]
    server.close()


def test_it_has_the_variables_and_the_folder_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    monkeypatch.chdir(tmp_path)
    with running_server("models", env={"PENSTOCK_LOG__LEVEL": "error"}) as server:
        assert "identity" in server.stdout
    assert server.stderr == []


def test_variables_that_libraries_read_take_a_new_process(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with running_server(path, env={"OMP_NUM_THREADS": "1"}) as server:
        assert isinstance(server.process, subprocess.Popen)
