"""A message with very many requests: what it leaves behind is freed in turns, and too many are not read."""

from __future__ import annotations

import gc
from dataclasses import replace

import grpc
import pytest

from penstock.protocols import turns
from penstock.protocols.penstock_v1 import stream
from penstock.protocols.penstock_v1.decoder import DecodedPredict
from penstock.protocols.work import Bounds
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_bounded_work import opened
from protocols.test_known_requests import Call, Server, add, message, request

MANY = 100


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)


def unknown(count: int, long_first: int = 0) -> bytes:
    """Requests for a model that does not exist; the first ones are long, if so many are asked for."""
    made = [request(1, id="i" * (1000 if number < long_first else 1)) for number in range(count)]
    for each in made:
        each.model = "missing"
    return message(*made)


def in_memory() -> int:
    """How many requests that have been parsed are in memory."""
    return sum(isinstance(each, DecodedPredict) for each in gc.get_objects())


def largest_drop(server: Server) -> tuple[int, int]:
    """Takes all turns: the most parsed requests that were in memory, and the most that one turn has freed."""
    gc.collect()
    now = most = in_memory()
    drop = 0
    while server.runners.work_inline():
        before, now = now, in_memory()
        most, drop = max(most, now), max(drop, before - now)
    return most, max(drop, now - in_memory())


def test_the_requests_of_a_message_are_freed_in_turns() -> None:
    """All at once took 7 ms for 16,384 of them."""
    server = Server(add)
    call, handler = opened(server)
    handler.received(unknown(MANY))
    most, drop = largest_drop(server)
    assert most >= MANY
    assert drop < MANY / 10
    handler.half_closed()
    server.drain(call, handler)
    assert results(call) == MANY


def test_the_requests_of_a_rejected_message_are_freed_in_turns() -> None:
    server = Server(add)
    server.service.bounds = Bounds(requests=MANY)
    call, handler = opened(server)
    handler.received(unknown(2 * MANY, long_first=MANY // 2))
    most, drop = largest_drop(server)
    assert most >= MANY
    assert drop < MANY / 10
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_requests_of_a_call_that_ends_are_freed_in_turns() -> None:
    server = Server(add)
    _, handler = opened(server)
    handler.received(unknown(MANY))
    for _ in range(MANY + MANY // 2):
        server.runners.work_inline()
    handler.closed(True)
    _, drop = largest_drop(server)
    assert drop < MANY / 10


def test_a_message_with_far_too_many_requests_is_not_parsed() -> None:
    """Each caller whose messages were rejected took 100 ms for the requests that were within the limit."""
    server = Server(add)
    server.service.bounds = Bounds(requests=MANY)
    parsed: list[bytes] = []
    codec = server.service.codec
    server.service.codec = replace(codec, decode=lambda data: (parsed.append(data), codec.decode(data))[1])
    call, handler = opened(server)
    handler.received(unknown(2 * MANY))
    server.drain(call, handler)
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"more than {MANY} requests" in call.status.details
    assert parsed == []


def test_counting_takes_turns_as_well() -> None:
    server = Server(add)
    server.service.bounds = Bounds(requests=10_000)
    call, handler = opened(server)
    handler.received(b"\x0a\x00" * 20_000)
    steps = 0
    while server.runners.work_inline():
        steps += 1
    assert steps > 10
    assert call.status is not None
    assert "more than 10000 requests" in call.status.details


def test_results_that_are_known_leave_between_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 16,384 requests for unknown models took 20 ms to be sent at once."""
    monkeypatch.setattr(stream, "MANY", 10)
    server = Server(add)
    call, handler = opened(server)
    handler.received(unknown(MANY))
    for _ in range(MANY + MANY // 2):
        server.runners.work_inline()
    assert call.sent, "half of them have their results"
    handler.half_closed()
    server.drain(call, handler)
    assert results(call) == MANY
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.OK


def test_those_of_fewer_requests_leave_together() -> None:
    server = Server(add)
    call, handler = opened(server)
    handler.received(unknown(MANY))
    server.drain(call, handler)
    assert len(call.sent) == 1
    assert results(call) == MANY


def results(call: Call) -> int:
    return sum(len(pb.PredictStreamResponse.FromString(data).results) for data in call.sent)
