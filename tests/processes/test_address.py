"""A port is kept for processes that share it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import pytest

from penstock.core.errors import StartupError
from penstock.processes.address import ReservedPort


def listener(port: int, *, shares: bool) -> socket.socket:
    with ExitStack() as stack:
        made = stack.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        made.bind(("127.0.0.1", port))
        made.listen()
        stack.pop_all()
        return made


def test_those_that_share_can_listen_and_get_every_connection() -> None:
    with closing(ReservedPort("127.0.0.1", 0)) as reserved, listener(reserved.port, shares=True) as one:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", reserved.port)):
                one.settimeout(5)
                one.accept()[0].close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::"])
def test_nobody_else_can(host) -> None:
    with closing(ReservedPort(host, 0)) as reserved:
        with pytest.raises(OSError, match="in use"):
            listener(reserved.port, shares=False)
        with pytest.raises(StartupError, match=f":{reserved.port} for gRPC: Address already in use"):
            ReservedPort(host, reserved.port)


@pytest.mark.parametrize("shares", [True, False])
def test_a_port_that_somebody_has_is_not_to_be_had(shares) -> None:
    with listener(0, shares=shares) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            StartupError, match=f"cannot listen on 127.0.0.1:{port} for gRPC: Address already in use"
        ):
            ReservedPort("127.0.0.1", port)


def test_lingering_connections_do_not_take_the_port() -> None:
    with listener(0, shares=True) as earlier:
        port = earlier.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            earlier.accept()[0].close()  # who closes first has the lingering
            client.recv(1)
    ReservedPort("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_this_machine(host) -> None:
    with pytest.raises(StartupError, match=f"cannot listen on {host}:0 for gRPC: "):
        ReservedPort(host, 0)
