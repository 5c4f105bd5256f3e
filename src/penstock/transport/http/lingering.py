"""How a connection is closed whose client may still be sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINGER_SECONDS, LINGER_PAUSE_SECONDS = 30.0, 5.0
"""How long a client may go on sending after its last answer, and how long it may pause meanwhile."""
LINGER_BYTES, UNTOLD_BYTES = 2**28, 2**24
"""How many bytes are read and dropped of a request whose answer has been sent: of a body whose length was
told, and of anything else."""


class Lingering:
    """A connection whose last answer has been sent, while its client is still sending.

    What comes is read and dropped: if it were left unread, the kernel would reset the connection, and the
    client could lose the answer, which says why it should stop.

    Args:
        transport: the connection's.
        most: how many bytes are read.
    """

    def __init__(self, transport: asyncio.Transport, most: int) -> None:
        self._transport = transport
        self._most = most
        self._began = self._last = 0.0  # as `check` has seen it
        self._bytes = 0
        self._seen = 0
        if transport.can_write_eof():
            transport.write_eof()  # the client sees that no more will come

    def received(self, size: int) -> None:
        """So many bytes have come."""
        self._bytes += size
        if self._bytes > self._most:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Closes the connection if it has taken too long; `now` by `time.monotonic()`."""
        self._began = self._began or now
        if self._bytes != self._seen or not self._last:
            self._seen, self._last = self._bytes, now
        if now - self._began > LINGER_SECONDS or now - self._last > LINGER_PAUSE_SECONDS:
            self._transport.abort()


class CycleTransport:
    """A connection's transport as uvicorn's answer to one request sees it: closing it may take a while.

    Args:
        transport: the transport.
        close: closes the connection, since the answer was its last.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
