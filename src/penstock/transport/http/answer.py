"""Sends the answers to requests: a status, headers and a body, or a stream of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from penstock.transport.grpc.call import OK, Status
from penstock.transport.http.bodies import compressed
from penstock.transport.http.call import REQUEST_ID, HttpCall, header_value
from penstock.transport.http.lines import LineCall
from penstock.transport.http.origins import Headers
from penstock.transport.http.status import (
    JSON,
    PROBLEM,
    HttpStatus,
    problem,
    retry_after,
    status_line,
    status_of,
)

COMPRESSED_AT_ONCE = 2**18
"""An answer up to this size in bytes is compressed by the event loop's thread, which takes up to 5 ms."""

_JSON, _PROBLEM = JSON.encode(), PROBLEM.encode()
_ERROR_MEMBER = b"/v2"
"""Below this path, clients look for the text of an error in the member `error`."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Gate(Protocol):
    """What the application needs of its server."""

    def why_not(self, method: object, name: str) -> Status | None:
        """Why a call is rejected; None if it is accepted."""

    def began(self) -> None:
        """A call has been accepted."""

    def ended(self) -> None:
        """It is over."""

    def report(self, error: BaseException) -> None:
        """A handler has raised an exception."""

    @property
    def keeps_connections(self) -> bool:
        """Whether connections stay open after an answer."""


class Connected(Protocol):
    """What answers need of the connection that a request came by; see `Connection`.

    Attributes:
        client: the client's host and port; None if they are unknown.
        transport: sends.
        tasks: all tasks of requests.
        server_state: what all connections share; `begin` is the beginning of an answer that ends well.
        flow: holds writing back.
        call: the call that is being answered.
    """

    client: tuple[str, int] | None
    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]
    server_state: Any
    flow: Any
    call: HttpCall | None

    def answer_whole(
        self, request: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Sends the answer to a request that has come completely.

        Args:
            request: the request.
            status: the status code.
            headers: those of the answer, with its length; names in lower case, values without line ends.
            body: the body.
        """

    def go_on(self) -> None:
        """Goes on with the next request."""

    def close_after_answer(self) -> None:
        """Closes it, since the answer was its last."""


