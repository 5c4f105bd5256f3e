"""HTTP itself: bodies, connections, slow clients, limits and the end."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.config import Config
from penstock.core.errors import StartupError
from penstock.server import Server
from penstock.transport.http import connection
from penstock.transport.http.server import _listening
from rest import kit
from rest.kit import Client
from support import zoo

ROW = {"x": [1, 2, 3]}
BODY = json.dumps(ROW).encode()
POST = b"POST /predict/identity HTTP/1.1\r\nhost: a\r\n"


def request(body: bytes = BODY, *, close: bool = False) -> bytes:
    ending = b"connection: close\r\n" if close else b""
    return POST + ending + b"content-length: %d\r\n\r\n" % len(body) + body


LARGE_ROWS, ROW_BYTES = 1_000_000, 12


def large_request(rows: int) -> bytes:
    """A request with binary data for so many rows, whose answer is as large."""
    size = rows * ROW_BYTES
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = (
        b"POST /v2/models/identity/infer HTTP/1.1",
        b"host: a",
        b"connection: close",
        b"inference-header-content-length: %d" % len(head),
        b"content-length: %d" % (len(head) + size),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + head + bytes(size)


def test_requests_that_are_sent_together_are_answered_in_order(client: Client) -> None:
    bodies = [json.dumps({"x": [n, n, n]}).encode() for n in range(20)]
    with client.raw() as raw:
        raw.sendall(b"".join(map(request, bodies)) + request(BODY, close=True))
        came = kit.until_closed(raw)
    found = [int(each.split(b".")[0]) for each in came.split(b'{"y":[')[1:]]
    assert found == [*range(20), 1]


def test_a_body_in_chunks_and_in_drops(client: Client) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, BODY[n : n + 1]) for n in range(len(BODY))) + b"0\r\n\r\n"
    data = POST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    with client.raw() as raw:
        for start in range(0, len(data), 10):
            raw.sendall(data[start : start + 10])
        came = kit.until_closed(raw)
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert came.endswith(b'{"y":[1.0,2.0,3.0]}')


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_bodies(client: Client, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    unpack = gzip.decompress if coding == "gzip" else zlib.decompress
    rows = {"inputs": {"x": [[1, 2, 3]] * 200}}
    headers = {"content-encoding": coding, "accept-encoding": coding}
    answer = client.call("POST", "/predict/identity", pack(json.dumps(rows).encode()), headers)
    assert (answer.status, answer.headers["content-encoding"]) == (200, coding)
    assert json.loads(unpack(answer.body)) == {"outputs": {"y": [[1, 2, 3]] * 200}}


def test_bodies_that_cannot_be_decompressed(client: Client) -> None:
    good = gzip.compress(BODY)
    for body in (BODY, good[:-1], good + b"more", b""):
        answer = client.call("POST", "/predict/identity", body, {"content-encoding": "gzip"})
        assert (answer.status, answer.json["code"]) == (400, "INVALID_ARGUMENT")
    answer = client.call("POST", "/predict/identity", BODY, {"content-encoding": "br"})
    assert answer.status == 415


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with low limits."""
    path = zoo.repository(
        tmp_path_factory.mktemp("small"), {"identity": zoo.identity(), "slow": zoo.slow(300)}
    )
    (path / "slow/model.toml").write_text("[batching]\nenabled = false\nqueue_rows = 1\n")
    with kit.serving(path, http_max_body_bytes=1000, max_calls=8, max_metadata_bytes=2000) as server:
        yield server


def test_a_body_that_is_too_large(small: Server) -> None:
    client = Client(small.http_port)
    large = json.dumps({"x": [1] * 500}).encode()
    chunked = b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)
    answers = [
        client.call("POST", "/predict/identity", large),
        client.call("POST", "/predict/identity", gzip.compress(large), {"content-encoding": "gzip"}),
    ]
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (413, "RESOURCE_EXHAUSTED")
        assert "1000 bytes" in answer.json["detail"]
    with client.raw() as raw:
        raw.sendall(POST + chunked + request(close=True))
        came = kit.until_closed(raw)
    assert came.startswith(b"HTTP/1.1 413 ")
    assert came.endswith(b'{"y":[1.0,2.0,3.0]}')  # the connection is still good


