"""`POST /predict/{model}/stream`: a line each way, while the request still runs."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.server import Server
from rest import kit
from rest.kit import Client
from support import zoo

PATH = "/predict/identity/stream"


class Stream:
    """A stream that is written and read line by line.

    Args:
        client: of the server.
        path: of the stream.
        headers: more headers.
    """

    def __init__(self, client: Client, path: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=kit.BOUND)
        self.connection.putrequest("POST", path)
        for name, value in {"transfer-encoding": "chunked", **kit.named(headers)}.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        self.response = self.connection.getresponse()  # while the request has not ended

    def send(self, *lines: Any) -> None:
        data = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
        self.connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.connection.send(b"0\r\n\r\n")

    def line(self) -> Any:
        return json.loads(self.response.readline())


@pytest.fixture
def opened(client: Client) -> Iterator[Any]:
    made: list[Stream] = []

    def opens(path: str, **headers: str) -> Stream:
        made.append(Stream(client, path, **headers))
        return made[-1]

    yield opens
    for each in made:
        each.connection.close()


def test_answers_come_while_the_request_still_runs(opened: Any) -> None:
    stream = opened("/predict/identity/stream")
    assert stream.response.status == 200
    assert stream.response.headers["content-type"] == "application/x-ndjson"
    for n in range(3):
        stream.send({"x": [n, n, n]})
        assert stream.line() == {"y": [n, n, n]}
    stream.end()
    assert stream.response.read() == b""


def test_an_error_is_the_answer_to_its_line(opened: Any) -> None:
    stream = opened("/predict/identity/stream")
    stream.send({"x": [1, 2, 3]}, {"x": [1]}, [], {"instances": [[1, 2, 3]]})
    assert stream.line() == {"y": [1, 2, 3]}
    error = stream.line()["error"]
    assert (error["status"], error["code"]) == (400, "INVALID_ARGUMENT")
    assert "input x has shape [1, 1]" in error["detail"]
    assert "the line is not an object" in stream.line()["error"]["detail"]
    assert stream.line() == {"predictions": [{"y": [1, 2, 3]}]}
    stream.connection.send(b'5\r\n{"x":\r\n1\r\n\n\r\n')
    assert "is not JSON" in stream.line()["error"]["detail"]


def test_an_error_says_which_line_it_is_of(client: Client) -> None:
    good = b'{"x": [1, 2, 3]}'
    lines = [
        good, b"", b"[]", good, b" \r", b'{"x":', b'{"x": [1]}', good,
        b'{"instances": [], "more": 1}', good + good, b'{"x": "\xff"}',
    ]  # fmt: skip
    found = [json.loads(each) for each in client.call("POST", PATH, b"\n".join(lines)).body.splitlines()]
    told = {each["error"]["line"]: each["error"]["detail"] for each in found if "error" in each}
    assert [*told] == [3, 6, 7, 9, 10, 11]
    assert told[3].startswith("the line is not an object")
    assert told[6].startswith("the line (5 bytes) is not JSON: ")
    assert told[7].startswith("input x has shape [1, 1]")
    assert told[9].startswith("the line has instances and also more")
    assert told[10].endswith("(-d joins the lines of a file)")
    assert told[11] == "the line (10 bytes) is not JSON: it is not UTF-8"
    assert not any("body" in words or "line 1" in words for words in told.values())
    assert "line" not in client.post("/predict/identity", {"x": [1]}).json


def test_an_error_of_an_event_says_which_line_it_is_of(client: Client) -> None:
    body = b'{"x": [1, 2, 3]}\n\n{}\n'
    answer = client.call("POST", PATH, body, {"accept": "text/event-stream"})
    data = answer.body.split(b"event: error\ndata: ")[1]
    assert json.loads(data)["error"]["line"] == 3


@pytest.mark.parametrize("accept", [b"", b"accept: text/event-stream\r\n"])
def test_a_client_of_the_older_http_gets_a_stream_without_chunks(client: Client, accept: bytes) -> None:
    """HTTP/1.0 does not know them: its clients would take their lengths for lines."""
    body = b'{"x": [1, 2, 3]}\n{}\n{"x": [4, 5, 6]}\n'
    head = b"POST %b HTTP/1.0\r\n%bcontent-length: %d\r\n" % (PATH.encode(), accept, len(body))
    for keep in (b"", b"connection: keep-alive\r\n"):
        with client.raw() as connection:
            connection.sendall(head + keep + b"\r\n" + body)
            came, _, lines = kit.until_closed(connection).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in came
        assert b"\r\nconnection: close" in came
        first, *others = [each for each in lines.split(b"\n") if each]
        assert first.removeprefix(b"data: ") == b'{"y":[1.0,2.0,3.0]}'
        assert json.loads(others[-2].removeprefix(b"data: "))["error"]["line"] == 2
        assert others[-1].removeprefix(b"data: ") == b'{"y":[4.0,5.0,6.0]}'


def test_answers_come_at_once_with_the_older_http_too(client: Client) -> None:
    line = b'{"x": [1, 2, 3]}\n'
    with client.raw() as connection:
        connection.sendall(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), 3 * len(line)))
        came = b""
        for count in (1, 2, 3):
            connection.sendall(line)
            while came.count(b'{"y":') < count:
                came += connection.recv(65_536)
        assert kit.until_closed(connection) == b""
    assert came.endswith(b'{"y":[1.0,2.0,3.0]}\n' * 3)


def test_lines_of_any_cut_and_number_keep_their_order(client: Client) -> None:
    count = 3000  # more than may be in flight
    body = "\r\n".join(json.dumps({"x": [n, n, n]}) for n in range(count)).encode()
    answer = client.call("POST", "/predict/identity/stream", body)
    lines = answer.body.splitlines()
    assert [json.loads(each)["y"][0] for each in lines] == list(range(count))


@pytest.mark.parametrize("tail", [b"", b"\n", b'\n{"x": [7, 8, 9]}\n'])
def test_a_line_above_the_limit_ends_a_stream_after_the_answers_before(tmp_path: Path, tail: bytes) -> None:
    """However the parts of the body come: a line that came in one part passed, and took others along."""
    limit, path = 500, zoo.repository(tmp_path, {"identity": zoo.identity()})
    head, good = b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n", b'{"x": [1, 2, 3]}\n'
    with kit.serving(path, http_max_json_bytes=limit) as server:
        for size, is_good in ((limit, True), (limit + 1, False)):
            body = good * 2 + b'{"x": [1, 2, 3]}'.ljust(size) + tail
            for step in (len(body), 64):
                with Client(server.http_port).raw() as connection:
                    connection.sendall(head % (PATH.encode(), len(body)))
                    for at in range(0, len(body), step):
                        connection.sendall(body[at : at + step])
                        time.sleep(0.005)
                    came = kit.until_closed(connection).partition(b"\r\n\r\n")[2].splitlines()
                if is_good:
                    assert [set(json.loads(each)) for each in came] == [{"y"}] * (3 + (b"x" in tail))
                    continue
                assert came[:-1] == [b'{"y":[1.0,2.0,3.0]}'] * 2, step
                error = json.loads(came[-1])["error"]
                assert (error["status"], error["line"]) == (413, 3)


def test_server_sent_events(opened: Any) -> None:
    stream = opened("/predict/identity/stream", Accept="text/event-stream")
    assert stream.response.headers["content-type"] == "text/event-stream"
    stream.send({"x": [1, 2, 3]}, {})
    read = [stream.response.readline() for _ in range(5)]
    assert read[:3] == [b'data: {"y":[1.0,2.0,3.0]}\n', b"\n", b"event: error\n"]
    assert json.loads(read[3].removeprefix(b"data: "))["error"]["status"] == 400


def test_a_sequence_of_its_own(opened: Any) -> None:
    streams = [opened("/predict/running_sum/stream") for _ in range(2)]
    for step, total in ((1, 1), (5, 6), (2, 8)):
        for each in streams:
            each.send({"x": step})
            assert each.line() == {"y": total}


@pytest.mark.parametrize("misfit", [b'{"x":', b'{"x": "a"}', b'{"z": 3}'])
def test_what_follows_a_rejected_first_step_is_rejected(client: Client, misfit: bytes) -> None:
    answer = client.call("POST", "/predict/running_sum/stream", misfit + b'\n{"x": 7}\n{"x": 9}\n')
    first, *others = [json.loads(each)["error"] for each in answer.body.splitlines()]
    assert first["status"] == 400
    assert [each["status"] for each in others] == [409, 409]
    assert "its first step was rejected" in others[0]["detail"]


def test_an_unknown_model_has_a_status(client: Client) -> None:
    answer = client.post("/predict/nothing/stream", {"x": 1})
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


def test_a_client_that_does_not_read_is_waited_for(rest_server: Server, opened: Any) -> None:
    """No more is read from it than may be in flight; the others go on."""
    kit.wait_until(lambda: rest_server.calls_in_flight == 0, "the calls of earlier tests have ended")
    stream = opened("/predict/wide/stream")
    row = {"x": [0.123456] * 10_000}
    data = json.dumps(row).encode() + b"\n"
    sent = 0
    stream.connection.sock.settimeout(0.3)
    end = time.monotonic() + 15
    try:
        while time.monotonic() < end:
            stream.connection.send(b"%x\r\n%b\r\n" % (len(data), data))
            sent += len(data)
    except TimeoutError:
        pass
    else:
        raise AssertionError(f"{sent} bytes were taken")
    assert Client(rest_server.http_port).post("/predict/identity", {"x": [1, 2, 3]}).status == 200
    kit.wait_until(lambda: rest_server.calls_in_flight == 1, "the stream is the only call")
    stream.connection.close()
    kit.wait_until(lambda: rest_server.calls_in_flight == 0, "the stream has ended")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("penstock-sequence-id", "till"),
        ("penstock-sequence-start", "true"),
        ("penstock-sequence-end", "true"),
        ("penstock-sequences", "by-id"),
    ],
)
def test_a_stream_has_no_sequence_but_its_own(client: Client, name: str, value: str) -> None:
    answer = client.call("POST", "/predict/running_sum/stream", b'{"x": 1}\n', {name: value})
    assert answer.status == 400
    assert answer.json["detail"].startswith(f"header {name}")
    assert "a stream's lines are steps of its own sequence" in answer.json["detail"]


def test_a_priority_that_means_nothing_is_rejected_before_any_line(client: Client) -> None:
    answer = client.call("POST", "/predict/identity/stream", b"", {"penstock-priority": "high"})
    assert (answer.status, answer.json["code"]) == (400, "INVALID_ARGUMENT")
    assert "penstock-priority is 'high'" in answer.json["detail"]
