"""How fast a client takes what is sent to it."""

from __future__ import annotations

import asyncio
import socket
import struct

LEAST_TAKEN = 16_384
"""A client that takes fewer bytes of an answer within `connection.WAIT_SECONDS` is cut off."""
ACKED = struct.Struct("=Q")
ACKED_AT = 120
"""Where `tcpi_bytes_acked` is in the `struct tcp_info` of Linux since 4.1: what the other end has taken."""
INFO_BYTES = ACKED_AT + ACKED.size
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)


class Intake:
    """Sees whether a client takes what waits for it.

    That the buffer of the transport gets smaller says too little: the kernel's own holds megabytes, and takes
    more only when a third of it is free, which a client with a slow network may need minutes for. So the
    kernel is asked how much the client has taken. Where it cannot say, any change of the buffer counts.

    Args:
        transport: of the connection.
    """

    __slots__ = ("_mark", "_since", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._since: float | None = None  # when it had last taken enough; None while nothing waits
        self._mark = 0  # what it had taken then

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Whether the client takes too little.

        Args:
            now: the time, by `time.monotonic()`.
            seconds: how long it may take too little.
        """
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._since = None
            return False
        taken = self._taken()
        enough = LEAST_TAKEN
        if taken is None:
            taken, enough = unsent, 1
        if self._since is None or abs(taken - self._mark) >= enough:
            self._mark, self._since = taken, now
            return False
        return now - self._since > seconds

    def _taken(self) -> int | None:
        """The bytes that the client has taken so far; None if the kernel does not say."""
        found = self._transport.get_extra_info("socket")
        if TCP_INFO is None or found is None:
            return None
        try:
            info = found.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_BYTES)
        except OSError:
            return None
        return int(ACKED.unpack_from(info, ACKED_AT)[0]) if len(info) == INFO_BYTES else None