class Answer:
    """The answer to one request.

    Args:
        path: of the request.
        headers: of the request.
        send: sends a part of the answer, or the request that has a whole answer.
        connection: the connection that the request came by.
        gate: the server.

    Attributes:
        more: headers of every answer, besides its own.
    """

    more: Headers = ()

    def __init__(
        self,
        path: bytes,
        headers: Mapping[str, str],
        send: Any,
        connection: Connected,
        gate: Gate,
    ) -> None:
        self.has_error = path.startswith(_ERROR_MEMBER)
        self._headers = headers
        self._send: Any = send
        self._is_whole = not callable(send)
        self._is_unframed = False
        self._connection = connection
        self._gate = gate

    async def end(
        self, status: Status, message: bytes | None, more: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Sends a whole answer.

        Args:
            status: how the call ended.
            message: the body; None for a problem report, or nothing.
            more: further headers.
        """
        accepted = self._headers.get("accept-encoding")
        http, headers, body = self._whole(status, message, more)
        if accepted and len(body) > COMPRESSED_AT_ONCE and _is_plain(headers):
            loop = asyncio.get_running_loop()
            _encoded(headers, coding := await loop.run_in_executor(None, partial(compressed, body, accepted)))
            body = coding[1]
        elif accepted and _is_plain(headers):
            _encoded(headers, coding := compressed(body, accepted))
            body = coding[1]
        if not self._send_whole(http, headers, body):
            await self._send({"type": "http.response.start", "status": http, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})

    def now(
        self, status: Status, message: bytes | None, more: list[tuple[bytes, bytes]] | None = None
    ) -> bool:
        """Sends a whole answer, unless that takes long; see `end` for the arguments.

        Returns:
            Whether it has been sent; if not, nothing was done.
        """
        accepted = self._headers.get("accept-encoding")
        if accepted and message is not None and len(message) > COMPRESSED_AT_ONCE:
            return False
        http, headers, body = self._whole(status, message, more)
        if accepted and _is_plain(headers):
            _encoded(headers, coding := compressed(body, accepted))
            body = coding[1]
        return self._send_whole(http, headers, body)

    def _whole(
        self, status: Status, message: bytes | None, more: list[tuple[bytes, bytes]] | None
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The status code, the headers besides those of every answer, and the body."""
        http = HTTPStatus.OK if status is OK else status_of(status)
        kind = _JSON
        if message is None and http != HTTPStatus.OK:
            message = problem(status, has_error=self.has_error)
            # Clients of the Open Inference Protocol, such as KServe's, read only this type.
            kind = _JSON if self.has_error else _PROBLEM
        headers = list(more or ())
        if isinstance(status, HttpStatus):
            headers += [(key.encode(), str(value).encode("latin-1")) for key, value in status.headers]
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", kind))
        seconds = retry_after(status) if http != HTTPStatus.OK else None
        if seconds is not None:
            headers.append((b"retry-after", b"%d" % seconds))
        return http, headers, message or b""

    def _send_whole(self, http: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Sends an answer in one part; False if it must be sent by messages, with these headers."""
        headers.append((b"content-length", b"%d" % len(body)))
        self._last(headers)
        if self._is_whole:
            self._connection.answer_whole(self._send, http, headers, body)
            return True
        return _is_sent(self._connection, self._send, http, headers, body)

    async def nothing(self, headers: Headers) -> None:
        """Sends an answer without a body."""
        await self._start(HTTPStatus.NO_CONTENT, list(headers))
        await self._send({"type": "http.response.body", "body": b""})

    async def begin(self, content_type: str, more: list[tuple[bytes, bytes]]) -> None:
        """Begins a stream."""
        cycle = self._send.__self__
        self._is_unframed = cycle.scope["http_version"] == "1.0"
        if self._is_unframed:
            cycle.chunked_encoding = (
                False  # HTTP/1.0 does not know it: the end of the connection ends the answer
            )
        if cycle.waiting_for_100_continue:  # else the beginning of the answer refuses the body
            cycle.waiting_for_100_continue = False
            self._connection.transport.write(_CONTINUE)
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store"), *more]
        await self._start(200, headers)
        # The headers must leave before the first message.
        await self.part(b"")

    async def part(self, message: bytes, *, is_last: bool = False) -> None:
        """Sends a message of a stream."""
        if self._is_unframed:
            self._send.__self__.expected_content_length = len(message)  # what uvicorn lets pass
        await self._send({"type": "http.response.body", "body": message, "more_body": not is_last})

    async def left(self) -> None:
        """Waits until what was sent has left, but for a little, or the client has gone."""
        flow = self._connection.flow
        if flow.write_paused:
            await flow.drain()

    async def last(self, call: LineCall) -> None:
        """Ends a stream, with a problem report if it did not end well."""
        body = b""
        if call.result is not None and status_of(call.result[0]) != 200:
            body = call.framed(b'{"error":' + problem(call.result[0]) + b"}", "error")
        await self.part(body, is_last=True)

    def _last(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Adds the headers that every answer has."""
        headers += self.more
        if REQUEST_ID in self._headers:
            headers.append((REQUEST_ID.encode(), header_value(self._headers[REQUEST_ID])))
        if not self._gate.keeps_connections:
            headers.append((b"connection", b"close"))

    async def _start(self, http: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._last(headers)
        await self._send({"type": "http.response.start", "status": http, "headers": headers})


def _is_plain(headers: Headers) -> bool:
    """Whether the body of an answer has not been encoded by its handler."""
    return not any(name == b"content-encoding" for name, _ in headers)


def _encoded(headers: list[tuple[bytes, bytes]], coding: tuple[bytes, bytes]) -> None:
    """Adds what says how a body is compressed; see `compressed`."""
    headers.append((b"vary", b"accept-encoding"))
    if coding[0]:
        headers.append((b"content-encoding", coding[0]))


def _is_sent(
    connection: Connected, send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Sends a whole answer in one part, which takes half the time of two messages of ASGI.

    Args:
        connection: the connection.
        send: sends the messages of the request that is answered; a later one may be read meanwhile.
        status: the status code.
        headers: those of the answer, with its length; names in lower case, values without line ends.
        body: the body.

    Returns:
        Whether it has been sent; if not, it must be sent by messages.
    """
    cycle: Any = send.__self__
    if connection.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
        return False
    if cycle.disconnected:
        return True
    parts = [status_line(status)]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
        if name == b"connection":
            cycle.keep_alive = False  # the only value that is ever sent is "close"
    if not cycle.keep_alive and parts[-4] != b"connection":
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    connection.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        connection.close_after_answer()
    cycle.on_response()
    return True
