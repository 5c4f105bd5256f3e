"""Spans: the positions in a serialized request of the parts that may differ between similar requests."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, TypeAlias

from penstock.core import wire

Range: TypeAlias = tuple[int, int]
NOWHERE: Range = (0, 0)


class Kind(Enum):
    """What a span holds, which says how it is read and checked."""

    RAW = "the raw values of an input"
    FLOATS = "a packed list of 32-bit floats: the values of an input"
    DOUBLES = "a packed list of 64-bit floats: the values of an input"
    INTEGERS = "a packed list of integers, each a varint: the values of an input"
    STRING = "one text: the value of an input"
    ID = "the id"
    TAG = "the tag, a varint"
    DURATION = "the timeout, as the content of a Duration"
    MICROS = "the timeout in microseconds, a varint"
    SEQUENCE = "the id of the sequence that it is a step of"
    TEXT = "a text that the server does not read, or reads only if it is set up to"

    __hash__ = object.__hash__


INPUTS = frozenset({Kind.RAW, Kind.FLOATS, Kind.DOUBLES, Kind.INTEGERS, Kind.STRING})


class Span(NamedTuple):
    """One part of a request that may differ.

    Attributes:
        kind: what it holds.
        name: the name of the input, or the key of the text; else "".
        start: where it begins.
        end: where it ends.
        enclosing: the contents of the fields around it, the outermost first. All of them have their length
            in front. Empty for a tag.
    """

    kind: Kind
    name: str
    start: int
    end: int
    enclosing: tuple[Range, ...]

    def may_vary_in_length(self) -> bool:
        """Whether all enclosing fields end where it ends, so that its length follows from theirs."""
        return bool(self.enclosing) and all(end == self.end for _, end in self.enclosing)


class Spans:
    """The spans of one request, as they are found."""

    def __init__(self) -> None:
        self.found: list[Span] = []
        self._names: set[tuple[Kind, str]] = set()

    def add(self, kind: Kind, name: str, *ranges: Range) -> None:
        """Adds a span.

        Args:
            kind: what it holds.
            name: see `Span`.
            ranges: the contents of the enclosing fields, the outermost first, and the span itself.

        Raises:
            ValueError: there is one of this kind and name, or it is empty.
        """
        *enclosing, (start, end) = ranges
        if (kind, name) in self._names or start == end:
            raise ValueError("a field appears twice, or is empty")
        self._names.add((kind, name))
        self.found.append(Span(kind, name, start, end, tuple(enclosing)))


def once(before: Range, start: int, end: int) -> Range:
    """The range of a field that may appear only once.

    Raises:
        ValueError: it appeared before, or is empty.
    """
    if before != NOWHERE or start == end:
        raise ValueError("a field appears twice, or is empty")
    return start, end


def entry(data: bytes, start: int, end: int) -> tuple[str, Range]:
    """The key of an entry of a map, and the content of its value.

    Raises:
        ValueError: a field is empty or appears more than once, or the encoding is not as expected.
    """
    name = value = NOWHERE
    for key, first, last in wire.fields(data, start, end):
        if key == MAP_KEY:
            name = once(name, first, last)
        elif key == MAP_VALUE:
            value = once(value, first, last)
    if value == NOWHERE:
        raise ValueError("an entry of a map has no value")
    return data[slice(*name)].decode(), value


MAP_KEY, MAP_VALUE = 1 << 3 | wire.LENGTH_DELIMITED, 2 << 3 | wire.LENGTH_DELIMITED


def lengths(data: bytes, span: Span) -> Iterator[Range]:
    """Where the lengths of the enclosing fields stand, the outermost first.

    Raises:
        ValueError: one is not encoded as usual.
    """
    for start, end in span.enclosing:
        length = wire.varint(end - start)
        if data[start - len(length) : start] != length:
            raise ValueError("a length is encoded in an unusual way")
        yield start - len(length), start
