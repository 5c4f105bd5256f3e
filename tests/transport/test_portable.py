"""What only the portable road has: a watch over grpc.aio's server, which may give up."""

from __future__ import annotations

import pytest

from penstock.transport import portable
from penstock.transport.call import OK
from penstock.transport.portable import Portable
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
