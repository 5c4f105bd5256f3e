"""What only the portable road has: a watch over grpc.aio's server, which may give up."""

from __future__ import annotations

import pytest

from penstock.transport import portable
from penstock.transport.portable import Portable
from support.calls import Handlers, Silent, served, unary


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
