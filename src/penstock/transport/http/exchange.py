"""The life of one request over HTTP, from its head to its answer."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from penstock.transport.grpc.call import BROKEN, CallHandler, Method, Status
from penstock.transport.http.answer import Answer, Gate
from penstock.transport.http.call import HttpCall
from penstock.transport.http.status import bad_request, deadline_passed, too_large

if TYPE_CHECKING:
    from penstock.transport.http.connection import Connection

LONGEST_SIZE = 20  # digits
TIMEOUT = "penstock-timeout"
"""The header with the seconds within which the answer must come."""


class BadRequest(Exception):
    """The request cannot be read.

    Args:
        status: how the call ends.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.details)
        self.status = status


def broken(error: Exception, gate: Gate) -> Status:
    """The status of a call that ends with an exception."""
    if isinstance(error, BadRequest):
        return error.status
    gate.report(error)
    return BROKEN


class Bounds(NamedTuple):
    """The largest bodies.

    Attributes:
        body_bytes: the largest body, also once it is decompressed.
        json_bytes: the largest JSON in it.
    """

    body_bytes: int
    json_bytes: int

    def of(self, call: HttpCall) -> tuple[int, bool]:
        """The most bytes that a body may have, and whether all of it is JSON.

        Raises:
            BadRequest: the JSON before its binary data is too large.
        """
        size = call.headers.get(call.json_size) if call.json_size else None
        if size is None:
            return self.json_bytes, True
        if size.isdecimal() and len(size) <= LONGEST_SIZE and int(size) > self.json_bytes:
            raise BadRequest(too_large(self.json_bytes, is_json=True))
        return self.body_bytes, False


_EXPIRED = deadline_passed()


def is_cancelled(call: HttpCall) -> bool:
    """Whether a call that is over was given up: its deadline has passed, or its client has gone."""
    return call.result is None or call.is_gone or call.result[0] is _EXPIRED


def set_deadline(call: HttpCall) -> asyncio.TimerHandle | None:
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


class Exchange:
    """A request that has come completely, and its answer: what the application does, without a task.

    All methods are called on the event loop.

    Args:
        call: the request.
        answer: sends its answer.
        connection: the connection that it came by.
        gate: the server.
    """

    __slots__ = ("_answer", "_call", "_connection", "_gate", "_handler", "_timer")

    def __init__(self, call: HttpCall, answer: Answer, connection: Connection, gate: Gate) -> None:
        self._call = call
        self._answer = answer
        self._connection = connection
        self._gate = gate
        self._handler: CallHandler | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, method: Method, bounds: Bounds, body: bytes) -> None:
        """Gives the request to its handler; the answer follows at once or later."""
        call = self._call
        self._gate.began()
        self._connection.call = call
        try:
            self._timer = set_deadline(call)
            self._handler = method.handler(call)
            limit, is_json = bounds.of(call)
            if len(body) > limit:
                raise BadRequest(too_large(limit, is_json=is_json))
            if call.result is None:
                self._handler.received(body)
        except Exception as error:
            call.finish(broken(error, self._gate))
        if call.result is None:
            call.on_news = self._over
        else:
            self._over()

    def _over(self) -> None:
        """The call is finished, or its client has gone."""
        call = self._call
        call.on_news = None
        try:
            if call.result is not None and not call.is_gone:
                status, message = call.result
                if not self._answer.now(status, message, call.answer_headers):
                    task = asyncio.get_running_loop().create_task(self._answer_later(status, message))
                    self._connection.tasks.add(task)
                    task.add_done_callback(self._connection.tasks.discard)
                    return
        except Exception as error:
            self._failed(error)
        self._end()

    async def _answer_later(self, status: Status, message: bytes | None) -> None:
        """Sends an answer that takes long to compress."""
        try:
            await self._answer.end(status, message, self._call.answer_headers)
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
                self._handler.closed(is_cancelled(self._call))
        except Exception as error:
            self._gate.report(error)
        finally:
            self._handler = None  # it refers to the call, which refers to this
            self._connection.call = None
            self._gate.ended()
