"""Several processes behind one port of HTTP, on both transports of gRPC."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rest import kit
from server.kit import problems
from support import zoo
from support.servers import RunningServer


@contextmanager
def served(folder: Path) -> Iterator[RunningServer]:
    """A server of two processes."""
    path = zoo.repository(folder / "models", {"identity": zoo.identity()})
    server = RunningServer(path, "--http", "--http-port", "0", "--processes", "2")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


def port_of(server: RunningServer) -> int:
    """Its port of HTTP."""
    return int(server.http.rpartition(":")[2])


@pytest.mark.parametrize("transport", ["reactor", "portable"])
def test_processes_share_the_port(tmp_path: Path, transport: str) -> None:
    path = zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    flags = ("--http", "--http-port", "0", "--processes", "2", "--transport", transport)
    server = RunningServer(path, *flags)
    try:
        server.wait_until_ready()
        found = re.search(r"^HTTP +http://127.0.0.1:(\d+)", server.stdout, re.MULTILINE)
        assert found, server.stdout
        client = kit.Client(int(found[1]))
        for _ in range(40):
            answer = client.post("/predict/identity", {"x": [1, 2, 3]})
            assert (answer.status, answer.json) == (200, {"y": [1, 2, 3]})
        server.process.send_signal(signal.SIGHUP)  # each of them is replaced by another
        for _ in range(100):
            assert client.post("/predict/identity", {"x": [1, 2, 3]}).status == 200
        assert server.stop() == 0
    finally:
        server.close()


RECORD = b'{"x": [1, 2, 3]}'
HEAD = b"POST /predict/%b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"


class Caller:
    """A client that sends one request after another on one connection, until it is told to close it.

    Attributes:
        statuses: of its answers.
        broken: what came of an answer that was not whole.
        is_over: whether the server takes no more connections.
    """

    def __init__(self, port: int) -> None:
        self.statuses: list[int] = []
        self.broken: list[bytes] = []
        self.is_over = False
        self._port = port

    def run(self) -> None:
        """Calls until the server has gone."""
        while not self.is_over:
            try:
                with socket.create_connection(("127.0.0.1", self._port), kit.BOUND) as made:
                    while self._call(made):
                        pass
            except ConnectionRefusedError:
                self.is_over = True

    def _call(self, made: socket.socket) -> bool:
        """One call; returns whether the connection stays open."""
        came = b""
        try:
            made.sendall(HEAD % (b"identity", len(RECORD)) + RECORD)
            while not (b"\r\n\r\n" in came and came.endswith(b"}")):
                part = made.recv(65_536)
                if not part:
                    break
                came += part
        except ConnectionError:
            pass
        if not came.endswith(b"}"):
            if came:
                self.broken.append(came)
            return False  # the process had ended before it read the request
        self.statuses.append(int(came.split()[1]))
        return b"\r\nconnection: close\r\n" not in came


def test_under_load_a_roll_breaks_no_answer_and_logs_nothing_but_itself(tmp_path: Path) -> None:
    """A process that leaves accepts nothing, and does nothing in vain meanwhile."""
    with served(tmp_path) as server:
        callers = [Caller(port_of(server)) for _ in range(4)]
        with ThreadPoolExecutor(len(callers)) as pool:
            running = [pool.submit(each.run) for each in callers]
            kit.wait_until(lambda: all(len(each.statuses) > 10 for each in callers), "all are answered")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("all processes are restarted", 60)
            in_the_roll = {status for each in callers for status in each.statuses}
            assert server.stop() == 0
            for each in running:
                each.result(kit.BOUND)
    assert in_the_roll == {200}
    assert [each.broken for each in callers] == [[]] * len(callers)
    assert problems(server) == []


def test_a_roll_waits_for_connections_that_pause(tmp_path: Path) -> None:
    """A process that leaves answers the next request of each, and says that it was the connection's last."""
    with served(tmp_path) as server:
        port = port_of(server)
        kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=kit.BOUND) for _ in range(12)]
        for each in kept:
            assert answered(each)[0] == 200
        server.process.send_signal(signal.SIGHUP)
        for number in range(2):
            kit.wait_until(lambda n=number: has_left(server) > n, "a process leaves")
            time.sleep(1.0)
            last = [each for each in kept if answered(each) == (200, "close")]
            kept = [each for each in kept if each not in last]
        server.wait_for_log("all processes are restarted", 40)
        assert server.stop() == 0
    assert kept == []


def has_left(server: RunningServer) -> int:
    """How many processes have begun to leave."""
    return sum('"event": "leaving"' in line for line in server.stderr)


def answered(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """The status of a request on a connection, and what the answer says of the connection."""
    connection.request("POST", "/predict/identity", RECORD)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


@pytest.mark.parametrize("processes", [1, 2])
def test_under_load_the_end_of_the_server_breaks_no_answer(tmp_path: Path, processes: int) -> None:
    path = zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    flags = ("--http", "--http-port", "0", "--processes", str(processes))
    server = RunningServer(path, *flags)
    try:
        server.wait_until_ready()
        found = re.search(r"^HTTP +http://127.0.0.1:(\d+)", server.stdout, re.MULTILINE)
        assert found, server.stdout
        port = int(found[1])
        callers = [Caller(port) for _ in range(6)]
        with ThreadPoolExecutor(len(callers)) as pool, kit.Client(port).raw() as stream:
            running = [pool.submit(each.run) for each in callers]
            stream.sendall(
                b"POST /predict/identity/stream HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            stream.sendall(b"%x\r\n%b\n\r\n" % (len(RECORD) + 1, RECORD))
            kit.wait_until(lambda: all(len(each.statuses) > 10 for each in callers), "all are answered")
            assert server.stop() == 0
            for each in running:
                each.result(kit.BOUND)
            ended = kit.until_closed(stream)
    finally:
        server.close()
    assert [each.broken for each in callers] == [[]] * len(callers)
    assert {status for each in callers for status in each.statuses} <= {200, 503}
    assert b'{"y":[1.0,2.0,3.0]}' in ended
    assert b'"code":"UNAVAILABLE"' in ended
    assert ended.endswith(b"0\r\n\r\n")


def test_the_page_shows_what_all_processes_answer(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        client = kit.Client(port_of(server))
        for _ in range(30):
            assert client.post("/predict/identity", {"x": [1, 2, 3]}).status == 200
            assert client.post("/predict/identity", {"x": [1]}).status == 400
        ops = kit.Client(int(server.ops.rpartition(":")[2]))
        text = ops.get("/metrics").body.decode()
        counted = re.findall(
            r'^penstock_request_seconds_count{[^}]*rpc="RestPredict"[^}]*} (\S+)', text, re.M
        )
        assert sum(map(float, counted)) == 30
        connection = http.client.HTTPConnection("127.0.0.1", ops.port, timeout=kit.BOUND)
        connection.request("GET", "/events")
        events = connection.getresponse()
        shown: dict[str, Any] = {}
        while not {"models", "errors", "figures"} <= shown.keys():
            line = events.readline().decode()
            if line.startswith("event: "):
                shown[line[7:].strip()] = json.loads(events.readline()[6:])
        connection.close()
        assert shown["models"]["http"] == client.port
        assert shown["figures"]["processes"] == 2
        assert sum(each["count"] for each in shown["errors"]) == 30
        assert {each["code"] for each in shown["errors"]} == {"INVALID_ARGUMENT"}
        assert server.stop() == 0
