"""Clients on grpc.aio, against both transports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from penstock.transport.grpc.call import Transport
from support.calls import Handlers, Silent, StreamEcho, served, stream, unary, wait_until

CLIENT = Path(__file__).with_name("aio_client.py")


def test_a_client_on_grpc_aio(transport: type[Transport]) -> None:
    streams, silent = Handlers(StreamEcho), Handlers(Silent)
    with served(transport, {"/t/S": stream(streams), "/t/Silent": unary(silent)}) as server:
        command = [sys.executable, str(CLIENT), server.target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        server.wait_until_empty()
        wait_until(lambda: all(handler.is_over for handler in streams.made))
        # One stream, three at once, one cancelled, one cut off by its channel.
        assert [handler.told[-1] for handler in streams.made] == ["closed"] * 4 + ["cancelled"] * 2
        assert silent.only().told == ["received", "cancelled"]
