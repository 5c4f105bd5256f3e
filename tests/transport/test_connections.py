"""Whether a connection is open is seen in the process's own sockets."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator

import pytest

from penstock.transport.grpc import connections
from penstock.transport.grpc.connections import Connections, host_of


def peer_of(client: socket.socket) -> str:
    """What gRPC would call the client of this connection."""
    host, port = client.getsockname()[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


@pytest.fixture(params=["127.0.0.1", "::1", "both"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end of a connection, and the server's."""
    family = socket.AF_INET if request.param == "127.0.0.1" else socket.AF_INET6
    address = ("::" if request.param == "both" else request.param, 0)
    with socket.create_server(address, family=family, dualstack_ipv6=request.param == "both") as listening:
        port = listening.getsockname()[1]
        host = "127.0.0.1" if request.param == "both" else request.param
        with socket.create_connection((host, port)) as client, listening.accept()[0] as served:
            yield client, served


def test_a_connection_is_open_until_either_side_ends_it(ends: tuple[socket.socket, socket.socket]) -> None:
    client, served = ends
    seen, peer = Connections(), peer_of(client)
    assert seen.is_open(peer, time.monotonic())
    client.close()
    assert not seen.is_open(peer, time.monotonic())
    served.close()
    assert not seen.is_open(peer, time.monotonic())


def test_what_cannot_be_told_counts_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Connections().is_open("unix:", 0.0)
    assert not Connections().is_open("", 0.0)
    monkeypatch.setattr(connections, "FOLDERS", ("/nowhere",))
    assert Connections().is_open("ipv4:127.0.0.1:1", 0.0)


def test_a_look_before_the_last_call_says_nothing() -> None:
    seen = Connections()
    assert not seen.is_open("ipv4:127.0.0.1:1", 0.0)
    assert seen.is_open("ipv4:127.0.0.1:1", math.inf)


def test_many_files_are_looked_through_by_a_thread(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "AT_ONCE", 2)
    seen, (client, _) = Connections(), ends
    peer, since = peer_of(client), time.monotonic()
    client.close()
    assert seen.is_open(peer, since), "not known yet"
    end = time.monotonic() + 30
    while seen.is_open(peer, since):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_looks_take_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, looks = Connections(), list[float]()

    def slowly() -> list[str]:
        looks.append(time.monotonic())
        return []

    def ends(names: object) -> frozenset[tuple[str, int]]:
        time.sleep(0.03)
        return frozenset({("127.0.0.1", 1)})

    monkeypatch.setattr(connections, "_open_files", slowly)
    monkeypatch.setattr(connections, "_far_ends", ends)
    for _ in range(1000):
        assert seen.is_open("ipv4:127.0.0.1:1", 0.0)
    assert len(looks) <= 2


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:50", "ipv4:10.0.0.1"),
        ("ipv6:%5B::1%5D:50", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_an_address_is_a_peer_without_its_port(peer: str, host: str) -> None:
    assert host_of(peer) == host
