"""The ASGI application: makes a call of every request, and an answer of how it ends."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from penstock.core.large_bytes import joined
from penstock.transport.grpc.call import BROKEN, CallHandler, Kind, Method, Status
from penstock.transport.http.bodies import Inflater, TooLarge, compressed, inflater
from penstock.transport.http.call import HttpCall, Mailbox
from penstock.transport.http.lines import LineCall
from penstock.transport.http.origins import Headers, Origins
from penstock.transport.http.routes import Routes
from penstock.transport.http.status import (
    JSON,
    PROBLEM,
    HttpStatus,
    bad_request,
    deadline_passed,
    problem,
    retry_after,
    status_of,
    too_large,
)

COMPRESSED_AT_ONCE = 2**18
"""An answer up to this size in bytes is compressed by the event loop's thread, which takes up to 5 ms."""
LONGEST_SIZE = 20  # digits
TIMEOUT = "penstock-timeout"
"""The header with the seconds within which the answer must come."""

_ERROR_MEMBER = "/v2"
"""Below this path, clients look for the text of an error in the member `error`."""

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
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


class Gone(Exception):
    """The client has gone."""


class Application:
    """The application.

    Args:
        routes: all paths.
        methods: what can be called, by full name.
        gate: the server.
        mailbox: of the event loop.
        body_bytes: the largest body, also once it is decompressed.
        json_bytes: the largest JSON: a body, the beginning of a binary one, or a line of a stream.
        origins: those that may call from a browser.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        routes: Routes,
        methods: Mapping[str, Method],
        gate: Gate,
        mailbox: Mailbox,
        body_bytes: int,
        json_bytes: int,
        origins: Origins,
    ) -> None:
        self._routes = routes
        self._methods = methods
        self._gate = gate
        self._mailbox = mailbox
        self._body_bytes = body_bytes
        self._origins = origins
        self._json_bytes = min(json_bytes, body_bytes)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = _Answer(scope, headers, send, self._gate)
        if "origin" in headers:
            answer.more = self._origins.headers(headers)
            if allowed := self._origins.preflight(scope["method"], headers):
                await answer.nothing(allowed)
                return
        found = self._routes.find(scope["method"], scope["raw_path"])
        if isinstance(found, Status):
            await answer.end(found, None)
            return
        method = self._methods[found.method]
        refusal = self._gate.why_not(method, found.method)
        if refusal is not None:
            await answer.end(refusal, None)
            return
        kind = HttpCall if method.kind is Kind.UNARY else LineCall
        call = kind(found, headers, scope["query_string"], scope["client"], self._mailbox)
        call.has_error = answer.has_error
        self._gate.began()
        connection = scope["state"]["connection"]
        connection.call = call
        try:
            await self._handle(call, method, receive, answer)
        finally:
            connection.call = None
            self._gate.ended()

    async def _handle(self, call: HttpCall, method: Method, receive: Receive, answer: _Answer) -> None:
        timer = None
        try:
            timer = _set_deadline(call)
            handler = method.handler(call)
        except Exception as error:
            await answer.end(self._broken(error), None)
            return
        try:
            if isinstance(call, LineCall):
                await self._stream(call, handler, receive, answer)
            else:
                await self._unary(call, handler, receive)
                await call.wait()
                if call.result is not None:
                    await answer.end(*call.result, call.answer_headers)
        except Gone:
            call.gone()
        except Exception as error:
            call.finish(self._broken(error))
            if call.result is not None:
                await answer.end(*call.result, call.answer_headers)
        finally:
            if timer is not None:
                timer.cancel()
            try:
                handler.closed(call.result is None or call.is_gone or call.result[0] is _EXPIRED)
            except Exception as error:
                self._gate.report(error)

    def _broken(self, error: Exception) -> Status:
        if isinstance(error, BadRequest):
            return error.status
        self._gate.report(error)
        return BROKEN

    async def _unary(self, call: HttpCall, handler: CallHandler, receive: Receive) -> None:
        """Reads the body and gives it to the handler."""
        if call.result is not None:
            return
        limit, is_json = self._limit_of(call)
        if int(call.headers.get("content-length", 0)) > limit:
            raise BadRequest(too_large(limit, is_json=is_json))
        try:
            coding = inflater(call.headers.get("content-encoding", ""), limit)
        except ValueError as error:
            words = f"content-encoding is {str(error)[:100]!r}, expected gzip, deflate or identity"
            raise BadRequest(bad_request(words, 415)) from None
        try:
            body = await _read_body(receive, coding, limit)
        except TooLarge:
            raise BadRequest(too_large(limit, is_json=is_json)) from None
        if call.result is None:
            handler.received(body)

    def _limit_of(self, call: HttpCall) -> tuple[int, bool]:
        """The most bytes that a body may have, and whether all of it is JSON.

        Raises:
            BadRequest: the JSON before its binary data is too large.
        """
        size = call.headers.get(call.json_size) if call.json_size else None
        if size is None:
            return self._json_bytes, True
        if size.isdecimal() and len(size) <= LONGEST_SIZE and int(size) > self._json_bytes:
            raise BadRequest(too_large(self._json_bytes, is_json=True))
        return self._body_bytes, False

    async def _stream(self, call: LineCall, handler: CallHandler, receive: Receive, answer: _Answer) -> None:
        """Sends messages while the body is being read."""
        if call.result is not None:
            await answer.end(*call.result, call.answer_headers)
            return
        if call.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest(bad_request("the body of a stream cannot be compressed", 415))
        await answer.begin(call.content_type, call.answer_headers)
        reading = asyncio.get_running_loop().create_task(self._read(call, handler, receive))
        try:
            while (message := await call.next_message()) is not None:
                await answer.part(message)
                handler.sent()
            await answer.last(call)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _read(self, call: LineCall, handler: CallHandler, receive: Receive) -> None:
        try:
            await call.read(receive, handler, self._json_bytes)
        except Exception as error:
            call.finish(self._broken(error))


class BadRequest(Exception):
    """The request cannot be read.

    Args:
        status: how the call ends.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.details)
        self.status = status


