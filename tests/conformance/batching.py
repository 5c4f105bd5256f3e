"""Sends the rows of many callers to a server at once, and looks whether every one is answered as if alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.core.tensors import DataType
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import prediction_pb2_grpc as pb_grpc
from tests.conformance.closeness import apart, is_within
from tests.conformance.protocols import BOUND, outputs_of, prediction, said, streamed
from tests.conformance.tensors import Raw, Tensors, difference, unpacked

STREAMED = 32
"""Requests of one row in one message of a stream: they arrive together, so they can be run together."""
AT_ONCE = 16
"""Calls that are made before the first of them is answered."""


@dataclass
class Answered:
    """How one model answered rows that came together.

    Attributes:
        requests: how many rows were sent.
        together: the most rows of one run that an answer was part of.
        equal: how many rows were answered bit for bit as alone.
        worst: by how much the others differ at most, relative to the output's largest value.
        wrong: in words, what no tolerance allows.
    """

    requests: int = 0
    together: int = 0
    equal: int = 0
    worst: float = 0.0
    wrong: list[str] = field(default_factory=list)


def send_together(
    channel: grpc.Channel, model: str, rows: Sequence[Mapping[str, Raw]], alone: Sequence[Tensors]
) -> Answered:
    """Sends every row several times: in one message of a stream, then by as many calls at once.

    Args:
        channel: a connection to the server.
        model: the name of a model.
        rows: the inputs of each row.
        alone: what each row alone gives.
    """
    answered = Answered()
    try:
        requests = [prediction(model, rows[place % len(rows)]) for place in range(STREAMED)]
        _take(answered, streamed(channel, requests), alone)
        _take(answered, _called_at_once(channel, requests[:AT_ONCE]), alone)
    except (grpc.RpcError, ValueError) as error:
        answered.wrong.append(said(error))
    return answered


def _called_at_once(channel: grpc.Channel, requests: Sequence[pb.PredictRequest]) -> list[pb.PredictResponse]:
    stub: Any = pb_grpc.PredictionServiceStub(channel)
    calls = [stub.Predict.future(request, timeout=BOUND) for request in requests]
    return [call.result() for call in calls]


def _take(answered: Answered, responses: Sequence[pb.PredictResponse], alone: Sequence[Tensors]) -> None:
    for place, response in enumerate(responses):
        answered.requests += 1
        answered.together = max(answered.together, response.timing.batch_rows)
        expected, came = alone[place % len(alone)], outputs_of(response)
        different = difference(expected, came)
        if different is None:
            answered.equal += 1
            continue
        worst = _worst(expected, came)
        if worst is None:
            answered.wrong.append(different)
        else:
            answered.worst = max(answered.worst, worst)


def _worst(expected: Tensors, came: Tensors) -> float | None:
    """The largest difference of any output; None where it is too large, or there is another one."""
    worst = 0.0
    for name, one in expected.items():
        other = came.get(name)
        if other is None or other[:2] != one[:2]:
            return None
        if one == other:
            continue
        datatype = DataType[one.datatype]
        if datatype is DataType.BYTES:
            return None
        first, second = unpacked(one), unpacked(other)
        found = apart(datatype, first, second, first)
        if not is_within(datatype, found):
            return None
        worst = max(worst, found)
    return worst
