"""A client that is still sending when it is refused can read the refusal; one that never ends is cut off."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.server import Server
from penstock.transport.http import connection, lingering
from rest import kit
from rest.kit import Client
from support import zoo

POST = b"POST /predict/identity HTTP/1.1\r\nhost: a\r\n"
BLOCK_BYTES = 2**16
BLOCK = b"x" * BLOCK_BYTES
LARGE, FEWER = 100_000_000, 10_000_000
"""As many bytes do not fit into the buffers of a connection."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = zoo.repository(tmp_path_factory.mktemp("refusals"), {"identity": zoo.identity()})
    with kit.serving(path, http_max_json_bytes=1000, http_max_body_bytes=2000) as server:
        yield server


@pytest.mark.parametrize("path", [b"identity", b"none"])
@pytest.mark.parametrize("line", [b"", b"origin: http://127.0.0.1\r\n"])  # with an origin, a task answers
def test_a_call_that_is_refused_ends_before_its_connection(small: Server, path: bytes, line: bytes) -> None:
    head = POST.replace(b"identity", path) + line
    with Client(small.http_port).raw() as raw:
        for _ in range(3):  # the second time it is known
            raw.sendall(head + b"content-length: 7\r\n\r\n" + b'{"y":1}')
            assert raw.recv(BLOCK_BYTES).startswith(b"HTTP/1.1 40")
            kit.wait_until(lambda: not small.calls_in_flight, "the call is over")


def sent_whole(raw: socket.socket, data: bytes, more: int) -> bytes:
    """What comes back once all has been sent, as a client reads that looks for no answer before."""
    raw.sendall(data)
    for _ in range(more // len(BLOCK)):
        raw.sendall(BLOCK)
    return kit.until_closed(raw)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"x: ", b"431"),
        (b"\x00\r\n\r\n", b"400"),
        (POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % LARGE, b"413"),
        (POST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % LARGE, b"413"),
        (POST.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n" % LARGE, b"413"),
        (
            POST.replace(b"identity", b"none/stream")
            + b"connection: close\r\ncontent-length: %d\r\n\r\n" % LARGE,
            b"404",
        ),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_a_refusal_can_be_read_after_the_whole_request(small: Server, head: bytes, status: bytes) -> None:
    with Client(small.http_port).raw() as raw:
        answer = sent_whole(raw, head, LARGE if b"content-length" in head else FEWER)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert answer.count(b"HTTP/1.1 4") == 1
    kit.wait_until(lambda: small.calls_in_flight == 0)


def test_a_refusal_comes_before_the_body(small: Server) -> None:
    with Client(small.http_port).raw() as raw:
        raw.sendall(POST + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % LARGE)
        answer = raw.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b"100 Continue" not in answer


def test_the_connection_of_a_refused_request_is_kept(small: Server) -> None:
    body = b'{"x": [1, 2, 3]}'
    with Client(small.http_port).raw() as raw:
        raw.sendall(POST + b"content-length: %d\r\n\r\n" % 1_000_000)
        for _ in range(1_000_000 // 1000):
            raw.sendall(b"x" * 1000)
        raw.sendall(POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        answer = kit.until_closed(raw)
    assert [each[:3] for each in answer.split(b"HTTP/1.1 ")[1:]] == [b"413", b"200"]


@pytest.mark.parametrize("keeps", [b"", b"connection: close\r\n"])
def test_who_never_stops_sending_is_cut_off(
    small: Server, monkeypatch: pytest.MonkeyPatch, keeps: bytes
) -> None:
    monkeypatch.setattr(connection, "LINGER_BYTES", 10_000_000)
    with Client(small.http_port).raw() as raw, pytest.raises(ConnectionError):
        sent_whole(raw, POST + keeps + b"content-length: %d\r\n\r\n" % 10**15, 10**10)
    kit.wait_until(lambda: small.web.connections() == 0, "the connection is closed")


@pytest.mark.parametrize("name", ["LINGER_SECONDS", "LINGER_PAUSE_SECONDS"])
def test_who_stays_after_a_refusal_is_cut_off(
    small: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lingering, name, 0.1)
    with Client(small.http_port).raw() as raw:
        raw.sendall(POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % LARGE)
        assert kit.until_closed(raw).startswith(b"HTTP/1.1 413 ")
        kit.wait_until(lambda: small.web.connections() == 0, "the connection is closed")


def test_who_never_stops_sending_headers_is_cut_off(small: Server) -> None:
    with Client(small.http_port).raw() as raw, pytest.raises(ConnectionError):
        sent_whole(raw, POST + b"x: ", LARGE)
    kit.wait_until(lambda: small.web.connections() == 0, "the connection is closed")


def test_a_client_that_reads_slowly_gets_all_of_a_refusal(small: Server) -> None:
    with Client(small.http_port).raw() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender = threading.Thread(target=_send, args=(raw,), daemon=True)
        sender.start()
        sender.join(kit.BOUND)
        time.sleep(0.1)
        parts = []
        while part := raw.recv(16):
            parts.append(part)
    assert b"".join(parts).startswith(b"HTTP/1.1 413 ")


def _send(raw: socket.socket) -> None:
    raw.sendall(POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % LARGE + BLOCK * 10)
    raw.shutdown(socket.SHUT_WR)


def test_a_request_whose_client_sends_no_more_is_answered(small: Server) -> None:
    """A quick one: where the answer takes longer, such a client is taken to have gone."""
    body = b'{"x": [1, 2, 3]}'
    with Client(small.http_port).raw() as raw:
        raw.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        raw.shutdown(socket.SHUT_WR)
        assert kit.until_closed(raw).startswith(b"HTTP/1.1 200 ")
    kit.wait_until(lambda: small.web.connections() == 0, "the connection is closed")


def test_a_fault_is_no_bad_request(small: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a fault of the server")

    with Client(small.http_port).raw() as raw:
        kit.wait_until(lambda: small.web.connections() == 1, "it is connected")
        assert small.web.transport is not None
        [only] = small.web.transport._connections()
        monkeypatch.setattr(only, "_at_once", fail)
        raw.sendall(POST + b"content-length: 2\r\n\r\n{}")
        answer = kit.until_closed(raw)
    assert answer.startswith(b"HTTP/1.1 500 "), answer
    assert b"a fault of the server" not in answer


def test_requests_around_a_slow_one_keep_their_order(tmp_path: Path) -> None:
    def predict(model: bytes, value: bytes) -> bytes:
        body = b'{"x": %b}' % value
        head = b"POST /predict/%b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
        return head % (model, len(body)) + body

    path = zoo.repository(tmp_path, {"slow": zoo.slow(200), "identity": zoo.identity()})
    with kit.serving(path) as server, Client(server.http_port).raw() as raw:
        quick = [predict(b"identity", b"[%d, 0, 0]" % number) for number in range(40)]
        sent = [*quick[:20], predict(b"slow", b"1"), *quick[20:]]
        raw.sendall(b"".join(sent) + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        answers = kit.until_closed(raw).split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == [b"200"] * 42
    numbers = [each.partition(b'"y":[')[2].partition(b",")[0] for each in answers[:20] + answers[21:41]]
    assert [float(each) for each in numbers] == [*range(40)]
