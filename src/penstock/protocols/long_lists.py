"""Reads the long lists of integers of a request apart from its message.

protobuf parses a list of integers in one piece and holds the interpreter meanwhile: 250,000 of them hold up
every other request for two to three milliseconds. So long lists are taken out of the message, and read in
bulk by numpy, during which other threads go on. protobuf parses the rest, with the list [0] in their place.
What is encoded in an unusual way, or not valid, protobuf parses or rejects as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from penstock.core import varints, wire
from penstock.core.tensors import Array
from penstock.protocols.codec import parsed
from penstock.protocols.fast_path.spans import NOWHERE, Range, once

MESSAGE_BYTES = 32_768
"""Shorter messages are parsed as they are: that takes less than 0.3 ms."""
LEAST = 16_384
"""Lists of fewer integers are parsed as they are."""
LEAST_WIDE = 32_768
"""The same where not all have one byte: up to here protobuf parses them faster, or in less than 0.3 ms."""
MOST_OTHER_BYTES = 32
"""For each byte of the lists. What is not taken is copied, and where that is far more, parsing takes less."""
MOST_FIELDS = 512
"""Fields of a message that are looked at; one with more is parsed as it is."""
MOST_INNER_FIELDS = 32
"""The same of an input and of a tensor."""
NAME = wire.key(1, wire.LENGTH_DELIMITED)[0]
"""The key of an input's name, in both protocols."""
PLACEHOLDER = b"\0"
"""What stands in the message for a list: the list [0]."""

Lists: TypeAlias = Mapping[tuple[str, str], Array]
"""The lists that were taken out of a message, each by the names of its input and of its field."""

NO_LISTS: Lists = {}

M = TypeVar("M", bound=Message)


class Layout(NamedTuple):
    """Where the lists of a protocol's request are.

    Attributes:
        inputs: the key of the field of an input.
        tensor: the key of the message in an input that has the lists.
        lists: the name and the dtype of each list of integers, by the number of its field.
    """

    inputs: int
    tensor: int
    lists: Mapping[int, tuple[str, np.dtype[np.generic]]]


class _Input(NamedTuple):
    """An input: its name, where it and its tensor are, and its long lists, by the numbers of their fields."""

    name: str
    range: Range
    tensor: Range
    lists: Mapping[int, Range]


def parsed_apart(kind: type[M], data: bytes, layout: Layout) -> tuple[M, Lists]:
    """The protobuf message in `data`, and its long lists of integers: in their place it has the list [0].

    Raises:
        InvalidRequest: the bytes are not such a message.
    """
    try:
        inputs = _inputs(data, layout)
        if inputs:
            lists = _read(data, inputs, layout)
            return kind.FromString(_rest(data, inputs)), lists
    except (ValueError, DecodeError):
        pass  # protobuf decides whether it is valid, and its error is the one that is told
    return parsed(kind, data), NO_LISTS


def _inputs(data: bytes, layout: Layout) -> Sequence[_Input]:
    """The inputs with long lists, in their order; none if it does not pay to take these out.

    Raises:
        ValueError: the message cannot be parsed here.
    """
    ranges = [
        (start, end) for key, start, end in _fields(data, 0, len(data), MOST_FIELDS) if key == layout.inputs
    ]
    if all(end - start < LEAST for start, end in ranges):
        return ()
    inputs = [_input(data, start, end, layout) for start, end in ranges]
    if len({each.name for each in inputs}) < len(inputs):
        raise ValueError("an input appears twice")  # then the last one may count, or none
    inputs = [each for each in inputs if each.lists]
    size = sum([end - start for each in inputs for start, end in each.lists.values()])
    return inputs if len(data) <= MOST_OTHER_BYTES * size else ()


def _input(data: bytes, start: int, end: int, layout: Layout) -> _Input:
    name = tensor = NOWHERE
    for key, first, last in _fields(data, start, end, MOST_INNER_FIELDS):
        if key == NAME:
            name = once(name, first, last)
        elif key == layout.tensor:
            tensor = once(tensor, first, last)
    lists: dict[int, Range] = {}
    if tensor[1] - tensor[0] >= LEAST:
        for key, first, last in _fields(data, *tensor, MOST_INNER_FIELDS):
            field = key >> 3
            if field in layout.lists:
                if field in lists or key & 7 != wire.LENGTH_DELIMITED:
                    raise ValueError("a list is in several parts")
                lists[field] = first, last
    long = {field: (first, last) for field, (first, last) in lists.items() if _is_long(data, first, last)}
    return _Input(data[slice(*name)].decode(), (start, end), tensor, long)


def _is_long(data: bytes, start: int, end: int) -> bool:
    """Whether a list has enough integers."""
    if end - start < LEAST:
        return False
    content = np.frombuffer(data, np.uint8, end - start, start)
    if content.max() <= wire.LAST_BYTE or len(content) >= LEAST_WIDE * varints.LONGEST:
        return True
    return bool(np.count_nonzero(content <= wire.LAST_BYTE) >= LEAST_WIDE)


def _fields(data: bytes, start: int, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """As `wire.fields`.

    Raises:
        ValueError: the bytes are not a series of fields, or of more than `most`.
    """
    for count, field in enumerate(wire.fields(data, start, end)):
        if count == most:
            raise ValueError("there are too many fields")
        yield field


def _read(data: bytes, inputs: Sequence[_Input], layout: Layout) -> Lists:
    """The lists.

    Raises:
        ValueError: protobuf may reject one.
    """
    content = np.frombuffer(data, np.uint8)
    return {
        (each.name, name): varints.read(content[start:end], dtype)
        for each in inputs
        for (name, dtype), (start, end) in [(layout.lists[field], at) for field, at in each.lists.items()]
    }


def _rest(data: bytes, inputs: Sequence[_Input]) -> bytes:
    """The message without the lists.

    Raises:
        ValueError: a length is encoded in an unusual way.
    """
    shorter = []
    for each in inputs:
        tensor = _replaced(data, each.tensor, [(at, PLACEHOLDER) for at in each.lists.values()])
        shorter.append((each.range, _replaced(data, each.range, [(each.tensor, tensor)])))
    return _replaced(data, (0, len(data)), shorter)


def _replaced(data: bytes, within: Range, contents: Iterable[tuple[Range, bytes]]) -> bytes:
    """The bytes in a range, with other contents of some length-delimited fields; see `_rest`."""
    position, stop = within
    parts: list[bytes] = []
    for (start, end), content in contents:
        length = wire.varint(end - start)
        first = start - len(length)
        if data[first:start] != length:
            raise ValueError("a length is encoded in an unusual way")
        parts += (data[position:first], wire.varint(len(content)), content)
        position = end
    return b"".join([*parts, data[position:stop]])
