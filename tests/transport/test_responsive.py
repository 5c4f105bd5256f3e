"""Whether the polling thread comes by, as the probe of liveness asks."""

from __future__ import annotations

import threading

from penstock.transport.grpc.call import OK, Transport
from support.calls import SECONDS, Silent, served, unary


def test_a_polling_thread_that_is_held_up_is_noticed(transport: type[Transport]) -> None:
    begun, released = threading.Event(), threading.Event()

    class Held(Silent):
        def received(self, message: bytes) -> None:
            begun.set()
            released.wait(SECONDS)
            self.call.finish(OK, b"done")

    with served(transport, {"/t/M": unary(Held)}) as server, server.channel() as channel:
        assert server.transport.is_responsive(SECONDS)  # it waits for calls
        future = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        assert not server.transport.is_responsive(0.05)
        released.set()
        assert future.result() == b"done"
        assert server.transport.is_responsive(SECONDS)
