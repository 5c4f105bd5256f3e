"""A process that runs out of file descriptors: probes and open connections go on, and it recovers."""

from __future__ import annotations

import resource
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from penstock.observability import open_files
from penstock.observability.open_files import OpenFiles
from server import kit
from support import servers, zoo
from support.servers import RunningServer, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux's")

LIMIT = 120
LIMIT_EVENT = "new connections are rejected: the limit on open files is nearly reached"
MANY = 100
"""Connections: more than the server takes, half its limit."""


def predict(target: str) -> object:
    with kit.connect(target) as channel:
        return kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)


def fill(stack: ExitStack, url: str, count: int) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    for _ in range(count):
        stack.enter_context(socket.create_connection((host, int(port))))


def at_limit(server: RunningServer) -> float:
    return kit.metric(server.ops, "file_limit_seconds_total")


def test_more_connections_than_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections get a part of the files only, so that probes are answered. The others are rejected."""
    script = tmp_path / "penstock"
    script.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec {servers.SCRIPT} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(servers, "SCRIPT", script)
    path = zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    with running_server(path) as server, kit.connect(server.target) as channel:
        stub, request = kit.stub_of(channel), kit.request("identity", x=kit.rows(1))
        stub.Predict(request, timeout=kit.BOUND)
        assert at_limit(server) == 0
        with ExitStack() as stack:
            fill(stack, server.target, MANY)
            kit.wait_until(lambda: at_limit(server) > 0, "it is noticed")
            assert kit.get(f"{server.ops}/livez")[0] == 200
            assert stub.Predict(request, timeout=kit.BOUND).version == "1"
            with pytest.raises(grpc.RpcError) as raised:
                predict(server.target)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        server.wait_for_log("new connections are accepted again")
        assert predict(server.target)
        told = [each for each in kit.logged(server) if "rejected" in each["event"]]
        assert [(each["limit"], each["most_connections"]) for each in told] == [(LIMIT, LIMIT // 2)]


def test_more_connections_over_http_than_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count as well: further ones are told so and closed, and gRPC goes on."""
    script = tmp_path / "penstock"
    script.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec {servers.SCRIPT} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(servers, "SCRIPT", script)
    path = zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    with running_server(path, "--http", "--http-port", "0") as server:
        assert predict(server.target)
        assert kit.get(f"{server.http}/health")[0] == 200
        with ExitStack() as stack:
            for _ in range(MANY):
                fill(stack, server.http, 1)
                time.sleep(0.02)  # of those that come together, more may be rejected than must be
            kit.wait_until(lambda: at_limit(server) > 0, "it is noticed")
            assert kit.get(f"{server.http}/health")[0] == 503
            assert kit.get(f"{server.ops}/livez")[0] == 200
            assert predict(server.target)
        server.wait_for_log("new connections are accepted again")
        assert kit.get(f"{server.http}/health")[0] == 200
        told = [each for each in kit.logged(server) if "rejected" in each["event"]]
        assert [each["limit"] for each in told] == [LIMIT]


def test_no_file_is_left(tmp_path: Path) -> None:
    """Whatever took them: connections wait, and are accepted once there are files again."""
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with running_server(path, "--http", "--http-port", "0") as server, kit.connect(server.target) as channel:
        stub, request = kit.stub_of(channel), kit.request("identity", x=kit.rows(1))
        stub.Predict(request, timeout=kit.BOUND)
        assert kit.get(f"{server.http}/health")[0] == 200
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (1, limits[1]))
        server.wait_for_log("the limit on open files")
        with ExitStack() as stack:
            fill(stack, server.target, 3)
            fill(stack, server.ops, 3)
            fill(stack, server.http, 3)
            assert stub.Predict(request, timeout=kit.BOUND).version == "1"
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
            server.wait_for_log("new connections are accepted again")
            assert predict(server.target)
            assert kit.get(f"{server.ops}/livez")[0] == 200
            assert kit.get(f"{server.http}/health")[0] == 200
            assert at_limit(server) > 0
            assert [each["event"] for each in kit.problems(server)] == [LIMIT_EVENT]


def test_it_is_logged_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    used = [100]
    monkeypatch.setattr(open_files, "_used", lambda: used[0])
    told = SimpleNamespace(
        error=lambda event, **_: said.append(event), info=lambda event, **_: said.append(event)
    )
    monkeypatch.setattr(open_files, "log", told)
    files = OpenFiles(50, lambda: 50)
    for _ in range(2 * open_files.LOG_SECONDS):
        files.look()
    assert len(said) == 2
    used[0] = 10
    files.look()
    files.look()
    assert len(said) == 3
    assert files.seconds_at_limit == 2 * open_files.LOG_SECONDS


@pytest.mark.parametrize(
    ("used", "connections", "expected"), [(49, 50, 0), (60, 49, 0), (60, 50, 1), (None, 0, 1)]
)
def test_when_the_limit_is_reached(
    monkeypatch: pytest.MonkeyPatch, used: int | None, connections: int, expected: int
) -> None:
    """Other open files do not count: only connections are rejected."""
    monkeypatch.setattr(open_files, "_used", lambda: used)
    files = OpenFiles(50, lambda: connections)
    files.look()
    assert files.seconds_at_limit == expected
