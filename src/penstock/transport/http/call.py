"""A call over HTTP, as its handler sees it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias
from urllib.parse import parse_qs

from typing_extensions import override

from penstock.transport.grpc.call import OK, Metadata, ServerCall, Status
from penstock.transport.http.routes import Found

REQUEST_ID = "x-request-id"
"""The header with the id of a request, which every answer to it has as well."""
NOT_IN_HEADERS = re.compile(r"[^\t -~\x80-\xff]")


def header_value(text: str) -> bytes:
    """The value of a header; characters that a header cannot have become "?"."""
    return NOT_IN_HEADERS.sub("?", text).encode("latin-1")


Result: TypeAlias = tuple[Status, bytes | None]
"""The status of a call, and its last message."""


class Mailbox:
    """Brings news of calls from other threads to the event loop, many at a time.

    Args:
        loop: the event loop; its thread must be the one that makes this.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._news: deque[HttpCall] = deque()
        self._is_awake = False

    def post(self, call: HttpCall) -> None:
        """Has the loop look at a call; from any thread. On its own thread it looks at once."""
        if threading.get_ident() == self._thread:
            call.look()
            return
        self._news.append(call)
        if not self._is_awake:
            self._is_awake = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_awake = False  # before the news are read: what comes later wakes the loop again
        while self._news:
            try:
                self._news.popleft().look()
            except Exception as error:  # the others must not wait for the next news
                self._loop.call_exception_handler({"message": "a call failed", "exception": error})


class HttpCall(ServerCall):
    """One request over HTTP.

    Args:
        found: what its path leads to.
        headers: the headers, names in lower case; a later header replaces an earlier one.
        query: the query string, without "?".
        client: the client's host and port; None if they are unknown.
        mailbox: of the event loop.
        metadata: the headers as metadata, if they are at hand.

    Attributes:
        parameters: the parts of the path that the route names.
        json_size: as `Route` has it.
        headers: as given.
        notes: what handlers keep for all requests with the same head; see `whole.Head`.
        answer_headers: headers of the answer, besides those of its status.
        answer_type: the content type of an answer that ends well; b"" if it is among `answer_headers`, or
            for JSON.
        result: the status and the last message, once the call is finished.
        on_news: called on the event loop once the call is finished or its client has gone; None for no one.
    """

    __slots__ = (
        "_client", "_mailbox", "_open", "_query", "answer_headers", "answer_type", "headers", "is_gone",
        "json_size", "notes", "on_news", "parameters", "result",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what a request consists of
        self,
        found: Found,
        headers: Mapping[str, str],
        query: bytes,
        client: tuple[str, int] | None,
        mailbox: Mailbox,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__(found.method, tuple(headers.items()) if metadata is None else metadata)
        self.parameters = found.parameters
        self.json_size = found.json_size
        self.headers = headers
        self.is_gone = False
        self.answer_headers: list[tuple[bytes, bytes]] = []
        self.answer_type = b""
        self.result: Result | None = None
        self._query = query
        self._client = client
        self._mailbox = mailbox
        self._open = [True]
        self.on_news: Callable[[], None] | None = None
        self.notes: dict[str, object] = {}

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer, its content type among them if it has one."""
        kind = self.answer_type
        return [*self.answer_headers, (b"content-type", kind)] if kind else self.answer_headers

    @property
    def has_query(self) -> bool:
        """Whether there are query parameters."""
        return bool(self._query)

    @property
    def query(self) -> Mapping[str, Sequence[str]]:
        """The values of each query parameter."""
        return parse_qs(self._query.decode("latin-1"), keep_blank_values=True) if self._query else {}

    @override
    def peer(self) -> str:
        if self._client is None or self.is_gone:
            return ""
        host, port = self._client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    @override
    def identities(self) -> Sequence[bytes]:
        return ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    @override
    def receive(self) -> None:
        """A call with one message has it already."""

    @override
    def send(self, message: bytes) -> None:
        raise RuntimeError("a call with one answer sends no other message")

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        try:
            self._open.pop()
        except IndexError:  # it is finished, or over
            return
        self.result = status, message
        self._mailbox.post(self)

    def forget_message(self) -> None:
        """Drops the last message: the connection holds what is still to be sent of it."""
        if self.result is not None:
            self.result = self.result[0], None

    def header(self, name: bytes, value: str) -> None:
        """Adds a header to the answer; characters that a header cannot have become "?"."""
        self.answer_headers.append((name, header_value(value)))

    def gone(self) -> None:
        """The client has gone; on the event loop."""
        self.is_gone = True
        self._open.clear()
        self.look()

    def look(self) -> None:
        """Continues whatever waits for the call; on the event loop."""
        if self.on_news is not None:
            self.on_news()

    async def wait(self) -> None:
        """Waits until the call is finished, or the client has gone."""
        waiting: asyncio.Future[None]
        while self.result is None and not self.is_gone:
            waiting = asyncio.get_running_loop().create_future()
            self.on_news = partial(_wake, waiting)
            await waiting


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
