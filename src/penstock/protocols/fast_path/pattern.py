"""Patterns: the bytes of a request, with gaps at its spans, which may be of any length.

A pattern is a list of steps: constant bytes, and then a span. Most spans are the last part of one or several
enclosing fields. The first of their lengths says how long the span is, and with that what must stand between
the two, such as the other lengths. So a request that fits a pattern is split by a parser at the same places:
it consists of the same fields in the same order, and of each of them everything is compared but its span.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from penstock.core import wire
from penstock.protocols.fast_path.spans import Range, Span, lengths

LARGEST = 4096
"""Most bytes of a request that are compared with every other one."""
REMEMBERED = 1024  # heads of one span, by the length of its field

Places: TypeAlias = Sequence[Range]
"""Where the spans of a request are, in their order."""

Head: TypeAlias = tuple[bytes, int]
"""What stands between the length of a field and the span at its end, and the length of the span."""

NO_HEAD: Head = (b"", 0)
"""The head of a field whose length is impossible."""

LONGEST_LENGTH = 5
"""The most bytes of a length that parsers accept."""

LAYOUTS = 16  # of one pattern; requests of further lengths are split each time

Layout: TypeAlias = tuple[Sequence[tuple[int, bytes]], Sequence[Range], Places]
"""How a request of one length was split: its bytes but for its spans, with their positions; its spans that
are varints; and the places of all its spans. A request of this length that has the same bytes at these
positions consists of the same fields, so its spans have the same places."""


class Heads(dict[int, Head]):
    """The heads of one span, by the length of the outermost enclosing field; made when they are needed.

    Args:
        parts: what stands behind each of the lengths of the enclosing fields, up to the next one or the span.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        super().__init__()
        self._parts = parts

    def __missing__(self, length: int) -> Head:
        head = self._made(length) or NO_HEAD
        if len(self) < REMEMBERED:
            self[length] = head
        return head

    def _made(self, length: int) -> Head | None:
        head, *others = self._parts
        left = length - len(head)
        for part in others:
            for width in (1, 2, 3, 4):
                written = wire.varint(max(left - width, 0))
                if len(written) == width:
                    break
            else:
                return None
            head += written + part
            left -= width + len(part)
        return (head, left) if left > 0 else None


VARINT = Heads([b""])
"""Stands for a span that is a varint, in a step."""

Step: TypeAlias = tuple[bytes, int, int, Heads | None]
"""Constant bytes, their length, and how the span behind them is found: its length, or its heads."""


class Pattern:
    """The pattern of a request.

    Args:
        data: the request.
        spans: its spans, by their positions.
        fixed: for each, whether its length is always the same.

    Attributes:
        size: the length of matching requests; None if it may differ.
        first: what matching requests begin with.
        places: where the spans of the request itself are.
        constants: the bytes between them, with their positions. If the size is fixed, requests of this size
            with these bytes match, and nothing else has to be looked at.

    Raises:
        ValueError: a span cannot vary, or there is too much to compare with every request.
    """

    __slots__ = ("_came", "_layouts", "_steps", "_tail", "constants", "first", "places", "size")

    def __init__(self, data: bytes, spans: Sequence[Span], fixed: Sequence[bool]) -> None:
        self._steps: list[Step] = []
        self._layouts: dict[int, Layout] = {}  # by the length of the request
        self._came: set[int] = set()  # lengths that came once
        self.constants: list[tuple[int, bytes]] = []
        self.places: Places = [(span.start, span.end) for span in spans]
        position = compared = 0
        for span, is_fixed in zip(spans, fixed, strict=True):
            first, size, heads = span.start, span.end - span.start, None
            if not is_fixed:
                first, heads = (span.start, VARINT) if not span.enclosing else _heads(data, span)
            if first < position:
                raise ValueError("the spans overlap")
            constant = data[position:first]
            self._steps.append((constant, len(constant), size, heads))
            self.constants.append((position, data[position : span.start]))
            compared += span.start - position
            position = span.end
        self._tail = data[position:]
        self.constants.append((position, self._tail))
        self.size = len(data) if all(fixed) else None
        self.first = self._steps[0][0] if self._steps else self._tail
        if compared + len(self._tail) > LARGEST:
            raise ValueError("too much of the request is not values")

    def places_in(self, data: bytes) -> Places | None:
        """Where the spans of a request are; None if it does not fit the pattern.

        Requests of equal length are usually split alike, and then their bytes are only compared.

        Raises:
            IndexError: it does not, and ends too early.
            ValueError: it does not, and has an impossible length.
        """
        layout = self._layouts.get(len(data))
        if layout is not None:
            constants, varints, places = layout
            for place, constant in constants:
                if not data.startswith(constant, place):
                    break
            else:
                if not varints or all(_is_varint(data, *each) for each in varints):
                    return places
        found = self._split(data)
        if found is not None:
            self._note(data, found)
        return found

    def _note(self, data: bytes, places: Places) -> None:
        """Notes how a request was split, if its length has come before: where each differs, it is no use."""
        size = len(data)
        if size not in self._came:
            if len(self._came) >= LAYOUTS:
                self._came.clear()
            self._came.add(size)
            return
        if len(self._layouts) >= LAYOUTS:
            self._layouts.clear()
        self._layouts[size] = self._layout(data, places)

    def _layout(self, data: bytes, places: Places) -> Layout:
        """The layout of a request that fits, given the places of its spans."""
        ends = [0, *[end for _, end in places]]
        starts = [*[start for start, _ in places], len(data)]
        constants = [(end, data[end:start]) for end, start in zip(ends, starts, strict=True) if end < start]
        steps = zip(self._steps, places, strict=True)
        return constants, [place for step, place in steps if step[3] is VARINT], places

    def _split(self, data: bytes) -> Places | None:
        """Splits a request at its spans; see `places_in`."""
        at, places = 0, []
        for constant, width, size, heads in self._steps:
            if not data.startswith(constant, at):
                return None
            at += width
            if heads is None:
                stop = at + size
            elif heads is VARINT:
                stop = at + 1
                while data[stop - 1] > wire.LAST_BYTE:
                    stop += 1
            else:
                length = data[at]
                at += 1
                if length > wire.LAST_BYTE:
                    first = at - 1
                    length, at = wire.read_varint(data, first)
                    if at - first > LONGEST_LENGTH:
                        return None
                head, left = heads[length]
                if not left or not data.startswith(head, at):
                    return None
                at += len(head)
                stop = at + left
            places.append((at, stop))
            at = stop
        tail = self._tail
        return places if at + len(tail) == len(data) and data.startswith(tail, at) else None


def _heads(data: bytes, span: Span) -> tuple[int, Heads]:
    """Where the first length around a span stands, and the heads of the span."""
    if not span.may_vary_in_length():
        raise ValueError("the lengths around a span do not follow from each other")
    places = [*lengths(data, span), (span.start, span.start)]
    parts = [data[end:start] for (_, end), (start, _) in pairwise(places)]
    return places[0][0], Heads(parts)


def _is_varint(data: bytes, start: int, end: int) -> bool:
    """Whether a varint that begins at a position ends at another one."""
    last = end - 1
    while start < last and data[start] > wire.LAST_BYTE:
        start += 1
    return start == last and data[last] <= wire.LAST_BYTE
