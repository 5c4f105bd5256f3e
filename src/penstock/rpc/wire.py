"""The few pieces of the protobuf encoding that are read or written by hand, where every call pays for them.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a key (number and wire
type) and a value. Fields come in any order, and messages may be put one behind another to merge them.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are of the past

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
    """What a field begins with."""
    return _varint(number << 3 | wire_type)


def field(key: bytes, data: bytes) -> bytes:
    """A length-delimited field: bytes, text or a message."""
    return b"%b%b%b" % (key, varint(len(data)), data)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        ValueError: the data ends within it, or it has more bytes than any number.
    """
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
        ValueError: they cannot be told apart.
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
