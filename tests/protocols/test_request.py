"""What a request carries from its message or its call to the core, and which models recognise it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.request import Request
from penstock.core.tensors import Signature
from penstock.protocols.fast_path import known_requests
from penstock.protocols.penstock_v1 import stream
from penstock.protocols.penstock_v1.service import PredictionService
from penstock.protocols.service import ROUTE_KEY, TRACE
from penstock.transport.grpc.call import OK
from protocols.test_known_requests import (
    SIGNATURE,
    Call,
    NoObserver,
    Server,
    add,
    message,
    numbers,
    request,
    wire,
)
from support.work import signature_of, spec

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LARGER = signature_of(
    [spec("x", ("N", 2)), SIGNATURE.inputs["w"]], [spec("y", ("N", 2)), spec("z", ("N", 2))]
)


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


class CallWith(Call):
    """A call with headers."""

    def __init__(self, headers: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.metadata = headers


def unary(server: Server, data: bytes, *headers: tuple[str, str]) -> Request:
    call = CallWith(headers)
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(data)
    server.work()
    handler.closed(False)
    return server.tally.done[-1]


class Later(Executor):
    """A worker that begins when the test says so."""

    def __init__(self) -> None:
        self.begin: list[Callable[[], object]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.begin.append(lambda: fn(*args, **kwargs))
        return Future()


@pytest.mark.parametrize("when", ["before the worker begins", "while its answer's size is counted"])
def test_a_call_that_ends_while_a_worker_has_its_message_leaves_nothing_counted(when: str) -> None:
    """What stays counted would take the room of later answers, until all calls with large ones wait."""
    server, worker = Server(add, max_rows=256), Later()
    server.service = PredictionService(
        server.service.engine, NoObserver(), worker, 10, 100, server.failures.append
    )
    answers = server.service.answers
    method = server.service.methods()["/penstock.v1.PredictionService/Predict"]

    class Ending(Call):
        def peer(self) -> str:
            if when.startswith("while"):
                handler.closed(True)
            return "ipv4:127.0.0.1:1"

    large = wire(request(rows=256))
    for number in range(3):
        handler = method.handler(Ending())
        handler.received(large)
        if when.startswith("before"):
            handler.closed(True)
        worker.begin.pop()()
        server.work()
        assert answers.used == 0, number
    handler = method.handler(call := Call())
    handler.received(large)
    worker.begin.pop()()
    assert answers.used == 256 * 8, "an answer that somebody waits for counts"
    server.work()
    handler.closed(False)
    assert (call.status, answers.used) == (OK, 0)


def streamed(server: Server, *sent: Any) -> list[Request]:
    server.tally.done.clear()
    server.stream([message(*sent)])
    return list(server.tally.done)


def reading(*names: str) -> Server:
    server = Server(add)
    server.service.reads = frozenset(names)
    return server


@pytest.mark.parametrize("times", [1, 3], ids=["parsed", "recognised"])
def test_a_unary_call_carries_it_in_its_headers(times: int) -> None:
    server = reading(TRACE, ROUTE_KEY)
    for number in range(times):
        parent = PARENT if number % 2 else OTHER
        data = wire(request(number, metadata={TRACE: "not this"}))
        made = unary(server, data, (TRACE, parent), (ROUTE_KEY, f"user {number}"))
        assert (made.trace, made.key, made.caller) == (parent, f"user {number}", None)
    made = unary(server, wire(request()))
    assert (made.trace, made.key) == (None, None)


@pytest.mark.parametrize("count", [1, 3, 8], ids=["one", "some", "a micro-batch"])
def test_a_request_of_a_stream_carries_it_itself(count: int) -> None:
    server = reading(TRACE, ROUTE_KEY)
    metadata = {TRACE: PARENT, ROUTE_KEY: "user"}
    for _ in range(2):
        made = streamed(server, *[request(number, tag=200, metadata=metadata) for number in range(count)])
        assert {(each.trace, each.key) for each in made} == {(PARENT, "user")}
        assert sum(each.count for each in made) == count
        made = streamed(server, *[request(number, tag=200) for number in range(count)])
        assert {(each.trace, each.key) for each in made} == {(None, None)}


def test_a_unary_call_and_a_stream_that_send_the_same_bytes() -> None:
    server = reading(TRACE)
    data = request(1, metadata={TRACE: PARENT})
    assert unary(server, wire(data), (TRACE, OTHER)).trace == OTHER
    assert streamed(server, data)[0].trace == PARENT
    assert unary(server, wire(data)).trace is None


def test_only_what_is_asked_for_is_read() -> None:
    server = reading(ROUTE_KEY)
    made = unary(server, wire(request()), (TRACE, PARENT), (ROUTE_KEY, "user"))
    assert (made.trace, made.key) == (None, "user")


def test_nothing_is_read_unless_it_is_asked_for() -> None:
    server = Server(add)

    class Untouchable(Call):
        @property
        def metadata(self) -> Any:
            raise AssertionError("the headers were looked at")

        @metadata.setter
        def metadata(self, value: Any) -> None: ...

    call = Untouchable()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(request(1, metadata={TRACE: PARENT})))
    server.work()
    assert call.status is not None
    assert (server.tally.done[-1].trace, server.tally.done[-1].key) == (None, None)


def test_another_version_of_the_same_signature_keeps_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(add)
    server.unary(wire(request(1)))
    server.model = server.load(lambda names, inputs: [-inputs["x"] for _ in names])
    server.unary(wire(request(1)))  # the new version's first request is parsed
    monkeypatch.setattr("penstock.protocols.penstock_v1.decoder.parsed", None)  # calling it would fail
    for number in (2, 3):
        _, _, (answer,) = server.unary(wire(request(number)))
        assert numbers([answer]) == [-number]
    assert len(server.service.known_requests) <= 2


@pytest.mark.parametrize(
    ("signature", "changes"),
    [
        (signature_of([spec("x", ("N", 3)), SIGNATURE.inputs["w"]], [spec("y", ("N", 2))]), {}),
        (LARGER, {}),
        (SIGNATURE, {"batched": False}),
    ],
    ids=["another input", "another output", "not batched"],
)
def test_a_version_that_reads_otherwise_is_asked_anew(signature: Signature, changes: dict[str, Any]) -> None:
    server, fresh = Server(add), Server(add, signature=signature, **changes)
    server.unary(wire(request(1)))
    server.model = server.load(add, signature, **changes)
    for number in (2, 3):
        assert server.unary(wire(request(number))) == fresh.unary(wire(request(number)))


KINDS = ((SIGNATURE, True), (SIGNATURE, False), (LARGER, True))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.integers(0, 2), st.tuples(st.integers(1, 3), st.integers(0, 2))), max_size=12))
def test_requests_mean_the_same_whichever_version_answers(steps: list[Any]) -> None:
    """Versions come and go; a server that learns answers as one that parses everything."""
    known, parsed = Server(add), Server(add, learns=False)
    for step in steps:
        if isinstance(step, int):
            signature, batched = KINDS[step]
            for server in (known, parsed):
                server.model = server.load(add, signature, batched=batched)
            continue
        rows, number = step
        data = wire(request(number, rows, outputs=["y"] if number else []))
        assert known.unary(data) == parsed.unary(data)
        many = [message(*[request(number + each, rows, tag=200 + each) for each in range(6)])]
        assert known.stream(many) == parsed.stream(many)


def test_a_message_that_is_not_recognised_is_parsed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parses: list[str] = []
    parsed = stream.parsed
    monkeypatch.setattr(
        stream, "parsed", lambda kind, data: parses.append(kind.__name__) or parsed(kind, data)
    )
    server = Server(add, learns=False)
    odd = message(request(1, tag=1), request(2, tag=2)) + b"\x1a\x00"  # with a field that is not known
    _, _, results = server.stream([odd])
    assert numbers(results) == [2, 4]
    assert parses == ["PredictStreamRequest"]
    assert not len(server.service.known_requests)
