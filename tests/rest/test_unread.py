"""Answers over HTTP that nobody reads: how many the server makes, and that all are there later."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.server import Server
from penstock.transport.http.call import HttpCall
from rest import kit
from server.kit import metric
from support import zoo

MB = 1_000_000
WIDTH = 1_990_000  # FP32: answers of nearly 8 MB, in JSON as well; the system takes half of that at once
CALLERS = 12
TOTAL = 32 * MB
BOUNDS = {"stream_answer_bytes": 16 * MB, "caller_answer_bytes": 32 * MB, "total_answer_bytes": TOTAL}
STANDSTILL_SECONDS = 0.5
RECORD = json.dumps({"x": [1]}).encode()
BINARY = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
).encode()
ORIGIN = b"origin: http://127.0.0.1\r\n"
"""A request with it is answered by a task."""
HEAD = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\n%bcontent-length: %d\r\nconnection: %b\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server whose model does not tell how large its answers are."""
    models = {"wide": zoo.widened(WIDTH, named="W"), "small": zoo.identity()}
    with kit.serving(zoo.repository(tmp_path, models), **BOUNDS) as made:
        yield made


def answered(server: Server, least: int) -> float:
    """How many requests of large answers have been answered: at least so many, and once that stands still."""
    before, now = -1.0, 0.0
    end = time.monotonic() + kit.BOUND
    while now != before or (now < least and time.monotonic() < end):
        time.sleep(STANDSTILL_SECONDS)
        before, now = now, metric(ops(server), "requests_total", model="wide", code="OK")
    return now


def ops(server: Server) -> str:
    return f"http://127.0.0.1:{server.ops_port}"


@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        (b"/predict/wide", RECORD, b""),
        (b"/v2/models/wide/infer", BINARY, b""),
        (b"/predict/wide", RECORD, ORIGIN),
    ],
)
def test_answers_that_nobody_reads_are_few(server: Server, path: bytes, body: bytes, line: bytes) -> None:
    client = kit.Client(server.http_port)
    # Once their size is known.
    assert client.call("POST", path.decode(), body).status == 200
    with ExitStack() as stack:
        callers = [stack.enter_context(client.raw(window=4096)) for _ in range(CALLERS)]
        for each in callers:
            each.sendall(HEAD % (path, line, len(body), b"close") + body)
        assert 1 < answered(server, 3) - 1 < CALLERS
        assert 0 < metric(ops(server), "answer_bytes") <= 2 * TOTAL
        assert client.post("/predict/small", {"x": [1, 2, 3]}).status == 200
        callers.pop().close()
        for each in callers:
            assert len(kit.until_closed(each)) > 4 * WIDTH
    kit.wait_until(lambda: not metric(ops(server), "answer_bytes"), "nothing counts any more")
    kit.wait_until(lambda: not server.calls_in_flight, "every call has ended")


def test_a_connection_whose_answer_is_read_late_goes_on(server: Server) -> None:
    """The requests behind it, sent ahead or later, are answered in order."""
    client = kit.Client(server.http_port)
    with client.raw(window=4096) as made:
        for _ in range(3):
            made.sendall(HEAD % (b"/predict/wide", b"", len(RECORD), b"keep-alive") + RECORD)
        kit.wait_until(lambda: metric(ops(server), "answer_bytes") > 0, "an answer counts")
        small = json.dumps({"x": [1, 2, 3]}).encode()
        made.sendall(HEAD % (b"/predict/small", b"", len(small), b"close") + small)
        came = kit.until_closed(made)
    assert came.count(b"HTTP/1.1 200 OK") == 4
    assert came.endswith(b'{"y":[1.0,2.0,3.0]}')
    kit.wait_until(lambda: not metric(ops(server), "answer_bytes"), "nothing counts any more")
    kit.wait_until(lambda: not server.calls_in_flight, "every call has ended")


@pytest.mark.parametrize("line", [b"", ORIGIN])
def test_a_connection_keeps_no_answer_that_has_left(server: Server, line: bytes) -> None:
    """It would keep one until its next request, or for as long as Python's garbage collector takes."""
    with kit.Client(server.http_port).raw() as made:
        made.sendall(HEAD % (b"/predict/wide", line, len(RECORD), b"keep-alive") + RECORD)
        came = 0
        while came < 4 * WIDTH:
            came += len(made.recv(MB))
        kit.wait_until(lambda: not server.calls_in_flight, "the call has ended")
        calls = [each for each in gc.get_objects() if isinstance(each, HttpCall)]
        kept = [each.result[1] for each in calls if each.result is not None]
        assert [len(each) for each in kept if each is not None and len(each) > MB] == []


def test_a_stop_says_that_an_answer_was_not_taken(server: Server) -> None:
    with kit.Client(server.http_port).raw(window=4096) as made:
        made.sendall(HEAD % (b"/predict/wide", b"", len(RECORD), b"keep-alive") + RECORD)
        assert answered(server, 1) == 1
        assert not server.stop(0.5)
