"""A worker that is ended by a signal for which Python has no name, as most real-time signals are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from processes.conftest import TWO
from processes.kit import children
from server import kit
from support import zoo
from support.servers import running_server

NUMBER = signal.SIGRTMIN + 6


def test_the_other_processes_go_on_and_the_log_has_the_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        signal.Signals(NUMBER)
    with running_server(zoo.repository(tmp_path, {"idle": zoo.identity()}), *TWO) as server:
        worker = children(server.pid)[0]
        os.kill(worker, NUMBER)
        server.wait_for_log('"a process ended unexpectedly"')
        (end,) = [each for each in kit.logged(server) if each["event"] == "a process ended unexpectedly"]
        assert (end["worker_pid"], end["signal"]) == (worker, str(NUMBER))
        server.wait_for_log('"process ready"')
        with kit.connect(server.target) as channel:
            kit.stub_of(channel).Predict(kit.request("idle", x=kit.rows(1)), timeout=kit.BOUND)