def test_headers_that_are_too_large(small: Server) -> None:
    with Client(small.http_port).raw() as raw:
        try:
            for _ in range(2000):
                raw.sendall(b"POST / HTTP/1.1\r\nx: " if _ == 0 else b"a" * 1000)
        except OSError:
            pass  # it closed the connection
        came = kit.until_closed(raw)
    if came:  # else it was closed while it still sent
        refused(came, 431, "larger than 2000 bytes, the server's limit (server.max_metadata_bytes)")


def test_what_is_not_http(client: Client) -> None:
    with client.raw() as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        refused(kit.until_closed(raw), 400, "is not a request of HTTP/1.1")


def refused(came: bytes, status: int, words: str) -> None:
    """Makes sure that an answer is a problem report, and the last one."""
    head, body = came.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), came
    headers = head.lower().split(b"\r\n")
    assert {b"connection: close", b"content-type: application/problem+json"} <= set(headers)
    assert b"content-length: %d" % len(body) in headers
    report = json.loads(body)
    assert report["status"] == status
    assert words in report["detail"] == report["error"]


@pytest.mark.parametrize(
    "head", [b"GET\r\n\r\n", b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", POST + b"content-length: x\r\n\r\n"]
)
def test_heads_that_are_malformed(client: Client, head: bytes) -> None:
    with client.raw() as raw:
        raw.sendall(head)
        refused(kit.until_closed(raw), 400, "is not a request of HTTP/1.1")


def test_a_full_queue_says_when_to_try_again(small: Server) -> None:
    client = Client(small.http_port)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/predict/slow", {"x": 1}), range(6)))
    refused = [each for each in answers if each.status != 200]
    assert len(refused) < 6
    assert {each.status for each in refused} == {429}
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_client_that_goes_frees_its_place(small: Server) -> None:
    client = Client(small.http_port)
    with client.raw() as raw:
        body = b'{"x": 1}'
        raw.sendall(
            b"POST /predict/slow HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        kit.wait_until(lambda: small.calls_in_flight == 1)
    kit.wait_until(lambda: small.calls_in_flight == 0)
    assert client.post("/predict/identity", ROW).status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /predict/iden", POST + b"content-length: 10\r\n\r\n{"])
def test_a_client_that_sends_too_slowly_is_cut_off(
    small: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.1)
    with Client(small.http_port).raw() as raw:
        raw.sendall(sent)
        refused(kit.until_closed(raw), 408, "did not come in time")
    kit.wait_until(lambda: small.calls_in_flight == 0)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = Config.model_validate({"server": {"port": 0, "ops_port": 0, "http_port": port}})
        server = Server(config, path)
        with pytest.raises(
            StartupError, match=f"127.0.0.1:{port} for HTTP: .*--http-port .*server.http_port"
        ):
            server.start()
        server.close()


def test_without_http_nothing_listens(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with kit.serving(path, http=False) as server:
        assert server.http_port == 0


def test_what_is_accepted_is_answered_before_the_end(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"slow": zoo.slow(200)})
    with kit.serving(path) as server, ThreadPoolExecutor(2) as pool:
        client = Client(server.http_port)
        waiting = pool.submit(client.post, "/predict/slow", {"x": 1})
        kit.wait_until(lambda: server.calls_in_flight == 1)
        stopping = pool.submit(server.stop, 5.0)
        assert waiting.result().status == 200
        assert waiting.result().headers["connection"] == "close"
        assert stopping.result()
        answer = client.post("/predict/slow", {"x": 1})
        assert (answer.status, answer.json["code"]) == (503, "UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/health").status == 503


def test_a_body_that_never_comes_does_not_hold_the_stop(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    with kit.serving(path) as server, Client(server.http_port).raw() as raw:
        raw.sendall(POST + b"content-length: 100\r\n\r\n" + BODY)
        kit.wait_until(lambda: server.calls_in_flight == 1)
        assert server.stop(kit.BOUND)
        refused(kit.until_closed(raw), 503, "stopping")


def test_requests_sent_ahead_are_bounded(small: Server) -> None:
    client = Client(small.http_port)
    with client.raw() as raw, pytest.raises(ConnectionError):
        send_for_ever(raw, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n" * 300)
    assert client.get("/health").status == 200


def send_for_ever(raw: socket.socket, data: bytes) -> None:
    while True:
        raw.sendall(data)


@pytest.mark.parametrize("cut", [1000, 40, 3])
def test_an_upgrade_to_http2_is_not_taken(client: Client, cut: int) -> None:
    """Java's own client asks for one with its first request, and takes an answer over HTTP/1.1 as well."""
    ask = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    data = POST + ask + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    with client.raw() as raw:
        for _ in range(3):
            for start in range(0, len(data), cut):
                raw.sendall(data[start : start + cut])
            came = b""
            while b"}" not in came:
                part = raw.recv(65_536)
                assert part, came
                came += part
            assert came.startswith(b"HTTP/1.1 200 OK\r\n")


def states(server: Server) -> list[str]:
    """What each connection waits for."""
    assert server.web.transport is not None
    return [
        f"{each._unsent} bytes unsent since {time.monotonic() - each._stuck:.1f} s, {len(each.pipeline)} "
        f"requests wait, reading paused: {each.flow.read_paused}, a call: {each.call is not None}"
        for each in server.web.transport._connections()
    ]


def test_a_client_that_does_not_take_its_answer_is_cut_off(
    small: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.1)
    with Client(small.http_port).raw() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n" * 100
        try:
            send_for_ever(raw, asked)
        except TimeoutError:
            raise AssertionError(f"it was not cut off: {states(small)}") from None
        except ConnectionError:
            pass
    kit.wait_until(lambda: small.calls_in_flight == 0)


def test_a_client_that_reads_slowly_is_not_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window is so small that the kernel takes nothing more from the server for seconds."""
    monkeypatch.setattr(connection, "WAIT_SECONDS", 1.5)
    with client.raw(window=4096) as raw:
        raw.sendall(large_request(LARGE_ROWS))
        end, came = time.monotonic() + 5, b""
        while time.monotonic() < end:
            came += raw.recv(4096)
            time.sleep(0.02)
        came += kit.until_closed(raw)
    assert len(came.partition(b"\r\n\r\n")[2]) > LARGE_ROWS * ROW_BYTES


def test_a_client_that_reads_next_to_nothing_is_cut_off(
    client: Client, rest_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.5)
    with client.raw(window=4096) as raw:
        raw.sendall(large_request(LARGE_ROWS))
        kit.wait_until(lambda: bool(raw.recv(1)) and rest_server.web.connections() == 0, "it is cut off")


def test_a_deadline_ends_a_call_whose_run_goes_on(small: Server) -> None:
    client = Client(small.http_port)
    begun = time.monotonic()
    answer = client.post("/predict/slow", {"x": 1}, Penstock_Timeout="0.05")
    assert (answer.status, answer.json["code"]) == (504, "DEADLINE_EXCEEDED")
    assert time.monotonic() - begun < kit.BOUND


@pytest.mark.parametrize("shares_port", [False, True])
def test_the_second_half_of_an_answer_does_not_wait(shares_port: bool) -> None:
    """asyncio switches Nagle's algorithm off only for sockets that name their protocol."""
    for each in _listening("127.0.0.1", 0, shares_port):
        with each:
            assert each.proto == socket.IPPROTO_TCP
