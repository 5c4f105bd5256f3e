"""Finds out whether a client's connection is still open: gRPC does not tell its users when one ends.

The process's own sockets are looked through. That takes about 10 µs a socket, so it is done only when the
answer matters, at most about 2 % of the time, and on a thread of its own if there are many.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from urllib.parse import unquote

FOLDERS = ("/proc/self/fd", "/dev/fd")
"""Where systems list the open files of a process."""

AT_ONCE = 200
"""How many open files are looked through at once; with more, that is done on a thread."""

COST_FACTOR = 50
"""A look may be taken once this many times as long has passed as the looks before it took."""

CREDIT_SECONDS = 0.02
"""How much time looks in quick succession may take, before they have to wait."""

ESTABLISHED = 1
"""The state of a TCP connection that neither side has ended, as Linux counts."""


def host_of(peer: str) -> str:
    """The address in what gRPC calls a peer, without the port: "ipv4:127.0.0.1" of "ipv4:127.0.0.1:5000"."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


class Connections:
    """The connections of this process. May be used by any thread."""

    def __init__(self) -> None:
        self._open: frozenset[tuple[str, int]] | None = None
        self._looked = -math.inf
        self._paid = 0.0  # until when the looks so far have been paid for by time that has passed
        self._is_looking = False
        self._lock = threading.Lock()

    def is_open(self, peer: str, since: float) -> bool:
        """Whether a client's connection is open; also true if this cannot be told now.

        Args:
            peer: the connection, as `ServerCall.peer()` gives it; "" is one that is over.
            since: when a call last came on it, by `time.monotonic()`.
        """
        if not peer:
            return False
        address = _address(peer)
        if address is None:  # such as a Unix socket, where all connections have the same name
            return True
        with self._lock:
            if not self._is_closed(address, since):
                self._look()
            return not self._is_closed(address, since)

    def _is_closed(self, address: tuple[str, int], since: float) -> bool:
        """Whether the last look has shown that it is closed."""
        return self._looked >= since and self._open is not None and address not in self._open

    def _look(self) -> None:
        """Looks at the sockets, or has a thread do it; not if that has been done too often."""
        now = time.monotonic()
        if self._is_looking or self._paid > now + COST_FACTOR * CREDIT_SECONDS:
            return
        names = _open_files()
        if names is None or len(names) <= AT_ONCE:
            self._take(names)
            return
        self._is_looking = True
        try:
            threading.Thread(target=self._take, args=(names,), name="connections", daemon=True).start()
        except RuntimeError:  # no thread can be started now
            self._is_looking = False

    def _take(self, names: Sequence[str] | None) -> None:
        started = time.monotonic()
        found = None if names is None else _far_ends(names)
        ended = time.monotonic()
        self._open, self._looked = found, started  # in this order: `is_open` may read between the two
        self._paid = max(self._paid, started) + COST_FACTOR * (ended - started)
        self._is_looking = False


CONNECTIONS = Connections()
"""Those of this process."""


def _address(peer: str) -> tuple[str, int] | None:
    kind, _, rest = peer.partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(unquote(host).strip("[]")), int(port)


def _plain(host: str) -> str:
    """An address as both gRPC and sockets may write it: without a scope, IPv4 inside IPv6 as IPv4."""
    return host.partition("%")[0].removeprefix("::ffff:")


def _open_files() -> Sequence[str] | None:
    """The numbers of this process's open files; None if the system does not tell."""
    for folder in FOLDERS:
        try:
            return os.listdir(folder)
        except OSError:
            continue
    return None


def _far_ends(names: Sequence[str]) -> frozenset[tuple[str, int]] | None:
    """The far ends of open TCP connections among these files; None if they cannot be looked at now."""
    found = set()
    for place, name in enumerate(names):
        if place % AT_ONCE == AT_ONCE - 1:
            time.sleep(0.001)  # other threads go on
        try:
            copy = os.dup(int(name))
        except OSError as error:
            if error.errno == errno.EBADF:  # it has been closed in the meantime
                continue
            return None  # no file descriptor is left
        if (end := _far_end(copy)) is not None:
            found.add(end)
    return frozenset(found)


def _far_end(descriptor: int) -> tuple[str, int] | None:
    """The far end of a TCP connection that neither side has ended; closes the descriptor."""
    try:
        # The family only says how long an address may be: this one fits both kinds.
        connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)
    except OSError:
        os.close(descriptor)
        return None
    with connection:
        try:
            far = connection.getpeername()
            if hasattr(socket, "TCP_INFO"):
                state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                if state != ESTABLISHED:
                    return None
        except OSError:  # no socket, or not connected
            return None
    return (_plain(far[0]), far[1]) if isinstance(far, tuple) and len(far) >= 2 else None
