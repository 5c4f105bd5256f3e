"""A server that is not there, was killed, or takes no connections: the client says so within its timeout."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from client.standin import StandIn
from client.streams import BOUND, item, number
from penstock_client import (
    DeadlineExceeded,
    InvalidInput,
    PenstockError,
    Unavailable,
    _aio_calls,
    _sync_calls,
)
from penstock_client._deadline import Deadline
from support import zoo
from support.servers import RunningServer

NO_CONNECTION = "no connection to the server"
SHORT = 0.4


@contextmanager
def listening(port: int = 0) -> Iterator[str]:
    """A port whose connections nothing ever reads: to a client, a server behind a black hole."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def unused() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def everything(client: Any) -> dict[str, Callable[[], Any]]:
    return {
        "predict": lambda: client.predict("echo", item(1), timeout=SHORT),
        "predict_stream": lambda: list(client.predict_stream("echo", [item(1)], timeout=SHORT)),
        "models": client.models,
        "model": lambda: client.model("echo"),
        "health": client.health,
    }


def test_no_server_listens(unused: str, connect: Callable[..., Any]) -> None:
    for call in everything(connect(unused, timeout=SHORT)).values():
        with pytest.raises(Unavailable, match="refused"):
            call()


def test_connections_are_not_answered(connect: Callable[..., Any]) -> None:
    with listening() as target:
        for call in everything(connect(target, timeout=SHORT)).values():
            with pytest.raises(Unavailable, match=NO_CONNECTION):
                call()


def test_a_server_that_stopped(server: StandIn, client: Any) -> None:
    """The attempts to open a stream outlast the timeout."""
    assert number(client.predict("echo", item(3))) == 3
    server.stop()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            client.predict("echo", item(1), timeout=SHORT)
    assert "refused" in str(caught.value)


def test_a_server_that_stopped_and_a_black_hole_in_its_place(server: StandIn, client: Any) -> None:
    assert number(client.predict("echo", item(3))) == 3
    server.stop()
    with listening(int(server.target.rpartition(":")[2])):
        for _ in range(2):
            with pytest.raises(Unavailable):
                client.predict("echo", item(1), timeout=SHORT)


def test_a_server_that_was_killed_under_a_request(tmp_path, connect: Callable[..., Any]) -> None:
    running = RunningServer(zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}}))
    try:
        running.wait_until_ready()
        client = connect(running.target)
        assert client.predict("scale", {"x": [1.0, 2.0, 3.0]})["y"].tolist() == [[2.0, 4.0, 6.0]]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        for _ in range(3):
            with pytest.raises(Unavailable):
                client.predict("scale", {"x": [1.0, 2.0, 3.0]}, timeout=SHORT)
    finally:
        running.close()


@contextmanager
def stopped(server: RunningServer) -> Iterator[None]:
    """The server's process is stopped: its connections stay, and nothing reads them."""
    server.process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 20
    while Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until
        time.sleep(0.001)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_timeout_reads_the_same_however_large_the_request(tmp_path, connect: Callable[..., Any]) -> None:
    """Of a request that is still being sent, gRPC has another text than of one that is not answered."""
    running = RunningServer(zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}}))
    try:
        running.wait_until_ready()
        client = connect(running.target)
        assert client.predict("scale", item(1))["y"].tolist() == [[2.0, 2.0, 2.0]]
        with stopped(running):
            for rows in (1, 1_000_000):
                with pytest.raises(DeadlineExceeded) as caught:
                    client.predict("scale", {"x": np.ones((rows, 3), np.float32)}, timeout=SHORT)
                assert str(caught.value) == 'the timeout of 0.4 s passed before model "scale" answered'
    finally:
        running.close()


def test_a_timeout_on_a_connection_does_not_say_that_there_is_none(
    tmp_path, connect: Callable[..., Any], transport: str
) -> None:
    """The server is connected to, and stops before the stream is open."""
    running = RunningServer(zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}}))
    try:
        running.wait_until_ready()
        client = connect(running.target)
        with pytest.raises(InvalidInput):  # the model's description is known after it
            client.predict("scale", {"x": "much"})
        with stopped(running):
            for timeout in (1e-6, SHORT):
                with pytest.raises(DeadlineExceeded) as caught:
                    client.predict("scale", item(1), timeout=timeout)
                why = "" if transport == "unary" else ": the stream to the server was not open yet"
                expected = f'the timeout of {timeout:g} s passed before model "scale" answered{why}'
                assert str(caught.value) == expected
                assert caught.value.retryable == (transport != "unary")  # it was not sent
    finally:
        running.close()


def test_callers_that_wait_for_room_while_there_is_no_server(
    server: StandIn, connect: Callable[..., Any]
) -> None:
    client = connect(server.target, max_pending=1)
    assert number(client.predict("echo", item(3))) == 3
    server.stop()
    ended: list[BaseException] = []

    def call() -> None:
        try:
            client.predict("echo", item(1), timeout=SHORT)
        except PenstockError as error:
            ended.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(BOUND)
    assert [type(each) for each in ended] == [Unavailable] * 4


def test_a_server_that_answers_late_is_another_matter(server: StandIn, client: Any) -> None:
    assert number(client.predict("echo", item(3))) == 3
    release = threading.Event()
    answer = server.answer
    server.answer = lambda request: release.wait(BOUND) and answer(request)
    try:
        with pytest.raises(DeadlineExceeded) as caught:
            client.predict("echo", item(1), timeout=SHORT)
    finally:
        release.set()
    assert caught.value.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert NO_CONNECTION not in str(caught.value)


def test_the_time_does_not_suffice_for_another_attempt(loop: Any) -> None:
    """The error of the last attempt is told, not that the time is over."""
    failed = Unavailable("loading")
    with pytest.raises(Unavailable, match="loading"):
        _sync_calls.pause(9, Deadline(0.01), failed)
    with pytest.raises(Unavailable, match="loading"):
        loop.run(_aio_calls.pause(9, Deadline(0.01), failed))


SCRIPT = """
import sys
from penstock_client import Client, PenstockError
client = Client(sys.argv[1], timeout=0.2)
try:
    client.predict("m", {"x": 1})
except PenstockError as error:
    print(type(error).__name__)
"""


def test_a_program_that_closes_no_client_ends() -> None:
    with listening() as target:
        command = [sys.executable, "-c", SCRIPT, target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Unavailable\n", "")
