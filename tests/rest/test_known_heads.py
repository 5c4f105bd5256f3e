"""Requests whose head has come before are not parsed, but answered as if they were; no others are."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.server import Server
from penstock.transport.grpc.call import IGNORING, Kind, Method
from penstock.transport.http import connection
from penstock.transport.http.whole import LONGEST_KNOWN, MOST_KNOWN, Head, KnownHeads
from rest import kit
from rest.kit import Client
from support import zoo

HOST = b"host: a\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"identity": zoo.identity(), "slow": zoo.slow(200)}
    with kit.serving(zoo.repository(tmp_path_factory.mktemp("heads"), models)) as made:
        yield made


@pytest.fixture
def parsed(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that reach the parser from now on, and no head is known."""
    found: list[bytes] = []
    below = connection.HttpToolsProtocol.data_received

    def data_received(self: connection.Connection, data: bytes) -> None:
        found.append(data)
        below(self, data)

    monkeypatch.setattr(connection.HttpToolsProtocol, "data_received", data_received)
    heads_of(server).clear()
    return found


def heads_of(server: Server) -> KnownHeads:
    with Client(server.http_port).raw():
        kit.wait_until(lambda: bool(server.web.connections()), "it is connected")
        assert server.web.transport is not None
        heads = next(iter(server.web.transport._connections()))._heads
    kit.wait_until(lambda: not server.web.connections(), "it is closed")
    assert isinstance(heads, KnownHeads)
    return heads


def request(x: object, more: bytes = b"", model: bytes = b"identity") -> bytes:
    body = json.dumps({"x": x}).encode()
    return (
        b"POST /predict/%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (model, HOST, more, len(body)) + body
    )


def asked(raw: socket.socket, data: bytes) -> tuple[int, object]:
    """The status and the JSON of the answer to one request."""
    raw.sendall(data)
    return received(raw)


