"""What is asked about the server itself: its health, and the description of its paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc

from penstock.models.model import Model
from penstock.protocols.rest.openapi import document
from penstock.protocols.rest.values import dumped
from penstock.transport.grpc.call import OK, Kind, Method, Methods, ServerCall, Status
from penstock.transport.http.call import HttpCall
from penstock.transport.http.routes import Route
from penstock.transport.http.status import HttpStatus

HEALTH = "/penstock.rest/Health"
OPENAPI = "/penstock.rest/OpenApi"
ROUTES = (Route("GET", "/health", HEALTH), Route("GET", "/openapi.json", OPENAPI))
HEALTH_METHODS = frozenset({HEALTH})
"""The methods that are still answered while the server stops."""

Page: TypeAlias = Callable[[HttpCall], "tuple[Status, bytes | None]"]


class PageCall:
    """A call that is answered at once.

    Args:
        page: makes the answer.
        call: the call.
    """

    def __init__(self, page: Page, call: ServerCall) -> None:
        assert isinstance(call, HttpCall), "only the HTTP transport has such methods"
        self._page = page
        self._call = call

    def received(self, message: bytes) -> None:
        """The request has come."""
        self._call.finish(*self._page(self._call))

    def half_closed(self) -> None:
        """Not used by calls with one message."""

    def sent(self) -> None:
        """Not used by calls with one message."""

    def closed(self, cancelled: bool) -> None:
        """The call is over."""


def page(make: Page) -> Method:
    """A method that answers with what `make` returns."""
    return Method(Kind.UNARY, lambda call: PageCall(make, call))


def methods(is_ready: Callable[[], tuple[bool, str]], models: Callable[[], Sequence[Model]]) -> Methods:
    """The methods, by full name.

    Args:
        is_ready: whether the server accepts requests, and why not.
        models: returns all loaded models.
    """

    def health(call: HttpCall) -> tuple[Status, bytes]:
        ready, reason = is_ready()
        status = OK if ready else HttpStatus(grpc.StatusCode.UNAVAILABLE)
        return status, dumped({"status": reason, "ready": ready})

    def openapi(call: HttpCall) -> tuple[Status, bytes]:
        return OK, document(models())

    return {HEALTH: page(health), OPENAPI: page(openapi)}
