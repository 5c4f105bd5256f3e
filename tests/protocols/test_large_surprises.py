"""Answers that turn out far larger than earlier ones: requests that still wait are held as the bounds say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import Array, DataType
from penstock.protocols.answers import AnswerLimits, Answers
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_known_requests import Call, Server, message, request
from support.work import signature_of, spec

MIB = 2**20
SIGNATURE = signature_of([spec("x", ("N", 2)), spec("w", ("N",), DataType.INT64)], [spec("y", ("N", "L"))])
LARGE, MANY = 100, 40


def by_value(ran: list[int]) -> Any:
    """A model whose answers have 4 bytes, or 1 MiB where the input says so."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        number = int(inputs["w"].max())
        ran.append(number)
        return [np.full((len(inputs["w"]), MIB // 4 if number >= LARGE else 1), number, np.float32)]

    return run


@pytest.mark.parametrize("ordered", [True, False])
def test_what_waits_is_not_run_once_answers_are_far_larger(ordered: bool) -> None:
    ran: list[int] = []
    server = Server(by_value(ran), signature=SIGNATURE, max_rows=1)
    limits = AnswerLimits(stream=4 * MIB, caller=8 * MIB, total=16 * MIB)
    engine = server.service.engine
    server.service.answers = engine.held = Answers(engine, limits)
    call = Call(ordered)
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    for number in range(20):
        handler.received(message(request(number, tag=number + 1)))
        server.drain(call, handler)
    assert ran == list(range(20))
    handler.received(message(*[request(LARGE + number, tag=LARGE + number) for number in range(MANY)]))
    server.work()  # the client reads nothing
    assert len(ran) - 20 <= 6
    assert server.service.answers.used <= 6 * MIB
    for _ in range(MANY):  # now it reads: each answer that has left makes room for another one
        server.drain(call, handler)
    handler.half_closed()
    handler.closed(False)
    assert ran == [*range(20), *range(LARGE, LARGE + MANY)]
    results = [each for data in call.sent for each in pb.PredictStreamResponse.FromString(data).results]
    assert [each.tag for each in results][20:] == list(range(LARGE, LARGE + MANY))
    assert len(server.tally.done) == 20 + MANY
    assert (server.service.answers.used, engine.held.is_empty()) == (0, True)
