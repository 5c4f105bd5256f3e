"""Connections that are opened and dropped by the thousand."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import grpc
import pytest

from server import kit
from soak.held import growth, held
from support.servers import RunningServer

WARM_UP, MEASURED = 400, 4_000
MOST_BYTES = 5e6
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How an HTTP/2 connection begins: the client's preface, and settings without any."""
AT_ONCE = struct.pack("ii", 1, 0)
"""Closing sends a reset."""


def say_nothing(server: RunningServer) -> None:
    """Connects, and closes."""
    with _connection(server):
        pass


def reset(server: RunningServer) -> None:
    """Begins to speak HTTP/2, and resets the connection."""
    with _connection(server) as connection:
        connection.sendall(PREFACE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)


def call_once(server: RunningServer) -> None:
    """Makes one call."""
    with kit.connect(server.target) as channel:
        assert kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)


def leave_mid_stream(server: RunningServer) -> None:
    """Opens a stream, has a request answered, and goes away."""
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel)
        stream.send(kit.request("identity", x=kit.rows(1), tag=7))
        assert stream.next().tag == 7
        stream.send(kit.request("slow", x=kit.rows(1, width=1)))
        stream.cancel()


def leave_mid_call(server: RunningServer) -> None:
    """Makes a call, and goes away before it is answered."""
    with kit.connect(server.target) as channel:
        future = kit.stub_of(channel).Predict.future(
            kit.request("slow", x=kit.rows(1, width=1)), timeout=kit.BOUND
        )
        future.cancel()


WAYS = (say_nothing, reset, call_once, leave_mid_stream, leave_mid_call)


def _connection(server: RunningServer) -> socket.socket:
    host, port = server.target.rsplit(":", 1)
    return socket.create_connection((host, int(port)), kit.BOUND)


@pytest.mark.soak
def test_connections_that_come_and_go(
    server: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    def load(connections: int) -> None:
        for number in range(connections):
            WAYS[number % len(WAYS)](server)

    with kit.connect(server.target) as channel:
        grpc.channel_ready_future(channel).result(kit.BOUND)
        before, grown = growth(server, load, WARM_UP, MEASURED, record_property)
        kit.wait_until(lambda: held(server).files <= before.files, "its files are closed")
        call_once(server)
    assert grown < MOST_BYTES
    assert kit.problems(server) == []
