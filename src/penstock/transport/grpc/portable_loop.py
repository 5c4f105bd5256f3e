"""The event loop of the portable transport, which reads what grpc.aio's own thread writes without delay.

Grpc.aio's thread writes a byte to a socket for each event. Its reader in the loop takes one byte and all
events that are ready, so after many events at once the bytes that are left wake the loop as many times for
nothing. Worse, a socket of Linux holds 278 such bytes, and who writes to a full one is woken when three
quarters of them have been read. Beside 200 busy streams grpc's thread stood still for 209 of 210 passes of
the loop, and a call that arrives, which needs several of its steps, waited for seconds.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import sys
from typing import TYPE_CHECKING, TypeAlias

from typing_extensions import override

Ready: TypeAlias = "list[tuple[selectors.SelectorKey, int]]"

LEAST_SECONDS = 0.001  # epoll waits for whole milliseconds
FEW_FILES = 1024  # `select` takes only files with lower numbers
IN_A_ROW = 3
"""After this number of passes that found something, all bytes of a socket are reported. To ask how many there
are takes 1 µs, which a lone call need not pay."""
MOST_BYTES = 256  # of a socket, in one pass of the loop


class Noting(selectors.DefaultSelector):
    """A selector that notes whether it has found anything.

    Attributes:
        found: whether anything has been ready since this was last set to False.
    """

    found = False

    @override
    def select(self, timeout: float | None = None) -> Ready:
        ready = super().select(timeout)
        self.found = self.found or bool(ready)
        return ready


if TYPE_CHECKING or hasattr(select, "epoll"):
    from fcntl import ioctl
    from termios import FIONREAD

    class EachByte(Noting):
        """Reports a socket that is readable again and again as often as it has bytes, now and then.

        It also waits for less than a millisecond, which epoll by itself does not.
        """

        def __init__(self) -> None:
            super().__init__()
            # The base class looks at much more; this is the same epoll, which closes its own descriptor.
            self._epoll = select.epoll.fromfd(os.dup(self.fileno()))
            self._in_a_row = 0
            self._size = bytearray(4)

        @override
        def select(self, timeout: float | None = None) -> Ready:
            if timeout is not None and 0 < timeout < LEAST_SECONDS and self.fileno() < FEW_FILES:
                select.select((self.fileno(),), (), (), timeout)
                timeout = 0
            found = self._epoll.poll(timeout)
            if not found:
                self._in_a_row = 0
                return []
            self.found = True
            self._in_a_row += 1
            ready: Ready = []
            keys = self.get_map()
            try:
                for file, event in found:
                    if event != select.EPOLLIN:
                        return super().select(0)
                    entry = (keys[file], selectors.EVENT_READ)
                    ready += (entry,) if self._in_a_row < IN_A_ROW else [entry] * self._bytes_of(file)
            except KeyError:  # of a file that was closed before it was unregistered, and which a copy keeps
                return super().select(0)
            if self._in_a_row == IN_A_ROW:
                self._in_a_row = 0
            return ready

        @override
        def close(self) -> None:
            self._epoll.close()
            super().close()

        def _bytes_of(self, file: int) -> int:
            """How many bytes can be read now, within bounds."""
            ioctl(file, FIONREAD, self._size)
            return min(max(int.from_bytes(self._size, sys.byteorder), 1), MOST_BYTES)


def new_loop() -> tuple[asyncio.AbstractEventLoop, Noting]:
    """A new event loop, and its selector."""
    selector = EachByte() if hasattr(select, "epoll") else Noting()
    return asyncio.SelectorEventLoop(selector), selector
