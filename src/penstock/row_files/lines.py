"""The lines of a file, which can be looked at before they are taken: many at once where nothing is odd."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import IO

BLOCK_BYTES = 1 << 16
"""How much is read at a time."""
MOST_CHARACTERS = 1 << 26
"""Most characters of a CSV cell: enough for an image as text, and a limit if a quote is never closed."""


class Lines:
    """The lines of a file of UTF-8 with their ends: a line feed, a carriage return, or both.

    Bytes that are not UTF-8 are kept as they are, as halves of surrogate pairs. A mark of the byte order at
    the beginning is left out.

    Args:
        file: its bytes; reading them does not wait for another program.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = getattr(file, "read1", file.read)
        self._lines: list[str] = []
        self._next = 0
        self._rest = b""
        self._encoding = "utf-8-sig"
        self._is_over = False

    def __iter__(self) -> Iterator[str]:
        while self._next < len(self._lines) or self._fill():
            self._next += 1
            yield self._lines[self._next - 1]

    def ahead(self, count: int) -> Sequence[str]:
        """The next lines, at most `count`; they are not taken."""
        while len(self._lines) - self._next < count and self._fill():
            pass
        return self._lines[self._next : self._next + count]

    def skip(self, count: int) -> None:
        """Takes lines that are ahead."""
        self._next += count

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _fill(self) -> bool:
        """Reads further lines; False if there are none."""
        if self._is_over:
            return False
        text = self._block().decode(self._encoding, "surrogateescape")
        self._encoding = "utf-8"
        del self._lines[: self._next]
        self._next = 0
        self._lines += io.StringIO(text, newline="").readlines()
        return bool(text)

    def _block(self) -> bytes:
        """Whole lines, at least one; at the end of the file, what is left."""
        parts, size = [self._rest], BLOCK_BYTES
        while data := self._read(size):
            parts.append(data)
            if b"\n" in data:
                break
            if sum(map(len, parts)) >= size:
                whole = b"".join(parts)
                if b"\r" in whole[:-1]:  # lines of an old Macintosh
                    break
                parts, size = [whole], 2 * size
        whole = b"".join(parts)
        self._is_over = not data
        if self._is_over:
            self._rest = b""
            return whole
        # A carriage return at the end may be half of a line's end.
        end = (whole.rfind(b"\n") + 1) or (whole.rfind(b"\r", 0, -1) + 1)
        self._rest = whole[end:]
        return whole[:end]


def plain_lines(lines: Sequence[str], delimiter: str, count: int) -> list[str] | None:
    """Lines without their ends, if each is a row whose cells are what is between the delimiters.

    Args:
        lines: the lines with their ends.
        delimiter: what is between cells.
        count: how many cells a row has.

    Returns:
        None where the parser of CSV is needed.
    """
    text = "".join(lines)
    if '"' in text or "\0" in text or len(text) > MOST_CHARACTERS:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            return None
    rows = text.removesuffix("\n").split("\n")
    if count == 1 and "" in rows:  # an empty line is no row
        return None
    return rows if set(map(str.count, rows, repeat(delimiter))) == {count - 1} else None
