"""Packed lists of varints, read and written in bulk: by steps of numpy, during which other threads go on.

protobuf parses such a list without giving the interpreter away: 250,000 integers hold up every other thread
for two to three milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.core.tensors import Array
from penstock.core.wire import LAST_BYTE

CHUNK_BYTES = 2**18
"""Read at once, at least one number: bounds the memory that is needed besides the list and its numbers."""
CHUNK_NUMBERS = 2**16
"""Written at once."""
LONGEST = 10
"""The most bytes of a number: 64 bits, 7 in a byte."""
NARROW = 4
"""Numbers of up to 4 bytes have up to 28 bits, and fit into uint32."""


def read(data: Array, dtype: np.dtype[np.generic]) -> Array:
    """The numbers of a packed list, as protobuf reads them.

    Args:
        data: the content of the list, uint8 [bytes].
        dtype: that of the list: int32, int64, uint32, uint64 or bool. Where a number has more bits, the lower
            ones count; a bool is whether any bit is set.

    Returns:
        A new array [count] of this dtype; or uint8, if each number has one byte and they are not bools.

    Raises:
        ValueError: the list ends within a number, or a number has more than 64 bits.
    """
    size = len(data)
    if size and data[-1] > LAST_BYTE:
        raise ValueError("the list ends within a number")
    is_bool = dtype.kind == "b"
    if not is_bool and size and data.max() <= LAST_BYTE:
        return data.copy()
    chunks, start = [], 0
    while start < size:
        stop = _whole(data, start, start + CHUNK_BYTES)
        chunks.append(data[start:stop])
        start = stop
    numbers = np.empty(
        sum([np.count_nonzero(chunk <= LAST_BYTE) for chunk in chunks]),
        np.uint8 if is_bool else f"<u{dtype.itemsize}",
    )
    at = 0
    for chunk in chunks:
        found = chunk if chunk.max() <= LAST_BYTE else _numbers(chunk)
        numbers[at : at + len(found)] = found != 0 if is_bool else found
        at += len(found)
    return numbers.view(dtype)


def _whole(data: Array, start: int, stop: int) -> int:
    """Where the last number ends that ends between two positions."""
    if stop >= len(data):
        return len(data)
    for end in range(stop, max(stop - LONGEST, start), -1):
        if data[end - 1] <= LAST_BYTE:
            return end
    raise ValueError("a number is too long")


def _numbers(data: Array) -> Array:
    """The numbers of a list that ends with one, uint32 or uint64 [count].

    All numbers are read at once: first the last byte of each, then the byte before it if there is one, etc.

    Args:
        data: uint8 [bytes], at least one.
    """
    ends = np.flatnonzero(data <= LAST_BYTE)
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    last = data.take(ends)
    if longest > LONGEST or (longest == LONGEST and (last * (lengths == LONGEST)).max() > 1):
        raise ValueError("a number is too long")
    lengths = lengths.astype(np.uint8)
    padded = np.concatenate([np.zeros(longest, np.uint8), data])  # there are none before the first number
    numbers = last.astype(np.uint32)
    earlier = [padded[longest - before :] for before in range(1, longest)]
    _add(numbers, ends, lengths, earlier[: NARROW - 1], 1)
    if longest <= NARROW:
        return numbers
    long = np.flatnonzero(lengths > NARROW)
    wide = numbers.take(long).astype(np.uint64)
    _add(wide, ends.take(long), lengths.take(long), earlier[NARROW - 1 :], NARROW)
    numbers = numbers.astype(np.uint64)
    numbers[long] = wide
    return numbers


def _add(numbers: Array, ends: Array, lengths: Array, earlier: Sequence[Array], added: int) -> None:
    """Adds further bytes to numbers.

    Args:
        numbers: the last bytes of each, uint32 or uint64 [count].
        ends: where each ends, int64 [count].
        lengths: how many bytes each has, uint8 [count].
        earlier: the list without its last bytes: one fewer that are already added, and then fewer.
        added: how many bytes are already added.
    """
    shift = numbers.dtype.type(7)
    shortest = int(lengths.min())
    for count, bytes_before in enumerate(earlier, added):
        part = bytes_before.take(ends)
        part &= np.uint8(0x7F)
        if shortest > count:
            numbers <<= shift
        else:
            is_longer = (lengths > count).view(np.uint8)
            part *= is_longer
            numbers <<= is_longer * np.uint8(7)
        numbers |= part


def written(numbers: Array) -> list[bytes]:
    """Numbers as varints, one after another, in parts that are to be joined.

    Args:
        numbers: integers or bools [count]. Negative ones have the 64 bits of their two's complement.
    """
    starts = range(0, len(numbers), CHUNK_NUMBERS)
    chunks = [numbers[start : start + CHUNK_NUMBERS].astype(np.int64, copy=False) for start in starts]
    return [_written(chunk.view(np.uint64)) for chunk in chunks]


def _written(numbers: Array) -> bytes:
    """The same for some numbers.

    First the first byte of each is written, then the second byte of each number that has one, and so on.

    Args:
        numbers: uint64 [count], at least one.
    """
    largest = int(numbers.max())
    if largest <= LAST_BYTE:
        return numbers.astype(np.uint8).tobytes()
    longest = -(-largest.bit_length() // 7)
    numbers = numbers.astype(np.uint32 if longest <= NARROW else np.uint64)
    kind = numbers.dtype.type
    lengths = np.ones(len(numbers), np.uint8)
    for count in range(1, longest):
        lengths += (numbers >= kind(1 << 7 * count)).view(np.uint8)
    ends = np.cumsum(lengths, dtype=np.int64)
    places = ends - lengths
    data = np.empty(int(ends[-1]), np.uint8)
    for count in range(1, longest + 1):
        more = lengths > count
        byte = numbers.astype(np.uint8)
        byte &= np.uint8(0x7F)
        byte |= more.view(np.uint8) << np.uint8(7)
        data[places] = byte
        if count < longest:
            left = np.flatnonzero(more)
            numbers, places, lengths = (
                numbers.take(left) >> kind(7),
                places.take(left) + 1,
                lengths.take(left),
            )
    return data.tobytes()
