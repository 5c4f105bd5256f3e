"""How an error ends a call over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import orjson

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.garbage import paused
from penstock.core.names import many
from penstock.protocols.rest import pieces
from penstock.protocols.status import CODES, HTTP_CODES, TRITON_CODES, Codes, words
from penstock.transport.http.status import HttpStatus

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 2 * pieces.PIECE
"""JSON up to this size in bytes is parsed by one call, which takes up to 10 ms."""
NOT_UTF8, MORE = "not valid UTF-8", "content after document"
"""Parts of orjson's texts. The whole text for what is not UTF-8 is about texts of Python."""


def not_too_deep(function: Callable[P, R]) -> Callable[P, R]:
    """A function that reads JSON, with an error of the request for what is nested too deeply."""

    @wraps(function)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (RecursionError, orjson.JSONEncodeError):
            raise InvalidRequest("the JSON has lists or objects that are nested too deeply") from None

    return reading


def to_status(error: RequestError, codes: Codes = CODES) -> HttpStatus:
    """The status that ends a call with an error.

    Args:
        error: the error.
        codes: gRPC's codes; with Triton's, HTTP's status is Triton's as well.
    """
    kind = type(error)
    http = 0 if codes is TRITON_CODES and codes[kind] is not CODES[kind] else HTTP_CODES[kind]
    return HttpStatus(codes[kind], words(error), http=http, retry_after_seconds=error.retry_after_seconds)


def parsed(data: bytes, more: str = "", what: str = "the body") -> object:
    """The JSON in a body or a line.

    Args:
        data: its bytes.
        more: what to do if there are several documents, for the message.
        what: what it came as, for the message.

    Raises:
        InvalidRequest: it is not JSON.
    """
    try:
        if len(data) <= AT_ONCE:
            return orjson.loads(data)
        with paused():
            return pieces.loads(data)
    except (orjson.JSONDecodeError, pieces.NotJson) as error:
        words = str(error)
        if b"\n" not in data:  # what is on one line has no lines; that of a stream has another number
            words = words.replace(": line 1 column", ": column")
        words = "it is not UTF-8" if NOT_UTF8 in words else words
        advice = f"; {more}" if more and MORE in words else ""
        raise InvalidRequest(f"{what} ({many(len(data), 'byte')}) is not JSON: {words}{advice}") from None
