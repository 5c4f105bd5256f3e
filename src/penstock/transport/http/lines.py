"""A stream over HTTP: the request's body and the answer's are lines, each a message of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from typing_extensions import override

from penstock.transport.grpc.call import OK, CallHandler, Status
from penstock.transport.http.call import HttpCall, Mailbox
from penstock.transport.http.routes import Found
from penstock.transport.http.status import too_large

NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class LineCall(HttpCall):
    """A call whose messages are the lines of its body; see `HttpCall` for the arguments.

    Attributes:
        as_events: whether the answers are server-sent events; else lines.
        line: the number of the line that was given last, from 1; blank lines count as well.
    """

    __slots__ = ("_asked", "_end", "_news", "_out", "as_events", "line")

    def __init__(
        self,
        found: Found,
        headers: Mapping[str, str],
        query: bytes,
        client: tuple[str, int] | None,
        mailbox: Mailbox,
    ) -> None:
        super().__init__(found, headers, query, client, mailbox)
        self.as_events = EVENTS in headers.get("accept", "")
        self.line = 0
        self._end: Status = OK  # what the stream ends with once all lines before are answered
        self._asked = True  # a transport asks for the first message by itself
        self._out: bytes | None = None
        self._news = (asyncio.Event(), asyncio.Event())  # for the reader, for the writer

    @property
    def content_type(self) -> str:
        """The content type of the answer."""
        return EVENTS if self.as_events else NDJSON

    def framed(self, message: bytes, kind: str = "") -> bytes:
        """A message as a line, or as an event.

        Args:
            message: JSON on one line.
            kind: the kind of the event; "" for an ordinary one.
        """
        if not self.as_events:
            return message + b"\n"
        return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + message + b"\n\n"

    @override
    def receive(self) -> None:
        self._asked = True
        self._mailbox.post(self)

    @override
    def send(self, message: bytes) -> None:
        if not self._open:
            return  # it is finished, or over
        self._out = message
        self._mailbox.post(self)

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        super().finish(self._end if status is OK else status, message)

    @override
    def look(self) -> None:
        for each in self._news:
            each.set()

    @property
    def is_over(self) -> bool:
        """Whether it is finished, or the client has gone."""
        return self.is_gone or self.result is not None

    async def next_message(self) -> bytes | None:
        """The next message to send; None once the call is over."""
        news = self._news[1]
        while self._out is None:
            if self.is_over:
                return None
            news.clear()
            await news.wait()
        message, self._out = self._out, None
        return message

    async def read(self, receive: Receive, handler: CallHandler, limit: int) -> None:
        """Gives the handler one line after another, each when it asks for it, until the body ends.

        Args:
            receive: gives the next part of the body.
            handler: what answers the call.
            limit: the longest line, in bytes.
        """
        cut, more = _Cut(limit), True
        while await self._is_asked():
            while more and not cut.lines and not cut.too_long:
                part = await receive()
                if self.is_over or part["type"] != "http.request":
                    return
                more = part.get("more_body", False)
                cut.add(part["body"], more)
            if not cut.lines:
                if cut.too_long:
                    self._end = too_large(limit, is_json=True, line=cut.too_long)
                handler.half_closed()
                return
            self._asked = False
            self.line, line = cut.lines.popleft()
            handler.received(line)

    async def _is_asked(self) -> bool:
        """Waits until the handler asks for a line; False if the call is over before."""
        news = self._news[0]
        while not self._asked:
            if self.is_over:
                return False
            news.clear()
            await news.wait()
        return not self.is_over


class _Cut:
    """Cuts a body into lines.

    Args:
        limit: the longest line, in bytes.

    Attributes:
        lines: those that have come and are not blank, with their numbers.
        too_long: the number of the first line above the limit, which nothing follows; 0 for none.
    """

    def __init__(self, limit: int) -> None:
        self.lines: deque[tuple[int, bytes]] = deque()
        self.too_long = 0
        self._limit = limit
        self._count = 0  # of the lines whose end has come
        self._rest = bytearray()  # the beginning of a line whose end has not come

    def add(self, part: bytes, more: bool) -> None:
        """Adds the next part of the body; `more` if it is not the last one."""
        self._rest += part
        if not more or b"\n" in part:
            *found, last = bytes(self._rest).split(b"\n")
            self._rest = bytearray(last if more else b"")
            for line in found if more else (*found, last):
                self._count += 1
                if len(line) > self._limit:
                    self.too_long = self._count
                    return
                if line.strip():
                    self.lines.append((self._count, line))
        if len(self._rest) > self._limit:
            self.too_long = self._count + 1
