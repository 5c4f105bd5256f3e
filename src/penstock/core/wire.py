"""Protobuf wire format: the few parts that are encoded and decoded by hand, on the hot path of calls.

https://protobuf.dev/programming-guides/encoding: a message is a series of fields, each a key (number and wire
type) and a value. Fields come in any order, and messages may be put one behind another to merge them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 (groups) are deprecated

LAST_BYTE = 0x7F  # the largest last byte of a number; all its other bytes are larger
LAST_SHIFT = 63  # numbers have up to 64 bits, in up to 10 bytes


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_SMALL = tuple(map(_varint, range(1 << 14)))


def varint(value: int) -> bytes:
    """A number from 0 on: 7 bits a byte, the lowest first."""
    return _SMALL[value] if value < 1 << 14 else _varint(value)


def key(number: int, wire_type: int) -> bytes:
    """The key of a field: its number and wire type."""
    return _varint(number << 3 | wire_type)


def field(key: bytes, data: bytes) -> bytes:
    """A length-delimited field: bytes, text or a message."""
    return b"%b%b%b" % (key, varint(len(data)), data)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        ValueError: the data ends within it, or it has more bytes than any number.
    """
    try:  # nearly all lengths have one or two bytes
        if (low := data[position]) < 0x80:
            return low, position + 1
        if (high := data[position + 1]) < 0x80:
            return low & 0x7F | high << 7, position + 2
    except IndexError:
        pass  # the error is said below
    value = shift = 0
    while True:
        if position >= len(data) or shift > LAST_SHIFT:
            raise ValueError("the data ends within a number, or the number is too long")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields between two positions: the key of each as a number, and where its value begins and ends.

    Raises:
        ValueError: the bytes are not a series of fields.
    """
    while start < end:
        head, start = read_varint(data, start)
        wire_type = head & 7
        if wire_type == VARINT:
            stop = read_varint(data, start)[1]
        elif wire_type == LENGTH_DELIMITED:
            length, start = read_varint(data, start)
            stop = start + length
        elif wire_type in (FIXED32, FIXED64):
            stop = start + (4 if wire_type == FIXED32 else 8)
        else:
            raise ValueError(f"wire type {wire_type} is not known")
        yield head, start, stop
        start = stop
    if start != end:
        raise ValueError("a field reaches beyond its message")


LONG_KEY = 3
"""A field with a number from 16 on counts this much more. No protocol of ours has one in a request."""

Names: TypeAlias = Mapping[int, Any]
"""The keys of the fields that count as names, each with the `Names` of its own message; None for a text."""


def count_names(  # noqa: C901 - long: one step for each field, without a call
    data: bytes, names: Names, most_names: int, most_fields: int
) -> tuple[int, int]:
    """Counts the fields of a message, without parsing it.

    A parser makes an object of each entry of a map and of each message, which costs 100 times as much as the
    two bytes that it may take. So they are counted first.

    Args:
        data: the message.
        names: the fields that count as names. Their own messages are counted as well.
        most_names: counting ends when there are more names than this.
        most_fields: counting ends when there are more fields than this.

    Returns:
        The number of names, and of all fields that were counted: those that take longer to count, numbers and
        fields with a long key, as two and more. What cannot be parsed is not counted, except that groups,
        which have no further use, count as if they were made of the smallest fields.
    """
    found = count = 0
    left: list[tuple[int, int, Names]] = [(0, len(data), names)]
    while left:
        position, end, named = left.pop()
        try:
            while position < end:
                count += 1
                if count > most_fields or found > most_names:
                    return found, count
                head = data[position]
                position += 1
                if head > 0x7F:
                    count += LONG_KEY
                    head, position = read_varint(data, position - 1)
                kind = head & 7
                if kind == LENGTH_DELIMITED:
                    length, start = data[position], position + 1
                    if length > 0x7F:
                        length, start = read_varint(data, position)
                    position = start + length
                    if head in named:
                        found += 1
                        inner = named[head]
                        if inner is not None:
                            left.append((start, min(position, end), inner))
                elif kind == VARINT:
                    count += 1
                    position = read_varint(data, position)[1]
                elif kind in (FIXED32, FIXED64):
                    position += 4 if kind == FIXED32 else 8
                else:
                    count += (len(data) - position) // 2
                    position = end
        except (IndexError, ValueError):
            continue  # the parser gets no further than this either
    return found, count
