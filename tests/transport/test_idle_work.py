"""When idle work is done: once a burst of calls has been taken, and all the same under a flood of events."""

from __future__ import annotations

import asyncio
import threading

from penstock.transport.grpc.call import OK, ServerCall, Transport
from penstock.transport.grpc.portable import Portable
from support.calls import SECONDS, Silent, served, unary, wait_until


def test_calls_that_come_together_are_answered_together(transport: type[Transport]) -> None:
    waiting: list[ServerCall] = []
    batches: list[int] = []
    all_made = threading.Event()

    class Batched(Silent):
        def received(self, message: bytes) -> None:
            all_made.wait(SECONDS)  # so that those that come together do so however slow the machine is
            waiting.append(self.call)

    def idle() -> bool:
        if waiting:
            batches.append(len(waiting))
        while waiting:
            waiting.pop().finish(OK, b"idle")
        return False

    with served(transport, {"/t/M": unary(Batched)}, idle=idle) as server, server.channel() as channel:
        futures = [channel.unary_unary("/t/M").future(b"", timeout=SECONDS) for _ in range(1000)]
        all_made.set()
        assert {future.result() for future in futures} == {b"idle"}
    assert sum(batches) == 1000
    assert len(batches) < 500


def test_idle_work_is_done_while_every_pass_of_the_loop_brings_an_event() -> None:
    done: list[int] = []

    def idle() -> bool:
        done.append(len(passes))
        return False

    def flood(portable: Portable) -> None:
        passes.append(None)
        portable.schedule_idle_work()  # what a call says after each event
        if len(passes) < 1000:
            asyncio.get_running_loop().call_soon(flood, portable)

    passes: list[None] = []
    with served(Portable, {}, idle=idle) as server:
        assert isinstance(server.transport, Portable)
        server.transport.on_loop(flood, server.transport)
        wait_until(lambda: len(passes) == 1000)
        assert len([at for at in done if at < 1000]) >= 3
