"""A model can end a process with a signal: what is said, and that the others go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from processes.conftest import TWO
from processes.kit import children
from server import kit
from server.conftest import ALONE
from support import zoo
from support.servers import START_SECONDS, RunningServer, running_server

FATAL = "Fatal Python error: Segmentation fault"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # Long runs: between two of them, a process runs nothing.
    path = zoo.repository(tmp_path, {"slow": zoo.slow(300), "idle": zoo.identity()})
    (path / "slow" / "model.toml").write_text(ALONE)
    return path


def logged(server: RunningServer, event: str) -> list[dict]:
    return [each for each in kit.logged(server) if each["event"] == event]


def test_a_worker_that_a_signal_ends_is_logged_with_the_models_that_it_ran(path: Path) -> None:
    with running_server(path, *TWO) as server, kit.connect(server.target) as channel:
        stub, request = kit.stub_of(channel), kit.request("slow", x=kit.rows(1, width=1))
        futures = [stub.Predict.future(request, timeout=kit.BOUND) for _ in range(500)]
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "one of them works")
        workers = children(server.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSEGV)
        kit.wait_until(
            lambda: len(logged(server, "a process ended unexpectedly")) == 2, "both ends are logged"
        )
        ends = logged(server, "a process ended unexpectedly")
        assert {each["worker_pid"] for each in ends} == set(workers)
        assert {each["signal"] for each in ends} == {"SIGSEGV"}
        assert sorted(each.get("running", []) for each in ends) == [[], ["slow version 1"]]
        kit.wait_until(lambda: len(logged(server, "process ready")) == 2, "others have taken their places")
        for future in futures:
            future.cancel()
        with kit.connect(server.target) as other:
            kit.stub_of(other).Predict(kit.request("idle", x=kit.rows(1)), timeout=kit.BOUND)
    assert any(FATAL in line for line in server.stderr)


def test_a_worker_that_ends_while_it_loads_is_told_with_the_model(tmp_path: Path) -> None:
    server = RunningServer(zoo.repository(tmp_path, {"slow": zoo.slow(3000)}), *TWO)
    try:
        loading = json.loads(server.wait_for_log('"loading"', START_SECONDS))
        os.kill(loading["pid"], signal.SIGKILL)
        number = loading["process"]
        why = f"process {number} ended before it was ready while it loaded slow version 1"
        server.wait_for_log(f"Error: {why} (signal SIGKILL)")
        assert server.wait() == 1
    finally:
        server.close()


def test_a_worker_that_is_asked_to_end_while_it_loads_is_replaced(tmp_path: Path) -> None:
    """At once, and the start goes on."""
    server = RunningServer(zoo.repository(tmp_path, {"identity": zoo.identity()}), *TWO)
    try:
        kit.wait_until(lambda: len(children(server.pid)) == 2, "they are started")
        first = children(server.pid)[0]
        os.kill(first, signal.SIGTERM)
        server.wait_until_ready()
        ends = logged(server, "a process ended unexpectedly")
        assert [(each["worker_pid"], each.get("exit_code")) for each in ends] == [(first, 0)]
        assert server.stop() == 0
    finally:
        server.close()


def test_one_process_says_where_it_was(path: Path) -> None:
    with running_server(path, exit_code=None) as server:
        server.process.send_signal(signal.SIGSEGV)
        assert server.wait() == -signal.SIGSEGV
    assert any(FATAL in line for line in server.stderr)
