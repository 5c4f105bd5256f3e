"""What only the portable transport has: a watch over grpc.aio's server, which may give up."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from penstock.transport.grpc import portable
from penstock.transport.grpc.call import OK
from penstock.transport.grpc.portable import Portable
from support.calls import SECONDS, Handlers, Silent, served, unary, wait_until


@pytest.mark.parametrize("calls", [0, 50, 500])
def test_a_server_that_stops_is_not_taken_for_one_that_has_given_up(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(portable, "WATCH_SECONDS", 0.002)
    for _ in range(10):
        handlers = Handlers(Silent)
        with served(Portable, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
            call = channel.unary_unary("/t/M")
            held = [call.future(b"", timeout=10) for _ in range(calls)]
            server.check_alive()
            server.transport.close()
            assert isinstance(server.transport, Portable)
            assert len(server.transport._servers) == 1
            assert all(future.exception() is not None for future in held)


def test_an_answer_to_a_loop_that_is_closed_is_no_failure_of_this_one() -> None:
    """Grpc hands the events of all loops of a process to the one that wakes first."""
    handlers = Handlers(Silent)
    with served(Portable, {"/t/M": unary(handlers)}) as server:

        async def ask() -> list[Any]:
            channel = grpc.aio.insecure_channel(server.target)
            call = channel.unary_unary("/t/M")(b"")
            while not (handlers.made and handlers.made[0].told):
                await asyncio.sleep(0.001)
            return [channel, call]

        kept = asyncio.run(ask())  # ends the call's tasks and closes the loop; core still has the call
        handlers.only().call.finish(OK, b"too late")
        server.wait_until_empty()
        server.check_alive()
        kept.clear()


def test_a_stop_that_grpc_does_not_finish_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stop_for_ever(grace: float | None) -> None:
        await stop(grace)
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(portable, "STOP_SECONDS", 0.2)
    with served(Portable, {}) as server:
        assert isinstance(server.transport, Portable)
        stop = server.transport._servers[0].stop
        monkeypatch.setattr(server.transport._servers[0], "stop", stop_for_ever)
        server.transport.close()
        server.transport._thread.join(SECONDS)
        assert not server.transport._thread.is_alive()


class Large(Silent):
    """A unary method: answers with more than is sent before the client begins to read."""

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.finish(OK, bytes(3_000_000))


def test_who_leaves_while_an_answer_is_sent_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers(Large)
    with served(Portable, {"/t/M": unary(handlers)}) as server:
        for _ in range(10):
            handlers.made.clear()
            with server.channel() as channel:
                calls = [channel.unary_stream("/t/M")(b"", timeout=SECONDS) for _ in range(50)]
                wait_until(lambda: sum("received" in each.told for each in handlers.made) == 50)
                for call in calls:
                    call.cancel()
        server.wait_until_empty()
        server.check_alive()
    assert [each.getMessage() for each in caplog.records] == []
