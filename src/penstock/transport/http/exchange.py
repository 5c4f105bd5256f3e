"""What a request may be, and how its call ends, with a task or without."""

from __future__ import annotations

import asyncio
import math
import time
from typing import NamedTuple

from penstock.transport.grpc.call import BROKEN, Status
from penstock.transport.http.answer import Gate
from penstock.transport.http.call import HttpCall
from penstock.transport.http.status import bad_request, deadline_passed, too_large

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
