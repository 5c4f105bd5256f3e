"""Pages that are given to the operations server: bodies, streams, and what ends them."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.operations import OpsServer, Page, Question, Reply
from support.threads import NewThreads


class Stream:
    """A body of parts, which notes when it is closed."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.closed = threading.Event()
        self.endless = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"first\n"
        self.go.wait(20)
        while self.endless and not self.closed.is_set():
            yield b"x" * 65_536
        yield b"last\n"

    def close(self) -> None:
        self.closed.set()


class Given:
    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.stream = Stream()

    def pages(self) -> dict[str, Page]:
        return {
            "/": Page(lambda _: Reply(200, "text/html", b"<p>page"), media_type="text/html"),
            "/stream": Page(lambda _: Reply(200, "text/event-stream", self.stream)),
            "/post": Page(self._post, method="POST"),
            "/fails": Page(lambda _: 1 / 0),  # type: ignore[arg-type,return-value]
        }

    def _post(self, question: Question) -> Reply:
        self.asked.append(question)
        return Reply(499, "text/plain", question.body * 2, {"X-More": "1"})


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.fixture
def port(given: Given) -> Iterator[int]:
    server = _server(given)
    yield server.start()
    server.stop()


def _server(given: Given, timeout: float = 10.0) -> OpsServer:
    return OpsServer(
        "127.0.0.1", 0, render_metrics=lambda accept: ("text/plain", b""), ready=lambda: (True, "ok"),
        pages=given.pages(), on_stop=given.stream.close, timeout_seconds=timeout,
    )  # fmt: skip


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
    response = connection.getresponse()
    answer = response.status, response.read(), dict(response.getheaders())
    connection.close()
    return answer


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_a_page_gets_the_question_and_its_answer_is_sent(port: int, given: Given) -> None:
    status, body, headers = ask(
        port, "POST", "/post?a=b", b"x" * 2000, X_Some="thing", Accept_Encoding="gzip"
    )
    assert (status, gzip.decompress(body), headers["X-More"]) == (499, b"x" * 4000, "1")
    [question] = given.asked
    assert (question.query, len(question.body), question.headers["x-some"]) == ("a=b", 2000, "thing")
    status, body, headers = ask(port, "GET", "/post")
    assert (status, headers["Allow"], body) == (405, "POST", b"GET is not allowed, only POST\n")
    assert ask(port, "POST", "/stream", b"x")[2]["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("length", [str((4 << 20) + 1), "-1", "x"])
def test_a_body_that_is_too_large_is_not_read(port: int, given: Given, length: str) -> None:
    status, body, _ = ask(port, "POST", "/post", None, Content_Length=length)
    assert (status, b"expected at most 4194304" in body, given.asked) == (413, True, [])


def test_a_page_for_browsers_leaves_the_others_what_there_was(port: int) -> None:
    assert ask(port, "GET", "/", Accept="text/html;q=0.9,*/*")[1] == b"<p>page"
    assert ask(port, "GET", "/", Accept="*/*")[1].split()[:2] == [b"/metrics", b"/livez"]
    assert ask(port, "HEAD", "/", Accept="text/html")[1:2] == (b"",)


def test_a_page_that_raises_is_answered_and_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(port, "GET", "/fails")[:2] == (500, b"failed; see the server's log\n")
    assert "ZeroDivisionError" in caplog.text


def test_parts_leave_as_they_come_and_the_body_is_closed(port: int, given: Given) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while b"first\n" not in data:
            data += client.recv(4096)
        assert b"ontent-Length" not in data
        given.stream.go.set()
        while part := client.recv(4096):
            data += part
    assert data.endswith(b"last\n")
    assert given.stream.closed.wait(20)


def test_asking_for_the_head_closes_the_body(port: int, given: Given) -> None:
    assert ask(port, "HEAD", "/stream")[:2] == (200, b"")
    assert given.stream.closed.wait(20)


def test_a_client_that_takes_nothing_is_cut_off(given: Given) -> None:
    given.stream.endless = True
    given.stream.go.set()
    server = _server(given, timeout=0.2)
    with socket.create_connection(("127.0.0.1", server.start()), timeout=20) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert given.stream.closed.wait(20)
    server.stop()


def test_stopping_ends_streams(given: Given) -> None:
    threads = NewThreads()
    server = _server(given)
    with socket.create_connection(("127.0.0.1", server.start()), timeout=20) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(4096)
        server.stop()
        given.stream.go.set()
        wait_for(lambda: not threads.named("process_request"))
