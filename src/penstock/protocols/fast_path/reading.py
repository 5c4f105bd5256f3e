"""Reads the spans of known requests: the values of their inputs, and timeouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np

from penstock.core import wire
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.core.tensors import Kind as Numbers
from penstock.protocols import typed_lists as values
from penstock.protocols.fast_path.spans import Kind, Span
from penstock.protocols.tensors import LENGTH, of_raw

MICROS = 1_000_000
LONGEST_VARINT = 8  # bytes; longer ones may be negative, or too large
LARGEST_VARINT, LARGEST_INTEGER = 2**64 - 1, 2**63 - 1
MOST_INTEGERS = 16  # of a list that is read one by one
LARGEST_NANOS = 2**31 - 1
ENDS, FIVE_BYTES = 0x80_80_80_80_80, 0x80_80_80_80  # the bits that say where a number ends; of five bytes
SECONDS_KEY, NANOS_KEY = 1 << 3 | wire.VARINT, 2 << 3 | wire.VARINT  # of a Duration

LISTS: Mapping[tuple[Kind, DataType], np.dtype[np.generic]] = {
    (Kind.FLOATS, DataType.FP32): np.dtype("<f4"),
    (Kind.FLOATS, DataType.FP64): np.dtype("<f4"),
    (Kind.DOUBLES, DataType.FP64): np.dtype("<f8"),
}
"""The dtypes of the packed lists of which every value fits the input's datatype."""

Read: TypeAlias = Callable[[bytes], Array]
"""Makes an input from its span; raises ValueError or InvalidRequest if it is not valid."""


def has_fixed_size(span: Span, spec: TensorSpec) -> bool:
    """Whether the values of an input always have the same length."""
    return span.kind not in (Kind.STRING, Kind.INTEGERS) and spec.datatype is not DataType.BYTES


def reader(span: Span, spec: TensorSpec, array: Array) -> Read | None:
    """How to read an input from its span; None if the bytes are its values, and all of them are valid.

    Args:
        span: the span of the known request.
        spec: the input's spec.
        array: the input of the known request.

    Raises:
        ValueError: the values cannot be read from the span alone.
    """
    size, shape, dtype = span.end - span.start, array.shape, array.dtype
    if spec.datatype is DataType.BYTES:
        if span.kind is Kind.RAW:
            return partial(_raw_text if array.size == 1 else _texts, spec, shape)
        if span.kind is not Kind.STRING or array.size != 1:
            raise ValueError("these texts are not read from their span")
        return partial(_text, shape)
    if span.kind is Kind.RAW:
        if size != array.nbytes:
            raise ValueError("the span does not hold all values")
        return partial(_bools, shape) if spec.datatype is DataType.BOOL else None
    if span.kind is Kind.INTEGERS:
        if array.size > MOST_INTEGERS:
            raise ValueError("a parser reads that many faster")
        if array.size == 1 and spec.datatype.kind in (Numbers.INT, Numbers.UINT):
            bounds = np.iinfo(dtype)
            return partial(_integer, shape, dtype, int(bounds.min), min(int(bounds.max), LARGEST_INTEGER))
        return partial(_integers, spec, shape, array.size)
    sent = LISTS.get((span.kind, spec.datatype))
    if sent is None or size != array.size * sent.itemsize:
        raise ValueError("the values of this list may not fit, or are not all in the span")
    return None if sent == dtype else partial(_converted, shape, sent, dtype)


