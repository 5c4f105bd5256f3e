"""Reserves the port that the workers share (SO_REUSEPORT)."""

from __future__ import annotations

import errno
import socket
from typing import TypeAlias

from penstock.core.address import address
from penstock.core.listening import GRPC, Purpose, listening_failed

_WILDCARDS = ("0.0.0.0", "::")
_ATTEMPTS = 5  # to find a port that is free at every address of the host

_Info: TypeAlias = tuple[int, str | int]
"""Address family and IP address."""


class ReservedPort:
    """A port that the workers of this user can share, and no other user's process can have.

    A worker that shares its port would share it with any other program that does, too. So the port is bound
    here first, without sharing, which fails if any socket is bound to it. From then on only sockets that
    share can be bound to it. The sockets here never listen, so the kernel gives them no connections.

    Args:
        host: a name, or an IP address.
        port: 0 chooses a free one.
        purpose: what the port is for.

    Attributes:
        port: the port.

    Raises:
        StartupError: the port is taken, or the host is not this machine's.
    """

    def __init__(self, host: str, port: int, purpose: Purpose = GRPC) -> None:
        try:
            self._sockets = _bound_everywhere(_addresses(host), port)
        except OSError as error:
            raise listening_failed(address(host, port), purpose, error.strerror or str(error)) from error
        self.port = int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        """Releases the port."""
        for each in self._sockets:
            each.close()


def _addresses(host: str) -> list[_Info]:
    # gRPC, too, listens on all addresses with one socket for IPv6 and IPv4 where there is IPv6.
    if host in _WILDCARDS:
        return [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, where[0]) for family, *_, where in found))


def _bound_everywhere(addresses: list[_Info], port: int) -> list[socket.socket]:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _bound(addresses, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _bound(addresses: list[_Info], port: int) -> list[socket.socket]:
    """A socket at each of the addresses that this machine has, all on one port."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, where in addresses:
        try:
            made = _socket(family, str(where), port)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                missing = error
                continue
            for each in sockets:
                each.close()
            raise
        sockets.append(made)
        port = made.getsockname()[1]
    if not sockets and missing is not None:
        raise missing
    return sockets


def _socket(family: int, where: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections of an earlier server that still linger do not count as taking the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((where, port))
        # Off again, or another supervisor could do the same before our workers listen.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        made.close()
        raise
    return made
