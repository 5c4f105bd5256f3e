"""Every stream of a server sends its headers when it opens, before the client has sent a request."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from server import kit

STREAMS = (
    kit.STREAM,
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


class Waiting:
    """Requests of a client that sends its first one only after it has seen headers, and then sends none."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self.seen.wait(kit.BOUND)
        yield from ()


@pytest.mark.parametrize("method", STREAMS, ids=lambda name: name.rpartition("/")[2])
def test_headers_come_first(channel: grpc.Channel, method: str) -> None:
    requests = Waiting()
    call = channel.stream_stream(method)(iter(requests), timeout=kit.BOUND)
    assert call.initial_metadata() is not None  # it waits for them
    assert call.is_active(), "they came with the end of the call only"
    requests.seen.set()
    call.cancel()


def test_a_bad_order_still_ends_the_stream_at_once(channel: grpc.Channel) -> None:
    requests = Waiting()
    call = channel.stream_stream(kit.STREAM)(
        iter(requests), metadata=(("penstock-order", "alphabetical"),), timeout=kit.BOUND
    )
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    requests.seen.set()
