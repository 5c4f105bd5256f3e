"""A request that has come completely at once: it is answered without ASGI and without a task."""

from __future__ import annotations


class _Nothing:
    """An event that nothing waits for."""

    def set(self) -> None:
        """Does nothing."""


class WholeRequest:
    """Such a request. It stands where uvicorn's connection keeps the request that is being answered.

    Args:
        version: of HTTP, such as "1.1".
        method: such as "POST".
        path: as it was sent, without percent-encoding.
        query: the query string, without "?".
        headers: the headers, names in lower case.
        body: the body.
        keep_alive: whether the connection stays open after the answer.

    Attributes:
        response_started: whether it has been answered.
        response_complete: the same: an answer is sent in one part.
        disconnected: whether its client has gone.
    """

    __slots__ = (
        "body", "disconnected", "headers", "keep_alive", "method", "path", "query", "response_complete",
        "response_started", "version",
    )  # fmt: skip

    message_event = _Nothing()

    def __init__(  # noqa: PLR0913 - what makes up a request
        self,
        version: str,
        method: str,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self.version = version
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.response_started = self.response_complete = self.disconnected = False
