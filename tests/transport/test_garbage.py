"""Bytes on the socket that are not gRPC: only their sender loses its connection."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from penstock.transport.grpc.call import OK, Transport
from support.calls import SECONDS, Handlers, Reading, Served, Silent, served, stream, unary, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + bytes(4)
DATA, HEADERS, END_HEADERS = 0, 1, 4


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", number) + payload


def literal(name: str, value: str) -> bytes:
    """A header field that HPACK is to leave out of its table."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def request(path: str) -> bytes:
    """The beginning of a connection, and the headers of one call."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "t"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    headers = b"".join(literal(name, value) for name, value in fields)
    return PREFACE + SETTINGS + frame(HEADERS, END_HEADERS, 1, headers)


ODD = {
    "random": random.Random(1).randbytes(10_000),
    "nothing": b"",
    "http-1": b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    "tls": bytes.fromhex("16030100750100007103") + bytes(100),
    "half-a-preface": PREFACE[:11],
    "preface-then-random": PREFACE + random.Random(2).randbytes(10_000),
    "a-frame-larger-than-announced": PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00" + bytes(4) + b"x" * 100,
    "data-on-no-stream": PREFACE + SETTINGS + frame(DATA, 0, 1, b"x"),
    "bad-header-block": PREFACE + SETTINGS + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
    "headers-only": request("/t/M"),
    "half-a-message": request("/t/M") + frame(DATA, 0, 1, b"\x00\x00\x00\x00\x64half"),
    "half-a-frame": request("/t/S") + frame(DATA, 0, 1, b"\x00\x00\x00\x00\x04word")[:-2],
    "a-length-of-four-gigabytes": request("/t/S") + frame(DATA, 0, 1, b"\x00\xff\xff\xff\xffx"),
    "compressed-by-nothing-known": request("/t/M") + frame(DATA, 1, 1, b"\x01\x00\x00\x00\x04junk"),
}


@pytest.fixture
def server(transport: type[Transport]) -> Iterator[Served]:
    handlers = Handlers(Reading)
    with served(transport, {"/t/M": unary(handlers), "/t/S": stream(handlers)}) as each:
        yield each


def send(server: Served, data: bytes) -> None:
    """Sends bytes on a connection of their own, and waits until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(SECONDS)
        with suppress(OSError):  # the server may have hung up already
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("name", ODD)
def test_the_server_lives_on(server: Served, name: str) -> None:
    with server.channel() as neighbour:
        call = neighbour.unary_unary("/t/Echo")
        assert call(b"before", timeout=SECONDS) == b"before"
        for _ in range(5):
            send(server, ODD[name])
        assert call(b"after", timeout=SECONDS) == b"after"
    server.wait_until_empty()
    server.check_alive()


def test_a_client_that_vanishes_in_the_middle_of_a_message(server: Served) -> None:
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(ODD["half-a-message"])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # with a reset
    server.wait_until_empty()
    server.check_alive()


def is_served(server: Served) -> bool:
    """Whether a new client is served."""
    try:
        server.check_alive(2)  # a call that reaches the server as it stops to listen is not answered
    except grpc.RpcError:
        return False
    return True


def test_a_method_that_is_no_unicode(transport: type[Transport]) -> None:
    """Alone, it would stop a server of grpc.aio for good, from about 1.81 on."""
    handlers = Handlers(Silent)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        held = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        call = handlers.only().call
        for _ in range(3):
            send(server, request("/t/M").replace(b"/t/M", b"/t/\xff"))
            wait_until(lambda: is_served(server))
        call.finish(OK, b"answer")
        assert held.result() == b"answer"
        assert transport.name == "portable" or not server.failures
        server.failures.clear()
