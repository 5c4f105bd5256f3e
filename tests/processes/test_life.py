"""How several processes start, stop and end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes.conftest import TWO
from processes.kit import children, is_gone
from server import kit
from server.conftest import ALONE
from server.test_startup import FREE_PORTS, refused
from support import zoo
from support.servers import SCRIPT, RunningServer, running_server

OK = grpc.StatusCode.OK
IDENTITY = {"identity": zoo.identity()}


def test_a_stop_answers_what_was_accepted_and_leaves_nothing(tmp_path) -> None:
    path = zoo.repository(tmp_path, {"slow": zoo.slow(20)})
    (path / "slow" / "model.toml").write_text(ALONE)
    with running_server(path, *TWO, fresh=True) as server:
        workers = children(server.pid)
        channels = [kit.connect(server.target) for _ in range(8)]
        futures = [
            kit.stub_of(channel).Predict.future(
                kit.request("slow", x=kit.rows(1, width=1)), timeout=kit.BOUND
            )
            for channel in channels
            for _ in range(5)
        ]
        kit.wait_until(lambda: accepted(server.ops) == 40, "all are accepted")
        server.process.send_signal(signal.SIGTERM)
        kit.wait_until(lambda: health_of(channels) == {"NOT_SERVING"}, "all say so")
        assert kit.get(f"{server.ops}/readyz")[0] == 503
        assert Counter(map(kit.code_of_future, futures)) == {OK: 40}
        assert server.wait() == 0
        for channel in channels:
            channel.close()
    assert all(map(is_gone, workers))
    assert kit.problems(server) == []


def accepted(ops: str) -> float:
    seen = kit.Metrics(ops)
    return sum(seen.sum(name) for name in ("requests_total", "queue_rows", "running_batches"))


def health_of(channels: list[grpc.Channel]) -> set[str]:
    request = health_pb2.HealthCheckRequest()
    answers = [health_pb2_grpc.HealthStub(each).Check(request, timeout=kit.BOUND) for each in channels]
    return {health_pb2.HealthCheckResponse.ServingStatus.Name(each.status) for each in answers}


def test_a_second_signal_ends_all_at_once(tmp_path) -> None:
    path = zoo.repository(tmp_path, {"slow": zoo.slow(20)})
    (path / "slow" / "model.toml").write_text(ALONE)
    with (
        running_server(path, *TWO, exit_code=None, fresh=True) as server,
        kit.connect(server.target) as channel,
    ):
        workers = children(server.pid)
        stub, request = kit.stub_of(channel), kit.request("slow", x=kit.rows(1, width=1))
        futures = [stub.Predict.future(request, timeout=kit.BOUND) for _ in range(500)]
        kit.wait_until(lambda: accepted(server.ops) == 500, "ten seconds of work are accepted")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT
        kit.wait_until(lambda: all(map(is_gone, workers)), "they are gone")
        assert set(map(kit.code_of_future, futures)) - {OK}, "all were answered all the same"


def test_who_kills_the_supervisor_ends_the_workers(tmp_path) -> None:
    """And the port is free for the next."""
    path = zoo.repository(tmp_path, IDENTITY)
    with running_server(path, *TWO, exit_code=None, fresh=True) as server:
        workers = children(server.pid)
        port = server.target.rpartition(":")[2]
        server.process.kill()
        kit.wait_until(lambda: all(map(is_gone, workers)), "they are gone")
        with running_server(path, *TWO, "--port", port) as another, kit.connect(another.target) as channel:
            kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)


def test_the_supervisor_may_be_killed_while_models_load(tmp_path) -> None:
    server = RunningServer(zoo.repository(tmp_path, IDENTITY), *TWO, fresh=True)
    try:
        kit.wait_until(lambda: len(children(server.pid)) == 2, "they are started")
        workers = children(server.pid)
        server.process.kill()
        kit.wait_until(lambda: all(map(is_gone, workers)), "they are gone")
    finally:
        server.close()


def test_a_port_that_another_program_would_share_is_taken(tmp_path) -> None:
    path = zoo.repository(tmp_path, IDENTITY)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused(str(path), "--port", port, "--ops-port", "0", *TWO)
    assert said.startswith(f"Error: cannot listen on 127.0.0.1:{port}")
    assert len(said.splitlines()) == 1


def test_two_groups_cannot_have_one_port(group, zoo_path) -> None:
    port = group.target.rpartition(":")[2]
    said = refused(str(zoo_path), "--port", port, "--ops-port", "0", *TWO)
    assert said.startswith(f"Error: cannot listen on 127.0.0.1:{port}")


def test_a_model_that_cannot_be_served_is_said_once_and_as_ever(tmp_path: Path) -> None:
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"no model at all")
    alone = refused(str(tmp_path), *FREE_PORTS)
    assert refused(str(tmp_path), *FREE_PORTS, *TWO) == alone
    assert alone.startswith("Error: model bad version 1: ")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        ("0", "Error: --processes = 0: should be greater than or equal to 1"),
        ("100000", "Error: --processes = 100000: should be less than or equal to 1024"),
    ],
)
def test_a_bad_number_of_processes(tmp_path, count, words) -> None:
    assert refused(str(tmp_path), "--processes", count).startswith(words)


def test_a_signal_while_models_load_stops_it(tmp_path) -> None:
    server = RunningServer(zoo.repository(tmp_path, IDENTITY), *TWO, fresh=True)
    try:
        kit.wait_until(lambda: len(children(server.pid)) == 2, "they are started")
        workers = children(server.pid)
        time.sleep(0.1)
        assert server.stop() == 0
        assert all(map(is_gone, workers))
        assert server.stdout == ""
    finally:
        server.close()


def test_one_process_has_no_supervisor(tmp_path) -> None:
    with running_server(zoo.repository(tmp_path, IDENTITY), "--processes", "1", fresh=True) as server:
        assert children(server.pid) == []
        assert "processes " not in server.stdout
        assert os.path.exists(f"/proc/{server.pid}")


def test_a_terminal_that_is_closed_ends_it(tmp_path) -> None:
    """It sends SIGHUP, which otherwise means a restart."""
    path = zoo.repository(tmp_path, IDENTITY)
    spawn = "import pty, sys; pty.spawn(sys.argv[1:])"
    command = [sys.executable, "-c", spawn, str(SCRIPT), "serve", str(path), *FREE_PORTS, *TWO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as terminal:
        assert terminal.stdout is not None
        while b"Try it" not in terminal.stdout.readline():
            assert terminal.poll() is None
        [supervisor] = children(terminal.pid)
        workers = children(supervisor)
        terminal.kill()
    assert len(workers) == 2
    kit.wait_until(lambda: all(map(is_gone, [supervisor, *workers])), "all are gone")
