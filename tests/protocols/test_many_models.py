"""Messages whose requests go to many models: they are read in one turn, and answered in one message."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from penstock.core.tensors import Array
from penstock.protocols import turns
from penstock.protocols.penstock_v1 import encoder
from penstock.protocols.penstock_v1.stream import ONE_TURN
from penstock.scheduling import runners as runners_module
from penstock.scheduling.runners import Runners
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_bounded_work import different, opened
from protocols.test_known_requests import Server, message, request
from support.work import Caller, batcher, echo
from support.work import request as core_request


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)


def runs_of(data: bytes, count: int) -> list[int]:
    """The rows of the runs of a message, if the thread takes every turn for over."""
    rows: list[int] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows.append(len(next(iter(inputs.values()))))
        return echo(outputs, inputs)

    server = Server(run, max_rows=64)
    call, handler = opened(server)
    handler.received(data)
    server.drain(call, handler)
    results = [len(pb.PredictStreamResponse.FromString(each).results) for each in call.sent]
    assert sum(results) == count
    return rows


def test_a_message_of_few_requests_is_read_in_one_turn() -> None:
    assert runs_of(different(ONE_TURN), ONE_TURN) == [ONE_TURN]


@pytest.mark.parametrize(
    "data", [different(ONE_TURN + 1), message(*[request(each, id="i" * 600) for each in range(ONE_TURN)])]
)
def test_one_of_more_takes_turns(data: bytes) -> None:
    count = len(pb.PredictStreamRequest.FromString(data).requests)
    assert len(runs_of(data, count)) > 1


def gathered(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[Any]:
    """What happens in which order if one stream waits for the answers of two models."""
    monkeypatch.setattr(runners_module, "GATHER_SECONDS", seconds)
    events: list[Any] = []
    failures: list[BaseException] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        events.append(float(inputs["x"].flat[0]))
        return echo(outputs, inputs)

    def flush() -> None:
        events.append("sent")

    runners = Runners(0, 1e9, failures.append)
    runners.start(threading.get_ident())
    for number in (1.0, 2.0):
        made, _ = batcher(run, expected_seconds=1e-6)
        made.put(core_request([number], reply=Caller(flush)))
        runners.notify(made)
    while runners.work_inline():
        pass
    runners.stop()
    assert failures == []
    return events


def test_quick_answers_of_several_models_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gathered(monkeypatch, 60.0) == [1.0, 2.0, "sent"]


def test_no_answer_waits_long_for_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gathered(monkeypatch, 0.0) == [1.0, "sent", 2.0, "sent"]


@pytest.mark.parametrize("rows", [0, 1, 200])
@pytest.mark.parametrize(
    "micros", [0, 1, 16, 17, 127, 128, 2097, 2098, 268_435, 268_436, 999_999, 1_000_000, 12_345_678]
)
def test_times_are_written_as_protobuf_writes_them(micros: int, rows: int) -> None:
    compute = encoder._compute(micros, rows)
    right = pb.PredictResponse()
    right.timing.queue.FromMicroseconds(micros)
    right.timing.compute.FromMicroseconds(micros)
    right.timing.batch_rows = rows
    assert encoder._beginnings(len(compute))(micros) + compute == right.SerializeToString()
