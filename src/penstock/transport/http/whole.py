"""A request that has come completely at once: it is answered without ASGI and without a task.

A client sends the same head before each of its requests, so heads are kept with what they say (`KnownHeads`),
and a request that begins with such a head is not parsed: its bytes are the same, so the parser would say the
same, and be where it was before the request. Ids differ in each request, so the lines that have them are left
out: each is a whole line, and says nothing about the others.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from typing import Any

from typing_extensions import override

from penstock.transport.grpc.call import OK, CallHandler, Metadata, Method, Status
from penstock.transport.http.answer import Answer, Connected, Gate
from penstock.transport.http.bodies import LEAST_BYTES
from penstock.transport.http.call import REQUEST_ID, HttpCall, Mailbox, header_value
from penstock.transport.http.exchange import (
    TIMEOUT,
    BadRequest,
    Bounds,
    broken,
    is_cancelled,
    set_deadline,
)
from penstock.transport.http.routes import Found
from penstock.transport.http.status import too_large

MOST_KNOWN, LONGEST_KNOWN = 256, 2048
"""How many heads are kept, and the longest of them in bytes."""
END = b"\r\n\r\n"
"""What ends a head."""

OWN_LINES = re.compile(rb"\r\n(x-request-id|traceparent): ?([!-~]{1,128})(?=\r\n[^ \t])", re.IGNORECASE)
"""The lines of a head that are each request's own. A line behind one must not continue it."""
OWN_NAMES = (b"x-request-id", b"traceparent")
"""The names of these lines."""

_NOTHING_FOUND = Found("", {})
_VARY_LINE = b"vary: accept-encoding\r\n"


class Head:
    """The head of a request.

    Args:
        version: of HTTP, such as "1.1".
        method: such as "POST".
        path: as it was sent, without percent-encoding.
        query: the query string, without "?".
        headers: the headers, names in lower case.
        keep_alive: whether the connection stays open after the answer.

    Attributes:
        length: the bytes of the body behind it.
        found: what its path leads to; nothing for one that leads nowhere.
        refusal: the status of a request that no method takes; None for others.
        target: the method that takes it.
        texts: the headers; a later one replaces an earlier one.
        metadata: the same for the method.
        notes: what handlers keep for all requests with this head, whichever ids they have.
        lines: the lines that it adds to an answer in JSON that is not compressed.
        fits: whether the body is known not to be too large.
    """

    __slots__ = (
        "fits", "found", "headers", "keep_alive", "length", "lines", "metadata", "method", "notes", "path",
        "query", "refusal", "target", "texts", "version",
    )  # fmt: skip

    target: Method
    texts: Mapping[str, str]
    metadata: Metadata
    lines: bytes

    def __init__(  # noqa: PLR0913 - what a head consists of
        self,
        version: str,
        method: str,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
    ) -> None:
        self.version = version
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.length = 0
        self.found = _NOTHING_FOUND
        self.refusal: Status | None = None
        self.notes: dict[str, object] = {}
        self.fits = False

    def read(self, texts: Mapping[str, str]) -> None:
        """Takes its headers as texts."""
        self.texts = texts
        self.metadata = tuple(texts.items())
        lines = [_VARY_LINE] if texts.get("accept-encoding") else []
        if REQUEST_ID in texts:
            lines.append(b"%b: %b\r\n" % (REQUEST_ID.encode(), header_value(texts[REQUEST_ID])))
        self.lines = b"".join(lines)

    def with_own(self, names: list[bytes], values: list[bytes]) -> Head:
        """This head with lines of one request's own; see `OWN_LINES`."""
        head = Head(self.version, self.method, self.path, self.query, self.headers, self.keep_alive)
        own = {name.lower().decode(): value.decode() for name, value in zip(names, values, strict=True)}
        head.texts = {**self.texts, **own}
        head.metadata = (*self.metadata, *own.items())
        head.length, head.found, head.target = self.length, self.found, self.target
        head.notes, head.fits = self.notes, self.fits
        id = own.get(REQUEST_ID)
        head.lines = self.lines if id is None else b"%bx-request-id: %b\r\n" % (self.lines, id.encode())
        return head

    def without_own(self, names: list[bytes]) -> Head:
        """This head without such lines."""
        own = {name.lower() for name in names}
        headers = [each for each in self.headers if each[0] not in own]
        head = Head(self.version, self.method, self.path, self.query, headers, self.keep_alive)
        head.read({name: text for name, text in self.texts.items() if name.encode("latin-1") not in own})
        head.found, head.target = self.found, self.target
        head.notes, head.fits = self.notes, self.fits
        return head


class KnownHeads(dict[bytes, Head]):
    """The heads of earlier requests that were given to a handler, by their bytes without `OWN_LINES`."""

    def find(self, data: bytes) -> Head | None:
        """The head with these bytes, if it is known but for the lines of its own."""
        found = self.get(data)
        if found is not None or len(data) > LONGEST_KNOWN:
            return found
        parts = OWN_LINES.split(data)
        if len(parts) == 1:
            return None
        found = self.get(b"".join(parts[::3]))
        return None if found is None else found.with_own(parts[1::3], parts[2::3])

    def learn(self, data: bytes, head: Head, body: bytes) -> None:
        """Keeps a head.

        Args:
            data: the whole request, as it came.
            head: its head, as it was parsed.
            body: its body, as it was parsed.
        """
        end = data.find(END) + len(END)
        is_plain = len(data) == end + len(body) and data[end:] == body
        is_framed = any(name == b"transfer-encoding" for name, _ in head.headers)
        if not is_plain or is_framed or not head.fits or not head.keep_alive or end > LONGEST_KNOWN:
            return
        parts = OWN_LINES.split(data[:end])
        own = len(parts) // 3
        if data.startswith(b"\r\n") or own != sum(name in OWN_NAMES for name, _ in head.headers):
            return  # a line could be left out before the first one; or an id is in an unusual form
        if len(self) >= MOST_KNOWN:
            self.clear()
        if own:
            head = head.without_own(parts[1::3])
        head.length = len(body)
        self[b"".join(parts[::3])] = head


