"""The ASGI application: makes a call of every request, and an answer of how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.core.large_bytes import joined
from penstock.transport.grpc.call import CallHandler, Kind, Method, Status
from penstock.transport.http.answer import Answer, Gate, Send
from penstock.transport.http.bodies import Inflater, TooLarge, inflater
from penstock.transport.http.call import HttpCall, Mailbox
from penstock.transport.http.exchange import (
    BadRequest,
    Bounds,
    broken,
    is_cancelled,
    set_deadline,
)
from penstock.transport.http.lines import LineCall
from penstock.transport.http.origins import Origins
from penstock.transport.http.routes import Routes
from penstock.transport.http.status import bad_request, too_large, wrong_host
from penstock.transport.http.whole import Head, WholeCall

if TYPE_CHECKING:
    from penstock.transport.http.connection import Connection

UNUSUAL = frozenset(("origin", "content-encoding", "expect"))
"""The headers of requests that are answered by a task."""

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


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
        self._origins = origins
        self._bounds = Bounds(body_bytes, min(json_bytes, body_bytes))

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers, connection = _headers_of(scope["headers"]), scope["state"]["connection"]
        answer = Answer(scope["path"].encode(), headers, send, connection, self._gate)
        if "origin" in headers:
            answer.more = self._origins.headers(headers)
            if allowed := self._origins.preflight(scope["method"], headers):
                await answer.nothing(allowed)
                return
        found = wrong_host(scope["http_version"], scope["headers"]) or self._routes.find(
            scope["method"], scope["raw_path"]
        )
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
        self._gate.began()
        connection.call = call
        try:
            await self._handle(call, method, receive, answer)
        finally:
            if connection.call is call:  # else the next request came while its answer left
                connection.call = None
            self._gate.ended()

    def at_once(self, connection: Connection, head: Head, body: bytes) -> bool:
        """Answers a request that has come completely, which takes half the time without a task.

        Args:
            connection: the connection that it came by.
            head: the request's head.
            body: its body.

        Returns:
            Whether it is, or will be, answered; if not, nothing was done: it needs a task.
        """
        if not head.fits and not self._is_found(head):
            return False
        connection.cycle = call = WholeCall(head, connection, self._gate, self._mailbox)  # type: ignore[assignment]
        refusal = head.refusal or self._gate.why_not(head.target, head.found.method)
        if refusal is not None:
            call.refuse(refusal)
        else:
            call.begin(self._bounds, body)
        return True

    def _is_found(self, head: Head) -> bool:
        """Finds what takes a request; False if it needs a task."""
        texts = _headers_of(head.headers)
        if not UNUSUAL.isdisjoint(texts) or head.method == "HEAD":
            return False
        head.read(texts)
        found = self._routes.find(head.method, head.path)
        if "host" not in texts or len(texts) != len(head.headers):
            found = wrong_host(head.version, head.headers) or found
        if isinstance(found, Status):
            head.refusal = found
            return True
        head.found = found
        head.target = self._methods[found.method]
        return head.target.kind is Kind.UNARY

    async def _handle(self, call: HttpCall, method: Method, receive: Receive, answer: Answer) -> None:
        timer = None
        try:
            timer = set_deadline(call)
            handler = method.handler(call)
        except Exception as error:
            await answer.end(broken(error, self._gate), None)
            return
        try:
            if isinstance(call, LineCall):
                await self._stream(call, handler, receive, answer)
            else:
                await self._unary(call, handler, receive)
                await call.wait()
                if call.result is not None:
                    await answer.end(*call.result, call.all_headers())
                    call.forget_message()
                    await (
                        answer.left()
                    )  # until then the answer counts towards the bounds, and its call is in flight
        except Gone:
            call.gone()
        except Exception as error:
            call.finish(broken(error, self._gate))
            if call.result is not None:
                await answer.end(*call.result, call.all_headers())
        finally:
            if timer is not None:
                timer.cancel()
            try:
                handler.closed(is_cancelled(call))
            except Exception as error:
                self._gate.report(error)

    async def _unary(self, call: HttpCall, handler: CallHandler, receive: Receive) -> None:
        """Reads the body and gives it to the handler."""
        if call.result is not None:
            return
        limit, is_json = self._bounds.of(call)
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

    async def _stream(self, call: LineCall, handler: CallHandler, receive: Receive, answer: Answer) -> None:
        """Sends messages while the body is being read."""
        if call.result is not None:
            await answer.end(*call.result, call.all_headers())
            return
        if call.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest(bad_request("the body of a stream cannot be compressed", 415))
        await answer.begin(call.content_type, call.answer_headers)
        reading = asyncio.get_running_loop().create_task(self._read(call, handler, receive))
        try:
            while (message := await call.next_message()) is not None:
                await answer.part(message)
                message = b""  # the connection holds what is still to be sent; not twice
                await answer.left()
                handler.sent()
            await answer.last(call)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _read(self, call: LineCall, handler: CallHandler, receive: Receive) -> None:
        try:
            await call.read(receive, handler, self._bounds.json_bytes)
        except Exception as error:
            call.finish(broken(error, self._gate))


def _headers_of(sent: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}


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
