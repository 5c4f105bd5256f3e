"""The headers of a stream leave when it opens: some clients wait for them before they send anything."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from penstock.transport.grpc import reactor_calls
from penstock.transport.grpc.call import ServerCall, Status, Transport
from penstock.transport.grpc.reactor import Reactor
from support.calls import SECONDS, Handlers, Quiet, Reading, Silent, StreamEcho, served, stream

BAD = Status(grpc.StatusCode.INVALID_ARGUMENT, "no such order")


class Refusing(Silent):
    """A stream that is finished before anything has come."""

    def __init__(self, call: ServerCall) -> None:
        super().__init__(call)
        call.finish(BAD)


class Speaking(Reading):
    """A stream that sends before anything has come."""

    def __init__(self, call: ServerCall) -> None:
        super().__init__(call)
        call.send(b"first")


def test_headers_come_before_the_first_message(transport: type[Transport]) -> None:
    quiet = Quiet()
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter(quiet), timeout=SECONDS)
        # It returns once there are headers; without them only at the deadline.
        assert call.initial_metadata() is not None
        assert call.is_active()
        quiet.end()
        assert list(call) == []
        server.wait_until_empty()


def test_a_stream_that_speaks_first(transport: type[Transport]) -> None:
    quiet = Quiet()
    handlers = Handlers(Speaking)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter(quiet), timeout=SECONDS)
        assert next(call) == b"first"
        handlers.only().call.finish()
        assert list(call) == []
        quiet.end()


def test_an_error_at_once_comes_without_waiting_for_a_message(transport: type[Transport]) -> None:
    quiet = Quiet()
    handlers = Handlers(Refusing)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter(quiet), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert (raised.value.code(), raised.value.details()) == (BAD.code, BAD.details)
        quiet.end()
        server.wait_until_empty()
        assert handlers.only().told == ["closed"]


def test_headers_of_a_refused_stream_do_not_keep_its_client_from_trying_again(
    transport: type[Transport],
) -> None:
    """Clients try again what ended before its headers came: so an error at once must be sent without any."""
    tries = Handlers(lambda call: Refusing(call) if len(tries.made) < 2 else StreamEcho(call))
    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s",'
        ' "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["INVALID_ARGUMENT"]}}]}'
    )
    with served(transport, {"/t/S": stream(tries)}) as server:
        with server.channel(("grpc.service_config", policy)) as channel:
            assert list(channel.stream_stream("/t/S")(iter((b"1",)), timeout=SECONDS)) == [b"1"]
        assert len(tries.made) == 3


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The operations that calls of the reactor start, as the names of each batch."""
    seen: list[list[str]] = []
    real = reactor_calls.start

    def start(call: Any, operations: tuple[Any, ...], tag: Any) -> None:
        seen.append([type(each).__name__.removesuffix("Operation") for each in operations])
        real(call, operations, tag)

    monkeypatch.setattr(reactor_calls, "start", start)
    return seen


def test_headers_cost_no_step_of_their_own(batches: list[list[str]]) -> None:
    """They leave in the step that asks for the first message: no further event for the polling thread."""
    with served(Reactor, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter((b"1", b"2")), timeout=SECONDS)) == [b"1", b"2"]
        server.wait_until_empty()
    assert batches == [
        ["ReceiveCloseOnServer"],
        ["ReceiveMessage", "SendInitialMetadata"],
        *[["SendMessage"], ["ReceiveMessage"]] * 2,
        ["SendStatusFromServer"],
    ]
