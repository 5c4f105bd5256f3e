"""Says which pages of other origins may call from a browser (CORS)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

ANY = "*"
EXPOSED = b"penstock-model-version, x-request-id, retry-after, inference-header-content-length"
"""The headers of answers that pages may read."""
METHODS = b"GET, POST"
KEPT_SECONDS = b"600"


class Origins:
    """The origins that may call.

    Args:
        allowed: such as "https://example.com"; "*" for all.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def headers(self, asked: Mapping[str, str]) -> Headers:
        """The headers of the answer to a request.

        Args:
            asked: the headers of the request.
        """
        origin = asked.get("origin")
        if not self._allowed or origin is None:
            return ()
        if not self._allows(origin):
            return ((b"vary", b"origin"),)
        if ANY in self._allowed:
            return ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED))
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"origin"),
        )

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and (ANY in self._allowed or origin in self._allowed)

    def preflight(self, verb: str, asked: Mapping[str, str]) -> Headers:
        """The headers of the answer to a browser that asks whether it may call; none for other requests.

        Args:
            verb: the method of HTTP.
            asked: the headers of the request.
        """
        is_asked = verb == "OPTIONS" and "access-control-request-method" in asked
        if not is_asked or not self._allows(asked.get("origin")):
            return ()
        wanted = asked.get("access-control-request-headers", "").encode("latin-1")
        found = [(b"access-control-allow-methods", METHODS), (b"access-control-max-age", KEPT_SECONDS)]
        return [*found, *([(b"access-control-allow-headers", wanted)] if wanted else ())]
