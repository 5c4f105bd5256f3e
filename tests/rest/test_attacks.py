"""Odd requests, and what is sent in odd pieces: every request gets one answer, and none gets another's."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.server import Server
from penstock.transport.http import connection
from rest import kit
from rest.kit import Client
from support import zoo

HOST = b"host: a\r\n"
HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /health HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n"


def predict(x: object, model: str = "slow", more: bytes = b"") -> bytes:
    body = json.dumps({"x": x}).encode()
    head = b"POST /predict/%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n"
    return head % (model.encode(), HOST, more, len(body)) + body


def statuses(data: bytes) -> list[int]:
    """The status of each answer."""
    return [int(each[:3]) for each in data.split(b"HTTP/1.1 ")[1:]]


def exchanged(client: Client, data: bytes) -> bytes:
    """All that a server sends for these bytes, until it closes the connection."""
    with client.raw() as raw:
        raw.sendall(data)
        return kit.until_closed(raw)


@pytest.mark.parametrize("model", ["slow", "identity"])
@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02\r\n\r\n", b"POST /predict HTTP/1.1\r\nbad header\r\n\r\n"]
)
def test_a_request_before_garbage_is_answered(client: Client, model: str, garbage: bytes) -> None:
    x: object = 1 if model == "slow" else [1, 2, 3]
    assert statuses(exchanged(client, predict(x, model) + garbage)) == [200, 400]


def test_several_requests_before_garbage_are_answered(client: Client) -> None:
    data = predict(1) + HEALTH + predict(1) + b"\x00\r\n\r\n"
    assert statuses(exchanged(client, data)) == [200, 200, 200, 400]


def test_a_broken_body_behind_a_request_ends_the_connection_after_its_answer(client: Client) -> None:
    broken = b"POST /predict/slow HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(exchanged(client, predict(1) + broken)) == [200, 400]


def test_a_request_is_answered_although_another_begins_as_the_server_stops(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"slow": zoo.slow(200)})
    with kit.serving(path) as server, Client(server.http_port).raw() as raw:
        raw.sendall(predict(1) + b"POST /predict/slow HTTP/1.1\r\nho")
        kit.wait_until(lambda: server.calls_in_flight == 1)
        assert server.stop(kit.BOUND)
        assert statuses(kit.until_closed(raw)) == [200]


def test_nothing_is_answered_behind_the_last_request(client: Client) -> None:
    data = predict([1, 2, 3], "identity", b"connection: close\r\n") + HEALTH * 3
    assert statuses(exchanged(client, data)) == [200]


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 3\r\ncontent-length: 4\r\n",
        b"content-length: -1\r\n",
        b"content-length: 3, 3\r\n",
        b"content-length: 99999999999999999999999\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"content-length : 3\r\n",
        b"x: a\r\n b\r\n",
        b"x: a\x00b\r\n",
        b"x: a\rb\r\n",
    ],
)
def test_framing_that_two_servers_could_read_differently_is_rejected(client: Client, framing: bytes) -> None:
    data = b"POST /predict/identity HTTP/1.1\r\n" + HOST + framing + b"\r\n0\r\n\r\n" + LAST
    assert statuses(exchanged(client, data)) == [400]


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\nhost: b\r\n", b"host: a\r\nhost: a\r\n"])
@pytest.mark.parametrize("more", [b"", b"origin: http://a\r\n"])
def test_a_request_must_have_one_host(client: Client, hosts: bytes, more: bytes) -> None:
    body = b'{"x": [1, 2, 3]}'
    head = b"POST /predict/identity HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (hosts, more, len(body))
    answer = exchanged(client, head + body + LAST)
    assert statuses(answer) == [400, 200]
    assert b"header host" in answer


def test_the_older_http_needs_no_host(client: Client) -> None:
    answer = exchanged(client, b"GET /health HTTP/1.0\r\n\r\n")
    assert statuses(answer) == [200]
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("path", [b"/health", b"/openapi.json", b"/v2"])
def test_head_is_get_without_a_body(client: Client, path: bytes) -> None:
    asked = b" %b HTTP/1.1\r\n%bconnection: close\r\n\r\n" % (path, HOST)
    whole, head = exchanged(client, b"GET" + asked), exchanged(client, b"HEAD" + asked)
    assert head.endswith(b"\r\n\r\n")
    drop_date = [each for each in whole.split(b"\r\n\r\n")[0].split(b"\r\n") if b"date" not in each]
    assert drop_date == [each for each in head.split(b"\r\n\r\n")[0].split(b"\r\n") if b"date" not in each]


def test_head_keeps_the_connection_in_step(client: Client) -> None:
    head = b"HEAD /health HTTP/1.1\r\n" + HOST + b"\r\n"
    wrong = b"HEAD /predict/identity HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(exchanged(client, head + wrong + head + LAST)) == [200, 405, 200, 200]


@pytest.mark.parametrize(("path", "allowed"), [("/health", "GET, HEAD"), ("/predict/identity", "POST")])
def test_what_is_allowed_is_said(client: Client, path: str, allowed: str) -> None:
    answer = client.call("PUT", path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("target", [b"/predict/identity", b"*", b"/nothing"])
def test_options_of_no_browser(client: Client, target: bytes) -> None:
    data = b"OPTIONS %b HTTP/1.1\r\n%b\r\n" % (target, HOST)
    answer = exchanged(client, data + LAST)
    assert statuses(answer) == [405 if target == b"/predict/identity" else 404, 200]


@pytest.mark.parametrize(
    "target", [b"http://a/predict/identity", b"/predict/identity?", b"/predict/identity/"]
)
def test_forms_of_a_target(client: Client, target: bytes) -> None:
    body = b'{"x": [1, 2, 3]}'
    data = b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (target, HOST, len(body)) + body
    assert statuses(exchanged(client, data + LAST)) == [200, 200]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_with_extensions_and_trailers(client: Client, size: int) -> None:
    body = json.dumps({"x": [1, 2, 3]}).encode()
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x;name=value\r\n%b\r\n" % (len(each), each) for each in parts)
    head = b"POST /predict/identity HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
    data = head + chunks + b"0\r\ntrailer: x\r\n\r\n"
    assert statuses(exchanged(client, data + data + LAST)) == [200, 200, 200]


@pytest.mark.parametrize("pause", range(0, 110, 9))
def test_a_request_in_two_pieces(client: Client, pause: int) -> None:
    data = predict([1, 2, 3], "identity", b"connection: close\r\n")
    with client.raw() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(data[:pause])
        raw.sendall(data[pause:])
        assert statuses(kit.until_closed(raw)) == [200]


def test_who_waits_to_be_asked_for_the_body(client: Client) -> None:
    body = b'{"x": [1, 2, 3]}'
    head = b"POST /predict/identity HTTP/1.1\r\n%bexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with client.raw() as raw:
        raw.sendall(head % (HOST, len(body)))
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(body + LAST)
        assert statuses(kit.until_closed(raw)) == [200, 200]


def test_who_waits_to_be_asked_for_the_lines_of_a_stream(client: Client) -> None:
    head = b"POST /predict/identity/stream HTTP/1.1\r\n%bexpect: 100-continue\r\n" % HOST
    head += b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    line = b'{"x": [1, 2, 3]}\n'
    with client.raw() as raw:
        raw.sendall(head)
        asked = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert raw.recv(len(asked), socket.MSG_WAITALL) == asked
        raw.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line))
        rest = kit.until_closed(raw)
    assert statuses(rest) == [200]
    assert rest.count(b"100 Continue") == 0


@pytest.mark.parametrize("path", [b"identity", b"identity/stream"])
def test_a_client_of_http_1_0_is_not_told_to_go_on(client: Client, path: bytes) -> None:
    body = b'{"x": [1, 2, 3]}\n'
    head = b"POST /predict/%b HTTP/1.0\r\n%bexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with client.raw() as raw:
        raw.sendall(head % (path, HOST, len(body)))
        time.sleep(0.1)  # a server that waits for nothing would say it now
        raw.sendall(body)
        answer = kit.until_closed(raw)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_connection_without_requests_is_closed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_SECONDS", 0.1)
    assert statuses(exchanged(client, HEALTH + predict([1, 2, 3], "identity"))) == [200, 200]


def test_connections_at_once_get_their_own_answers(client: Client) -> None:
    def call(caller: int) -> list[bool]:
        return [
            client.post("/predict/identity", {"x": [caller, n, 0]}).json == {"y": [caller, n, 0]}
            for n in range(20)
        ]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(each) for each in pool.map(call, range(8)))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict/identity", b'{"x": [1, 2, 3]}', 200),
        ("/predict/identity", b"{", 400),
        ("/predict/identity", b'{"x": [1]}', 400),
        ("/predict/nothing", b'{"x": [1]}', 404),
        ("/predict/identity?a=b", b'{"x": [1]}', 400),
        ("/nothing", b"{}", 404),
        ("/health", b"{}", 405),
        ("/predict/fails", b'{"x": [100]}', 500),
        ("/v2/models/identity/infer", b"{", 400),
        ("/predict/identity/stream", b"", 200),
        ("/predict/nothing/stream", b"", 404),
    ],
)
@pytest.mark.parametrize("origin", [{}, {"origin": "http://a"}])
def test_every_answer_has_the_id_of_its_request(
    client: Client, path: str, body: bytes, status: int, origin: dict[str, str]
) -> None:
    answer = client.call("POST", path, body, {"X-Request-Id": "one\xe9", **origin})
    assert (answer.status, answer.headers["x-request-id"]) == (status, "one\xe9")


def test_refusals_have_the_id_of_their_request(rest_server: Server) -> None:
    client = Client(rest_server.http_port)
    large = client.call("POST", "/predict/identity", b" " * (2**24 + 1), {"X-Request-Id": "one"})
    assert (large.status, large.headers["x-request-id"]) == (413, "one")
    late = client.post("/predict/slow", {"x": 1}, X_Request_Id="two", Penstock_Timeout="0.000001")
    assert (late.status, late.headers["x-request-id"]) == (504, "two")


@pytest.mark.parametrize("cuts", [(), (9,), (0,), (-30,)])
@pytest.mark.parametrize(
    "trailer", [b"x-request-id: b", b"penstock-timeout: bad", b"host: b", b"expect: 100-continue"]
)
def test_headers_behind_a_body_replace_nothing(client: Client, trailer: bytes, cuts: tuple[int, ...]) -> None:
    """Whether the request comes at once or in pieces."""
    head = (
        b"POST /predict/identity HTTP/1.1\r\n%btransfer-encoding: chunked\r\nx-request-id: a\r\n\r\n" % HOST
    )
    data = head + b"10\r\n" + b'{"x": [1, 2, 3]}' + b"\r\n0\r\n" + trailer + b"\r\n\r\n"
    with client.raw() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in cuts:
            place = cut or len(head)
            raw.sendall(data[:place])
            time.sleep(0.05)
            data = data[place:]
        raw.sendall(data + LAST)
        answers = kit.until_closed(raw)
    assert statuses(answers) == [200, 200]
    assert answers.count(b"x-request-id: a\r\n") == 1
    assert b"x-request-id: b" not in answers
