"""Compression of bodies: gzip and deflate (RFC 9110, 8.4.1), bounded on the way in."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

LEAST_BYTES = 1024  # below that, the answer's headers are as large
PIECE = 2**20
"""Bytes that are decompressed at once: about 2 ms."""
LEVEL = 1  # higher levels take many times as long and save little
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's window sizes for each coding; "deflate" is the format of zlib, as HTTP has it."""

_CODING = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?", re.IGNORECASE)


class TooLarge(Exception):
    """The body is larger than it may be."""


class Inflater:
    """Decompresses one body.

    Args:
        window: zlib's window size.
        limit: the most bytes that it may become.
    """

    def __init__(self, window: int, limit: int) -> None:
        self._stream = zlib.decompressobj(window)
        self._left = limit

    def inflate(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """The next part of the body, in pieces: a small part may become a large one.

        Raises:
            ValueError: it is not compressed in this way.
            TooLarge: it becomes too large.
        """
        found = data
        while data or len(found) == PIECE:
            try:
                found = self._stream.decompress(data, PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            data = self._stream.unconsumed_tail
            self._left -= len(found)
            if self._left < 0:
                raise TooLarge
            yield found
        if last and not self._stream.eof:
            raise ValueError("it ends too early")
        if self._stream.unused_data:
            raise ValueError("it goes on after its end")


def inflater(coding: str, limit: int) -> Inflater | None:
    """What decompresses a body with this Content-Encoding; None if nothing has to.

    Raises:
        ValueError: the coding is unknown.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in WINDOWS:
        raise ValueError(coding)
    return Inflater(WINDOWS[coding], limit)


def compressed(body: bytes, accepted: str) -> tuple[bytes, bytes]:
    """A body, compressed if its client wants that and if it is worth it.

    Args:
        body: the body.
        accepted: the header Accept-Encoding.

    Returns:
        The coding, b"" for none, and the body.
    """
    best = coding(accepted) if len(body) >= LEAST_BYTES else ""
    if not best:
        return b"", body
    stream = zlib.compressobj(LEVEL, wbits=WINDOWS[best])
    return best.encode(), stream.compress(body) + stream.flush()


def coding(accepted: str) -> str:
    """The compression that a client prefers: "gzip", "deflate", or "" for none.

    Args:
        accepted: the header Accept-Encoding.
    """
    found = filter(None, map(_CODING.fullmatch, accepted.split(",")))
    weights = {each[1].lower(): float(each[2] or 1) for each in found}
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, weights.get("*", 0.0)))
    weight = weights.get(best, weights.get("*", 0.0))
    return best if weight and weight >= weights.get("identity", 0.0) else ""