def received(raw: socket.socket) -> tuple[int, object]:
    came = b""
    while b"\r\n\r\n" not in came:
        part = raw.recv(1)
        assert part, came
        came += part
    size = int(came.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < size:
        body += raw.recv(size - len(body))
    return int(came[9:12]), json.loads(body)


def test_a_head_that_has_come_before_is_not_parsed(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as first, Client(server.http_port).raw() as second:
        for number in range(1, 6):
            for raw in (first, second):
                assert asked(raw, request([number, 2, 3])) == (200, {"y": [number, 2, 3]})
    assert len(parsed) == 1


def test_another_length_is_another_head(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as raw:
        for _ in range(3):
            assert asked(raw, request([1, 2, 3])) == (200, {"y": [1, 2, 3]})
            assert asked(raw, request([10, 20, 30])) == (200, {"y": [10, 20, 30]})
    assert len(parsed) == 2


@pytest.mark.parametrize("cut", [1, 40, 70])
def test_a_request_in_pieces_is_parsed_and_the_next_is_not(
    server: Server, parsed: list[bytes], cut: int
) -> None:
    data = request([1, 2, 3])
    with Client(server.http_port).raw() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            assert asked(raw, data) == (200, {"y": [1, 2, 3]})
            raw.sendall(data[:cut])
            kit.wait_until(lambda: bool(parsed) and data.startswith(parsed[-1]) and parsed[-1] != data)
            assert asked(raw, data[cut:]) == (200, {"y": [1, 2, 3]})
            parsed[1:] = []
    assert parsed == [data]


def test_two_requests_at_once_are_both_answered(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as raw:
        for number in range(4):
            data = request([1, number, 3])
            raw.sendall(data + data)
            for _ in range(2):
                assert received(raw) == (200, {"y": [1, number, 3]})
            assert asked(raw, data) == (200, {"y": [1, number, 3]})
    assert heads_of(server)


def test_what_comes_behind_a_request_in_flight_waits_for_its_answer(
    server: Server, parsed: list[bytes]
) -> None:
    with Client(server.http_port).raw() as raw:
        assert asked(raw, request([1, 2, 3]))[0] == 200
        kit.wait_until(lambda: server.calls_in_flight == 0)
        raw.sendall(request(1, model=b"slow"))
        kit.wait_until(lambda: server.calls_in_flight == 1)
        raw.sendall(request([4, 5, 6]))
        assert received(raw)[0] == 200
        assert received(raw) == (200, {"y": [4, 5, 6]})


def test_a_body_that_looks_like_a_known_request_is_none(server: Server, parsed: list[bytes]) -> None:
    """Even behind a request for another protocol, whose head and body are parsed by two parsers."""
    known = request([1, 2, 3])
    upgrade = b"connection: upgrade\r\nupgrade: h2c\r\n"
    for more in (b"", upgrade):
        with Client(server.http_port).raw() as raw:
            assert asked(raw, known)[0] == 200
            head = b"POST /nowhere HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n"
            assert asked(raw, head % (HOST, more, 2 * len(known)))[0] == 404
            raw.sendall(known)
            kit.wait_until(lambda: parsed[-1] == known, "it is a part of the body")
            raw.sendall(known)
            assert asked(raw, request([4, 5, 6])) == (200, {"y": [4, 5, 6]})


@pytest.mark.parametrize(
    "more",
    [
        b"connection: close\r\n",
        b"origin: http://a\r\n",
        b"expect: 100-continue\r\n",
        b"x: %b\r\n" % (b"y" * 2048),
    ],
    ids=["close", "origin", "expect", "long"],
)
def test_an_unusual_head_is_parsed_each_time(server: Server, parsed: list[bytes], more: bytes) -> None:
    for _ in range(3):
        with Client(server.http_port).raw() as raw:
            raw.sendall(request([1, 2, 3], more))
            came = b""
            while b'"y"' not in came:
                came += raw.recv(65_536)
    assert len(parsed) >= 3
    assert not heads_of(server)


def test_what_is_refused_for_its_head_is_refused_again(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as raw:
        for _ in range(3):
            status, report = asked(raw, request([1, 2, 3], b"penstock-sequences: wrong\r\n"))
            assert (status, "penstock-sequences" in str(report)) == (400, True)
            assert asked(raw, request([1, 2, 3], b"penstock-timeout: x\r\n"))[0] == 400
            assert asked(raw, request([1, 2, 3], b"penstock-timeout: 0.0000001\r\n"))[0] == 504
            assert asked(raw, b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n")[0] == 404


def test_answers_have_what_the_head_asks_for(server: Server, parsed: list[bytes]) -> None:
    more = b"x-request-id: seven\r\naccept-encoding: gzip\r\n"
    with Client(server.http_port).raw() as raw:
        answers = []
        for _ in range(3):
            raw.sendall(request([1, 2, 3], more))
            came = b""
            while not came.endswith(b"}"):
                came += raw.recv(65_536)
            head, _, body = came.partition(b"\r\n\r\n")
            answers.append(
                (sorted(each for each in head.split(b"\r\n") if not each.startswith(b"date")), body)
            )
    assert answers[0] == answers[1] == answers[2]
    assert b"x-request-id: seven" in answers[0][0]
    assert b"vary: accept-encoding" in answers[0][0]


def test_the_heads_that_are_kept_are_bounded(server: Server) -> None:
    heads = heads_of(server)
    with Client(server.http_port).raw() as raw:
        for _ in range(MOST_KNOWN + 10):
            more = b"x-something: %b\r\n" % uuid.uuid4().hex.encode()
            assert asked(raw, request([1, 2, 3], more))[0] == 200
    assert 0 < len(heads) <= MOST_KNOWN
    assert max(map(len, heads)) <= LONGEST_KNOWN


def test_ids_may_differ(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as raw:
        for number in range(10):
            more = b"X-Request-Id: id-%d\r\ntraceparent:00-%032x-%016x-01\r\n" % (
                number,
                number + 1,
                number + 1,
            )
            raw.sendall(request([number, 2, 3], more))
            came = b""
            while not came.endswith(b"}"):
                came += raw.recv(65_536)
            assert came.count(b"x-request-id: id-%d\r\n" % number) == came.count(b"x-request-id") == 1
            assert came.endswith(b'{"y":[%d.0,2.0,3.0]}' % number)
        assert asked(raw, request([1, 2, 3])) == (200, {"y": [1, 2, 3]})
    assert len(parsed) == 1
    assert len(heads_of(server)) == 1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"x-request-id: a\r\nx-request-id: b\r\n", b"b"),
        (b"X-REQUEST-ID:a\r\n", b"a"),
        (b"x-request-id: a b\r\n", b"a b"),
        (b"x-request-id: a  \r\n", b"a  "),
        (b"x-request-id: \xfc\r\n", b"\xfc"),
        (b"x-request-id: \r\n", b""),
        (b"y: x-request-id: a\r\n", None),
        (b"x-request-id-2: a\r\n", None),
    ],
)
def test_lines_of_ids_mean_what_the_parser_says(
    server: Server, parsed: list[bytes], lines: bytes, expected: bytes | None
) -> None:
    answers = []
    with Client(server.http_port).raw() as raw:
        assert asked(raw, request([1, 2, 3], b"x-request-id: first\r\n"))[0] == 200
        for _ in range(2):
            raw.sendall(request([1, 2, 3], lines))
            came = b""
            while not came.endswith(b"}"):
                came += raw.recv(65_536)
            head = came.partition(b"\r\n\r\n")[0].split(b"\r\n")
            answers.append([each.partition(b": ")[2] for each in head if each.startswith(b"x-request-id:")])
    assert answers[0] == answers[1] == ([] if expected is None else [expected])


def test_a_line_that_goes_on_is_refused(server: Server, parsed: list[bytes]) -> None:
    with Client(server.http_port).raw() as raw:
        assert asked(raw, request([1, 2, 3], b"x-request-id: a\r\n"))[0] == 200
        raw.sendall(request([1, 2, 3], b"x-request-id: a\r\n content-length: 1\r\n"))
        assert kit.until_closed(raw).startswith(b"HTTP/1.1 400 ")


def test_ids_are_in_the_metadata() -> None:
    body = b"{}"
    data = b"POST / HTTP/1.1\r\nhost: a\r\n%bcontent-length: 2\r\n\r\n"
    headers = [(b"host", b"a"), (b"traceparent", b"00-1"), (b"content-length", b"2")]
    heads, head = KnownHeads(), Head("1.1", "POST", b"/", b"", headers, keep_alive=True)
    head.read({name.decode(): value.decode() for name, value in headers})
    head.fits, head.target = True, Method(Kind.UNARY, lambda _: IGNORING)
    heads.learn(data % b"traceparent: 00-1\r\n" + body, head, body)
    plain = heads.find(data % b"")
    assert plain is not None
    assert dict(plain.metadata) == {"host": "a", "content-length": "2"}
    other = heads.find(data % b"x-request-id: 7\r\ntraceparent: 00-2\r\n")
    assert other is not None
    assert dict(other.metadata) == other.texts
    assert other.texts == {**plain.texts, "x-request-id": "7", "traceparent": "00-2"}
    assert (other.length, other.fits, other.notes) == (2, True, plain.notes)
    assert heads.find(data % b"x-other: 7\r\n") is None


def test_framing_by_chunks_is_not_learned() -> None:
    heads, data = KnownHeads(), b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    head = Head("1.1", "POST", b"/", b"", [(b"transfer-encoding", b"chunked")], keep_alive=True)
    head.fits = True
    heads.learn(data, head, b"")
    assert not heads


def test_clients_at_once_get_their_own_answers(server: Server) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        with Client(server.http_port).raw() as raw:
            for turn in range(10, 60):
                expected = (200, {"y": [number, turn, 3]})
                if (found := asked(raw, request([number, turn, 3]))) != expected:
                    wrong.append((expected, found))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10, 18)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(kit.BOUND)
    assert not wrong


def test_a_stopping_server_refuses_known_heads(tmp_path: Path) -> None:
    models = {"identity": zoo.identity(), "slow": zoo.slow(200)}
    with kit.serving(zoo.repository(tmp_path, models)) as server, Client(server.http_port).raw() as raw:
        assert asked(raw, request([1, 2, 3]))[0] == 200
        kit.wait_until(lambda: server.calls_in_flight == 0)
        with Client(server.http_port).raw() as other:
            other.sendall(request(1, model=b"slow"))
            kit.wait_until(lambda: server.calls_in_flight == 1)
            stopping = threading.Thread(target=server.stop, args=(kit.BOUND,))
            stopping.start()
            kit.wait_until(lambda: Client(server.http_port).get("/health").status == 503)
            raw.sendall(request([1, 2, 3]))
            assert kit.until_closed(raw).startswith(b"HTTP/1.1 503 ")
            assert received(other)[0] == 200
        stopping.join()


ODD_LINES = [
    b"",
    b"x-request-id: a b\r\n",
    b"x-request-id: \xfc\r\n",
    b"x-request-id: a\r\n",
    b"x-request-id: a b\r\nX-Request-Id: c\r\n",
    b"X-Request-Id: c\r\nx-request-id: a b\r\n",
    b"traceparent: \t1\r\nTraceparent: 2\r\n",
]


@pytest.mark.parametrize("first", ODD_LINES)
@pytest.mark.parametrize("second", ODD_LINES)
def test_lines_of_ids_that_are_odd_and_plain_in_one_head(
    server: Server, parsed: list[bytes], first: bytes, second: bytes
) -> None:
    """A head with an id twice, one of them in an unusual form, was answered with both ids, or with none."""
    with Client(server.http_port).raw() as raw:
        for lines in (first, first, second, second, first):
            raw.sendall(request([1, 2, 3], lines))
            came = b""
            while not came.endswith(b"}"):
                came += raw.recv(65_536)
            ids = [
                each.partition(b":")[2].strip(b" ")
                for each in lines.split(b"\r\n")
                if each.lower().startswith(b"x-request-id:")
            ]
            head = came.partition(b"\r\n\r\n")[0].split(b"\r\n")
            found = [each.partition(b": ")[2] for each in head if each.startswith(b"x-request-id:")]
            assert found == ids[-1:], (lines, came)


def test_a_line_before_the_first_one_is_refused(server: Server, parsed: list[bytes]) -> None:
    """Empty lines before a request are skipped, but a header there is none."""
    with Client(server.http_port).raw() as raw:
        for _ in range(2):
            assert asked(raw, b"\r\n" + request([1, 2, 3]))[0] == 200
        raw.sendall(b"\r\nx-request-id: a" + b"\r\n" + request([1, 2, 3]))
        assert kit.until_closed(raw).startswith(b"HTTP/1.1 400 ")