def _texts(spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> Array:
    return of_raw(spec, data).reshape(shape)


def _raw_text(spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> Array:
    if int.from_bytes(data[: LENGTH.size], "little") + LENGTH.size != len(data):
        return _texts(spec, shape, data)
    return _text(shape, data[LENGTH.size :])


def _text(shape: tuple[int, ...], data: bytes) -> Array:
    array = np.empty(shape, object)
    array.fill(data.decode())
    return array


def _integer(shape: tuple[int, ...], dtype: np.dtype[np.generic], low: int, high: int, data: bytes) -> Array:
    sent, end = (data[0], 1) if len(data) == 1 else wire.read_varint(data, 0)
    number = sent if sent <= LARGEST_INTEGER else sent - LARGEST_VARINT - 1
    if end != len(data) or sent > LARGEST_VARINT or not low <= number <= high:
        raise ValueError("there are more or fewer values, or the value does not fit")
    array = np.empty(shape, dtype)
    array.fill(number)
    return array


def _integers(spec: TensorSpec, shape: tuple[int, ...], count: int, data: bytes) -> Array:
    numbers, at = [], 0
    while at < len(data):
        number, at = wire.read_varint(data, at)
        if number > LARGEST_VARINT:
            raise ValueError("the number is too long")
        numbers.append(number if number <= LARGEST_INTEGER else number - LARGEST_VARINT - 1)
    if len(numbers) != count:
        raise ValueError("there are more or fewer values")
    return values.read(spec, "int_values", numbers).reshape(shape)


def _bools(shape: tuple[int, ...], data: bytes) -> Array:
    if data.strip(b"\0\1"):
        raise ValueError("a byte is neither 0 nor 1")
    return np.ndarray(shape, np.bool_, data)


def _converted(
    shape: tuple[int, ...], sent: np.dtype[np.generic], dtype: np.dtype[np.generic], data: bytes
) -> Array:
    return np.ndarray(shape, sent, data).astype(dtype)


def check_integers(data: bytes, start: int, end: int, most: int) -> None:
    """Makes sure that a parser accepts a packed list of integers, which has at most `most` bytes.

    Raises:
        ValueError: it may not, or the list is longer.
    """
    if end - start > most:
        raise ValueError("there are more values")
    if data[end - 1] > wire.LAST_BYTE:
        raise ValueError("the list ends within a number")
    if end - start > LONGEST_VARINT:  # else none can be too long
        while start < end:
            number, start = wire.read_varint(data, start)
            if number > LARGEST_VARINT:
                raise ValueError("the number is too long")


def tag(data: bytes, start: int, end: int) -> int:
    """The tag.

    Raises:
        ValueError: it is so long that a part of its bits may not count.
    """
    if end - start == 1:
        return data[start]
    if end - start == 2:
        return data[start] & 0x7F | data[start + 1] << 7
    return _number(data, start, end)


def seconds(data: bytes, start: int, end: int) -> float:
    """The timeout of a Duration's content in seconds; infinity if it is 0.

    Raises:
        ValueError: it is encoded in an unusual way, or perhaps negative.
    """
    return _seconds(data[start:end])


@lru_cache(1024)
def _seconds(content: bytes) -> float:
    """The same, remembered: most callers have one timeout, and this is read for nearly every message."""
    whole = nanos = stop = 0
    end = len(content)
    if stop < end and content[stop] == SECONDS_KEY:
        whole, stop = wire.read_varint(content, 1)
        if stop - 1 > LONGEST_VARINT:
            raise ValueError("the number may be negative")
    if stop < end and content[stop] == NANOS_KEY:
        start = stop + 1
        written = int.from_bytes(content[start:], "little") if end - start == 5 else 0
        if written & ENDS == FIVE_BYTES:  # from a quarter of a second on
            nanos = (
                written & 0x7F
                | written >> 1 & 0x3F80
                | written >> 2 & 0x1FC000
                | written >> 3 & 0xFE00000
                | written >> 4 & 0x7F0000000
            )
            stop = end
        else:
            nanos, stop = wire.read_varint(content, start)
        if nanos > LARGEST_NANOS or stop - start > LONGEST_VARINT:
            raise ValueError("the number may be negative")
    if stop != end:
        raise ValueError("the timeout is encoded in an unusual way")
    return whole + nanos / 1e9 or math.inf


def seconds_of_micros(data: bytes, start: int, end: int) -> float:
    """The timeout of a number of microseconds in seconds; infinity if it is 0.

    Raises:
        ValueError: it may be negative.
    """
    micros = _number(data, start, end)
    return micros / MICROS if micros else math.inf


def _number(data: bytes, start: int, end: int) -> int:
    number, stop = wire.read_varint(data, start)
    if stop != end or end - start > LONGEST_VARINT:
        raise ValueError("the number is too long")
    return number


def varints(columns: Array) -> Array:
    """The numbers whose varints are the rows of a matrix, uint64 [count].

    Args:
        columns: uint8 [count, bytes of each].
    """
    weights = np.uint64(1) << 7 * np.arange(columns.shape[1], dtype=np.uint64)
    numbers: Array = (columns & np.uint8(0x7F)).astype(np.uint64) @ weights
    return numbers
