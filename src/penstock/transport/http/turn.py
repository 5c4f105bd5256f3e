"""A turn of the event loop: what a request that comes alone makes to do is done in the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.transport.http.connection import Connection
    from penstock.transport.http.whole import Head


class Turn:
    """Does the work of the thread behind a request if no other event is ready, else in the loop's next turn.

    The next turn would do it before it takes what has come meanwhile. So nothing more could be run together
    with the request, and a turn takes as many calls of Python as a seventh of a request.

    Args:
        loop: the event loop.
        at_once: answers a request that has come completely; see `Application.at_once`.
        work: the work.
    """

    __slots__ = ("_at_once", "_is_due", "_is_open", "_loop", "_ready", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        at_once: Callable[[Connection, Head, bytes], bool],
        work: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._at_once = at_once
        self._work = work
        # The loop's handles whose turn has come. It is not public: a loop without it gets another turn.
        self._ready: Sized | None = getattr(loop, "_ready", None)
        self._is_open = self._is_due = False

    def answer(self, connection: Connection, head: Head, body: bytes) -> bool:
        """Answers a request that is all that its connection has sent; see `Application.at_once`."""
        self._is_open = self._ready is not None and not self._ready
        try:
            return self._at_once(connection, head, body)
        finally:
            self._is_open = False
            if self._is_due:
                self._is_due = False
                self._work()

    def work_soon(self) -> None:
        """There is work."""
        if self._is_open:
            self._is_due = True
        else:
            self._loop.call_soon(self._work)