_EXPIRED = deadline_passed()


def _set_deadline(call: HttpCall) -> asyncio.TimerHandle | None:
    """Reads the deadline of a call from its headers, and ends the call then."""
    text = call.headers.get(TIMEOUT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(
            bad_request(f"header {TIMEOUT} is {text[:100]!r}, expected a positive number of seconds")
        )
    call.deadline = time.monotonic() + seconds
    return asyncio.get_running_loop().call_later(min(seconds, 1e6), call.finish, _EXPIRED)


async def _read_body(receive: Receive, coding: Inflater | None, limit: int) -> bytes:
    """The body, decompressed.

    Raises:
        BadRequest: it is not what its header says.
        TooLarge: it is too large.
        Gone: the client has gone.
    """
    parts, size, more = [], 0, True
    while more:
        part = await receive()
        if part["type"] != "http.request":
            raise Gone
        data, more = part["body"], part["more_body"]
        if coding is None:
            size += len(data)
            if size > limit:
                raise TooLarge
            parts.append(data)
            continue
        try:
            for found in coding.inflate(data, last=not more):
                parts.append(found)
                await asyncio.sleep(0)  # the other calls
        except ValueError as error:
            raise BadRequest(bad_request(f"the body cannot be decompressed: {error}")) from None
    return parts[0] if len(parts) == 1 else joined(parts)


class _Answer:
    """The answer to one request.

    Args:
        scope: the request, as ASGI has it.
        headers: its headers.
        send: sends a part of the answer.
        gate: the server.

    Attributes:
        more: headers of every answer, besides its own.
    """

    more: Headers = ()

    def __init__(self, scope: Mapping[str, Any], headers: Mapping[str, str], send: Send, gate: Gate) -> None:
        self.has_error = scope["path"].startswith(_ERROR_MEMBER)
        self._headers = headers
        self._send = send
        self._connection = scope["state"]["connection"]
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
        http = status_of(status)
        kind = JSON
        if message is None and http != 200:
            message = problem(status, has_error=self.has_error)
            # Clients of the Open Inference Protocol, such as KServe's, read only this type.
            kind = JSON if self.has_error else PROBLEM
        body = message or b""
        headers = list(more or ())
        if isinstance(status, HttpStatus):
            headers += [(key.encode(), str(value).encode("latin-1")) for key, value in status.headers]
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", kind.encode()))
        seconds = retry_after(status) if http != 200 else None
        if seconds is not None:
            headers.append((b"retry-after", b"%d" % seconds))
        accepted = self._headers.get("accept-encoding")
        if accepted and not any(name == b"content-encoding" for name, _ in headers):
            if len(body) > COMPRESSED_AT_ONCE:
                loop = asyncio.get_running_loop()
                coding, body = await loop.run_in_executor(None, partial(compressed, body, accepted))
            else:
                coding, body = compressed(body, accepted)
            headers += ((b"vary", b"accept-encoding"), *(((b"content-encoding", coding),) if coding else ()))
        headers.append((b"content-length", b"%d" % len(body)))
        self._last(headers)
        if not self._connection.answer(self._send, http, headers, body):
            await self._send({"type": "http.response.start", "status": http, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})

    async def nothing(self, headers: Headers) -> None:
        """Sends an answer without a body."""
        await self._start(HTTPStatus.NO_CONTENT, list(headers))
        await self._send({"type": "http.response.body", "body": b""})

    async def begin(self, content_type: str, more: list[tuple[bytes, bytes]]) -> None:
        """Begins a stream."""
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store"), *more]
        await self._start(200, headers)
        # The headers must leave before the first message.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def part(self, message: bytes) -> None:
        """Sends a message of a stream."""
        await self._send({"type": "http.response.body", "body": message, "more_body": True})

    async def last(self, call: LineCall) -> None:
        """Ends a stream, with a problem report if it did not end well."""
        body = b""
        if call.result is not None and status_of(call.result[0]) != 200:
            body = call.framed(b'{"error":' + problem(call.result[0]) + b"}", "error")
        await self._send({"type": "http.response.body", "body": body})

    def _last(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Adds the headers that every answer has."""
        headers += self.more
        if not self._gate.keeps_connections:
            headers.append((b"connection", b"close"))

    async def _start(self, http: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._last(headers)
        await self._send({"type": "http.response.start", "status": http, "headers": headers})
