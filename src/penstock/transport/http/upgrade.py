# ruff: noqa: D102 - the parser knows these methods
"""Reads a request that asks for another protocol, which HTTP/1.1 is spoken instead of."""

from __future__ import annotations

from typing import Any


class AfterUpgrade:
    """What a parser calls that begins in the middle of a request.

    See `Connection._unsupported_upgrade_warning`.

    Args:
        connection: a `Connection`; gets what comes after the head of that request.

    Attributes:
        is_muted: whether the head is being parsed.
        is_complete: whether the request has no body.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_muted = True
        self.is_complete = False

    def on_message_begin(self) -> None:
        if not self.is_muted:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_muted:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_muted:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_muted:
            self._connection.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        if self.is_muted:
            self.is_complete = True
        else:
            self._connection.on_message_complete()
