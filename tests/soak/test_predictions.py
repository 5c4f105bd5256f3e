"""A million predictions over streams."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from soak.held import growth
from support.servers import RunningServer

A_MESSAGE, IN_FLIGHT, A_STREAM = 32, 8, 64_000  # requests, messages, requests
WARM_UP, MEASURED = 128_000, 1_024_000
MOST_BYTES = 5e6


def stream(channel: grpc.Channel, requests: int) -> None:
    """Sends this number of requests on one stream; all must be answered, in order."""
    message = kit.message(*(kit.request("identity", x=kit.rows(1), tag=tag) for tag in range(A_MESSAGE)))
    data, room = message.SerializeToString(), threading.Semaphore(IN_FLIGHT)

    def messages() -> Iterator[bytes]:
        for _ in range(requests // A_MESSAGE):
            room.acquire()
            yield data

    call = channel.stream_stream(kit.STREAM, None, pb.PredictStreamResponse.FromString)
    tags, answered = itertools.cycle(range(A_MESSAGE)), 0
    for answer in call(messages(), timeout=20 * kit.BOUND):
        for result in answer.results:
            assert result.WhichOneof("result") == "response"
            assert result.tag == next(tags)
            answered += 1
            if answered % A_MESSAGE == 0:
                room.release()
    assert answered == requests


@pytest.mark.soak
def test_memory_over_a_million_predictions(
    server: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    def load(predictions: int) -> None:
        for _ in range(predictions // A_STREAM):
            stream(channel, A_STREAM)

    with kit.connect(server.target) as channel:
        _, grown = growth(server, load, WARM_UP, MEASURED, record_property)
    assert kit.metric(server.ops, "requests_total", code="OK") == WARM_UP + MEASURED
    assert grown < MOST_BYTES
