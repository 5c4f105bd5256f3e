"""Bytes on the socket that are no gRPC: whoever sends them loses the connection, and nobody else notices."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from penstock.transport.call import Transport
from support.calls import SECONDS, Handlers, Reading, Served, served, stream, unary

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
    "a-path-that-is-no-unicode": request("/t/M").replace(b"/t/M", b"/t/\xff"),
    "headers-only": request("/t/M"),
    "half-a-message": request("/t/M") + frame(DATA, 0, 1, b"\x00\x00\x00\x00\x64half"),
    "half-a-frame": request("/t/S") + frame(DATA, 0, 1, b"\x00\x00\x00\x00\x04word")[:-2],
    "a-length-of-four-gigabytes": request("/t/S") + frame(DATA, 0, 1, b"\x00\xff\xff\xff\xffx"),
    "compressed-by-nothing-known": request("/t/M") + frame(DATA, 1, 1, b"\x01\x00\x00\x00\x04junk"),
}


@pytest.fixture
def server(road: type[Transport]) -> Iterator[Served]:
    handlers = Handlers(Reading)
    with served(road, {"/t/M": unary(handlers), "/t/S": stream(handlers)}) as each:
        yield each


@pytest.mark.parametrize("name", ODD)
def test_the_server_lives_on(server: Served, name: str) -> None:
    with server.channel() as neighbour:
        call = neighbour.unary_unary("/t/Echo")
        assert call(b"before", timeout=SECONDS) == b"before"
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.settimeout(SECONDS)
                with suppress(OSError):  # the server may have hung up already
                    connection.sendall(ODD[name])
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass  # until the server hangs up
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


def test_a_method_that_is_no_unicode_does_not_exist(server: Served) -> None:
    with server.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(b"/t/\xff\xfe".decode("latin-1"))(b"", timeout=SECONDS)
    assert raised.value.code() is not grpc.StatusCode.OK
    server.check_alive()
