"""A stream over HTTP: the request's body and the answer's are lines, each a message of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from typing_extensions import override

from penstock.transport.grpc.call import CallHandler
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

    __slots__ = ("_asked", "_news", "_out", "as_events", "line")

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
        lines: deque[tuple[int, bytes]] = deque()
        rest, more = bytearray(), True  # the beginning of a line whose end has not come
        count = 0  # of the lines that have come
        while await self._is_asked():
            while not lines and more:
                part = await receive()
                if self.is_over or part["type"] != "http.request":
                    return
                more = part.get("more_body", False)
                rest += part["body"]
                if not more or b"\n" in part["body"]:
                    *found, last = bytes(rest).split(b"\n")
                    for line in found if more else (*found, last):
                        count += 1
                        if line.strip():
                            lines.append((count, line))
                    rest = bytearray(last)
                if len(rest) > limit:
                    self.finish(too_large(limit, is_json=True, line=count + more))  # its end has not come
                    return
            if not lines:
                handler.half_closed()
                return
            self._asked = False
            self.line, line = lines.popleft()
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
