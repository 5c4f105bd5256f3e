"""The largest metadata of a call: one limit, which is met exactly, with no chance in it."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from penstock.transport.grpc.call import METADATA_BYTES, Limits, Method, Transport
from support.calls import SECONDS, Handlers, Silent, served, stream, unary, wait_until

OWN_BYTES = 600
"""More than what gRPC itself sends along with a call."""
TRIES = 30


def refused(channel: grpc.Channel, size: int) -> int:
    """How many of some calls with a token of `size` bytes are refused for it."""
    call, metadata = channel.unary_unary("/t/Echo"), (("authorization", "x" * size),)
    futures = [call.future(b"", metadata=metadata, timeout=SECONDS) for _ in range(TRIES)]
    errors = [each.exception() for each in futures]
    return sum("metadata size exceeds hard limit" in each.details() for each in errors if each is not None)


def test_by_default_16_kib(transport: type[Transport]) -> None:
    assert METADATA_BYTES == 16 * 1024
    with served(transport, {}) as server, server.channel() as channel:
        below = (100, 8_000, 11_000, 14_000, METADATA_BYTES - OWN_BYTES)
        assert [refused(channel, size) for size in below] == [0] * len(below)
        assert [refused(channel, size) for size in (METADATA_BYTES, 20_000)] == [TRIES] * 2


@pytest.mark.parametrize("limit", [2_048, 65_536, 2**20])
def test_a_limit_that_is_set(transport: type[Transport], limit: int) -> None:
    with served(transport, {}, limits=Limits(metadata_bytes=limit)) as server, server.channel() as channel:
        assert [refused(channel, size) for size in (limit - OWN_BYTES, limit)] == [0, TRIES]


@pytest.mark.parametrize("make", [unary, stream])
def test_what_the_server_sees_of_a_refused_call(
    transport: type[Transport], make: Callable[..., Method]
) -> None:
    """No message, and its end: as of a client that has gone away, so that these calls cannot be counted."""
    handlers = Handlers(Silent)
    with served(transport, {"/t/M": make(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/M")(
            iter((b"",)), metadata=(("authorization", "x" * 20_000),), timeout=SECONDS
        )
        with pytest.raises(grpc.RpcError) as raised:
            list(call)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.wait_until_empty()
        wait_until(lambda: not handlers.made or handlers.only().is_over)
        assert [each.told for each in handlers.made] in ([], [["cancelled"]])