class _Nothing:
    """An event that nothing waits for."""

    def set(self) -> None:
        """Does nothing."""


class WholeCall(HttpCall):
    """Such a request, and its answer. All methods but those of `ServerCall` are called on the event loop.

    It stands where uvicorn's connection keeps the request that is being answered.

    Args:
        head: its head.
        connection: the connection that it came by.
        gate: the server.
        mailbox: of the event loop.

    Attributes:
        head: as given.
        keep_alive: whether the connection stays open after the answer.
        response_started: whether it has been answered.
        response_complete: the same: an answer is sent in one part.
        disconnected: whether its client has gone.
    """

    __slots__ = (
        "_connection", "_gate", "_handler", "_is_waiting", "_timer", "disconnected", "head", "keep_alive",
        "response_complete", "response_started",
    )  # fmt: skip

    message_event = _Nothing()

    def __init__(self, head: Head, connection: Connected, gate: Gate, mailbox: Mailbox) -> None:
        super().__init__(head.found, head.texts, head.query, connection.client, mailbox, head.metadata)
        self.notes = head.notes
        self.head = head
        self.keep_alive = head.keep_alive
        self.response_started = self.response_complete = self.disconnected = False
        self._connection = connection
        self._gate = gate
        self._handler: CallHandler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_waiting = False  # for its end

    def refuse(self, status: Status) -> None:
        """Answers it without giving it to a handler."""
        self._answer().now(status, None)

    def begin(self, bounds: Bounds, body: bytes) -> None:
        """Gives the request to its handler; the answer follows at once or later."""
        head = self.head
        self._gate.began()
        self._connection.call = self
        try:
            if TIMEOUT in head.texts:
                self._timer = set_deadline(self)
            self._handler = head.target.handler(self)
            if not head.fits:
                limit, is_json = bounds.of(self)
                if len(body) > limit:
                    raise BadRequest(too_large(limit, is_json=is_json))
                head.fits = True
            if self.result is None:
                self._handler.received(body)
        except Exception as error:
            self.finish(broken(error, self._gate))
        if self.result is None:
            self._is_waiting = True
        else:
            self._over()

    @override
    def look(self) -> None:
        if self._is_waiting:
            self._over()

    def _over(self) -> None:
        """The call is finished, or its client has gone."""
        self._is_waiting = False
        try:
            if self.result is not None and not self.is_gone and not self._is_answered(*self.result):
                return
        except Exception as error:
            self._failed(error)
        if self.result is not None:  # as `forget_message`, but without a call
            self.result = self.result[0], None
        if self._connection.flow.write_paused:  # the answer counts until it has left
            self._later(self._end_when_left())
        else:
            self._end()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._connection.tasks.add(task)
        task.add_done_callback(self._connection.tasks.discard)

    async def _end_when_left(self) -> None:
        """Ends the call once its answer has left, or its client has gone."""
        try:
            await self._connection.flow.drain()
        finally:
            self._end()

    def _is_answered(self, status: Status, message: bytes | None) -> bool:
        """Sends the answer; False if that takes long, and is left to a task."""
        head = self.head
        kind, stays_open = self.answer_type, head.keep_alive and self._gate.keeps_connections
        is_plain = message is not None and (len(message) < LEAST_BYTES or "accept-encoding" not in head.texts)
        if status is OK and kind and stays_open and is_plain:
            assert message is not None, "said by is_plain"
            lines = [b"%b: %b\r\n" % each for each in self.answer_headers]
            lines.append(head.lines)
            self._send_well(kind, b"".join(lines), message)
            return True
        answer = self._answer()
        if answer.now(status, message, self.all_headers()):
            return True
        self._later(self._answer_later(answer))
        return False

    def _send_well(self, kind: bytes, lines: bytes, body: bytes) -> None:
        """Sends an answer that ends well, on a connection that stays open.

        Args:
            kind: the content type.
            lines: further lines of the head.
            body: the body.
        """
        connection = self._connection
        transport = connection.transport
        if self.disconnected or transport.is_closing():
            return
        self.response_started = self.response_complete = True
        begin = connection.server_state.begin
        transport.write(
            b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (begin, kind, lines, len(body), body)
        )
        connection.go_on()

    def _answer(self) -> Answer:
        head = self.head
        return Answer(head.path, head.texts, self, self._connection, self._gate)

    async def _answer_later(self, answer: Answer) -> None:
        """Sends an answer that takes long to compress."""
        assert self.result is not None, "it is what is sent"
        try:
            await answer.end(*self.result, self.all_headers())
            self.forget_message()
            await answer.left()
        except Exception as error:
            self._failed(error)
        finally:
            self._end()

    def _failed(self, error: Exception) -> None:
        self._gate.report(error)
        self._connection.transport.close()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._handler is not None:
                self._handler.closed(is_cancelled(self))
        except Exception as error:
            self._gate.report(error)
        finally:
            self._handler = None  # it refers to the call
            if self._connection.call is self:
                self._connection.call = None
            self._gate.ended()
