"""Calls that are refused: those of a turn end together, and those of other threads at once."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from penstock.transport.grpc.call import OK, Status, Transport
from penstock.transport.grpc.reactor import Reactor
from penstock.transport.grpc.reactor_calls import ReactorCall
from support.calls import SECONDS, Handlers, Silent, served, unary

FULL = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-retry-pushback-ms", "7"),))
CALLS = 20
WORK_SECONDS = 0.3
"""How long a call holds the polling thread up, while the others arrive."""


class Refusing(Silent):
    """Refuses every call."""

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.finish_in_turn(FULL)


class RefusingLater(Silent):
    """Refuses every call on a thread of its own, while the polling thread sleeps."""

    def received(self, message: bytes) -> None:
        super().received(message)
        threading.Timer(0.05, self.call.finish_in_turn, [FULL]).start()


@pytest.mark.parametrize("kind", [Refusing, RefusingLater])
def test_a_refused_call_ends_with_the_status_once(transport: type[Transport], kind: type[Silent]) -> None:
    handlers = Handlers(kind)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/t/M")(b"", timeout=SECONDS)
        error: grpc.Call = raised.value  # type: ignore[assignment]
        assert (error.code(), error.details()) == (FULL.code, FULL.details)
        assert ("grpc-retry-pushback-ms", "7") in error.trailing_metadata()
        server.wait_until_empty()
        assert handlers.only().told == ["received", "closed"]


def test_an_answered_call_is_not_refused(transport: type[Transport]) -> None:
    class Both(Silent):
        def received(self, message: bytes) -> None:
            self.call.finish(message=b"answer")
            self.call.finish_in_turn(FULL)

    with served(transport, {"/t/M": unary(Both)}) as server, server.channel() as channel:
        assert channel.unary_unary("/t/M")(b"", timeout=SECONDS) == b"answer"


def test_calls_that_are_refused_in_a_turn_end_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    held = threading.Event()
    finish = ReactorCall.finish

    def finishing(self: ReactorCall, status: Status = OK, message: bytes | None = None) -> None:
        order.append("finish")
        finish(self, status, message)

    monkeypatch.setattr(ReactorCall, "finish", finishing)

    class Hold(Silent):
        def received(self, message: bytes) -> None:
            held.set()
            time.sleep(WORK_SECONDS)
            self.call.finish()

    class Noted(Refusing):
        def received(self, message: bytes) -> None:
            order.append("received")
            super().received(message)

    methods = {"/t/Hold": unary(Hold), "/t/M": unary(Noted)}
    with served(Reactor, methods) as server, server.channel() as channel:
        hold = channel.unary_unary("/t/Hold").future(b"", timeout=SECONDS)
        assert held.wait(SECONDS)
        call = channel.unary_unary("/t/M")
        futures = [call.future(b"", timeout=SECONDS) for _ in range(CALLS)]
        assert {each.code() for each in futures} == {FULL.code}
        assert hold.code() is grpc.StatusCode.OK
    order.remove("finish")  # that of the call which held the others up
    assert order.count("received") == order.count("finish") == CALLS
    first = order.index("finish")
    assert first > 1, "several were taken before the first one was ended"
    assert set(order[first : 2 * first]) == {"finish"}, "and then they were ended in a row"
