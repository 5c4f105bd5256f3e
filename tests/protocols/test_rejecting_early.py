"""While a model's queue is full, known requests are rejected without reading their inputs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from penstock.core.errors import QueueFull
from penstock.protocols.fast_path import known_requests
from penstock.protocols.fast_path.known_requests import KnownRequest
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_known_requests import Call, Server, add, message, wire
from protocols.test_known_requests import request as asked

PREDICT = "/penstock.v1.PredictionService/Predict"
STREAM = "/penstock.v1.PredictionService/PredictStream"
FULL = "the queue is full: 1 row is waiting, 1 more arrived, the limit is 1"


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The known requests whose inputs are read."""
    found: list[bytes] = []
    inputs_of = KnownRequest.inputs_of

    def reading(self: KnownRequest, data: bytes, places: Any) -> Any:
        found.append(data)
        return inputs_of(self, data, places)

    monkeypatch.setattr(KnownRequest, "inputs_of", reading)
    return found


def request(number: int) -> bytes:
    """A request, serialized."""
    return wire(asked(number))


def begin(server: Server, method: str, data: bytes) -> Call:
    """Sends a message, and runs nothing."""
    call = Call(ordered=False)
    server.service.methods()[method].handler(call).received(data)
    return call


def messages(call: Call) -> list[str]:
    """The texts of the errors on a stream."""
    found = [pb.PredictStreamResponse.FromString(each) for each in call.sent]
    return [result.error.message for each in found for result in each.results]


def test_the_inputs_of_a_rejected_request_are_not_read(read: list[bytes]) -> None:
    server = Server(add, queue_rows=1)
    server.unary(request(1))  # becomes known
    waits = begin(server, PREDICT, request(2))
    calls = [begin(server, PREDICT, request(number)) for number in range(3, 7)]
    assert waits.status is None
    assert {(each.status.code, each.status.details) for each in calls if each.status is not None} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, FULL)
    }
    trailing = [each.status.trailing for each in calls if each.status is not None]
    assert len(trailing) == 4
    assert trailing == [trailing[0]] * 4, "the first one is rejected by the queue itself"
    assert read == [request(2), request(3)]
    assert messages(begin(server, STREAM, message(asked(4)))) == [FULL]
    assert [type(error) for _, error in server.tally.failures] == [QueueFull] * 5
    server.work()
    assert waits.sent
    assert server.unary(request(8))[0] is grpc.StatusCode.OK
    assert read[-1] == request(8)
    assert not server.model.batcher.rejecting


def test_a_request_of_higher_priority_is_not_rejected_early() -> None:
    server = Server(add, queue_rows=1)
    urgent = wire(asked(1, priority=1))
    for each in (request(1), urgent):
        server.unary(each)
    waits = begin(server, PREDICT, request(2))
    assert begin(server, PREDICT, request(3)).status is not None
    goes_first = begin(server, PREDICT, urgent)
    assert goes_first.status is None
    assert waits.status is not None
    assert "removed from the queue for a request of higher priority" in waits.status.details
    server.work()
    assert goes_first.sent
