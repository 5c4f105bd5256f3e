"""Converts values of JSON to arrays, by the rules of typed lists, and arrays to JSON.

JSON has one kind of number. For an integer input, a number must be whole and in range. For a floating-point
input, every number is read as FP64 first and may then be rounded, but stays finite. "NaN", "Infinity" and
"-Infinity" stand for what JSON has no number for, in both directions, as in protobuf's JSON; null, which
tables have for a missing value, is read as NaN, too. Where a number is expected, true and false, which tables
have in columns of booleans, are 1 and 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from penstock.core.errors import InvalidRequest
from penstock.core.minifloats import BY_BITS, widened
from penstock.core.tensors import Array, DataType, Kind, TensorSpec
from penstock.protocols import typed_lists

NOT_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
INT64_MAX = 2**63 - 1
EXACT = 2.0**53  # from here on, a whole number that was rounded to FP64 may have been another one
SLICE = 16_384
"""Values that are converted at once, for the other threads' sake."""
MOST_NESTED = 32
"""The most lists in each other: numpy has no more axes."""

NAMES = {bool: "true or false", int: "a number", float: "a number", str: "a text", type(None): "null"}
NAMES |= {list: "a list", dict: "an object"}
"""What a type of Python is in JSON."""

_NUMBERS = {int, float, bool}
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def flattened(name: str, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The values in nested lists, and the shape of these.

    Args:
        name: of the input, for messages.
        data: a value, or lists of lists of values.

    Raises:
        InvalidRequest: lists side by side differ in their length.
    """
    if not isinstance(data, list):
        return [data], ()
    shape = [len(data)]
    while data and isinstance(data[0], list):
        lengths = _each(len, data) if _each(type, data) == {list} else ()
        if len(lengths) != 1 or len(shape) == MOST_NESTED:
            raise InvalidRequest(f"input {name} has lists of different lengths or depths side by side")
        shape += lengths
        data = _joined(data, shape[-1])
    return data, tuple(shape)


def _each(function: Callable[[Any], Any], values: Sequence[Any]) -> set[Any]:
    """What a function returns for the values, without those that are the same."""
    if len(values) <= SLICE:
        return set(map(function, values))
    found: set[Any] = set()
    for start in range(0, len(values), SLICE):
        found.update(map(function, values[start : start + SLICE]))
    return found


def _joined(lists: Sequence[Any], length: int) -> list[Any]:
    """The values of lists of one length, in one list."""
    if len(lists) * length <= SLICE:
        return list(chain.from_iterable(lists))
    values: list[Any] = []
    step = SLICE // max(length, 1) + 1
    for start in range(0, len(lists), step):
        values.extend(chain.from_iterable(lists[start : start + step]))
    return values


def array_of(spec: TensorSpec, values: Sequence[Any]) -> Array:
    """Values of JSON as a flat array of an input's datatype.

    Raises:
        InvalidRequest: a value does not fit; the text names it.
    """
    if len(values) <= SLICE:
        return _array_of(spec, values, 0)
    starts = range(0, len(values), SLICE)
    return np.concatenate([_array_of(spec, values[start : start + SLICE], start) for start in starts])


def _array_of(spec: TensorSpec, values: Sequence[Any], start: int) -> Array:
    """As `array_of`; the first value is at position `start`."""
    types, kind = set(map(type, values)), spec.datatype.kind
    if kind is Kind.BYTES:
        if type(None) in types and spec.missing_text is not None:
            values = [spec.missing_text if each is None else each for each in values]
            types.discard(type(None))
        _check(types <= {str}, spec, values, {str}, start)
        return typed_lists.text_array(list(values))
    if kind is Kind.BOOL:
        _check(types <= {bool}, spec, values, {bool}, start)
        return np.array(values, "?")
    if kind in (Kind.INT, Kind.UINT):
        _check(types <= _NUMBERS, spec, values, _NUMBERS, start)
        if float in types:
            _check_exact(spec, values, start)
            if int not in types:
                return typed_lists.of_list(spec, values, np.dtype("<f8"), start)
            values = [int(each) if isinstance(each, float) and each.is_integer() else each for each in values]
            if float in set(map(type, values)):
                return typed_lists.of_list(spec, values, np.dtype("<f8"), start)
        large = bool(values) and max(values) > INT64_MAX and min(values) >= 0
        return typed_lists.of_list(spec, _in_range(spec, values), np.dtype("<u8" if large else "<i8"), start)
    if str in types:
        values = [NOT_FINITE.get(each, each) if isinstance(each, str) else each for each in values]
        types = set(map(type, values))
    if type(None) in types:
        values = [np.nan if each is None else each for each in values]
        types.discard(type(None))
    _check(types <= _NUMBERS, spec, values, _NUMBERS, start)
    return typed_lists.of_list(spec, values, np.dtype("<f8"), start)


def _check_exact(spec: TensorSpec, values: Sequence[Any], start: int) -> None:
    """Rejects numbers of which not every digit is known: those with a point, and those beyond 64 bits."""
    for index, each in enumerate(values, start):
        if isinstance(each, float) and abs(each) >= EXACT:
            why = ": with a point or an exponent, a number from 2^53 on is rounded; write its digits only"
            raise InvalidRequest(
                f"input {spec.name}: the value {each!r} at position {index} does not fit {spec.datatype}"
                f"{why if abs(each) < 2.0**64 else ''}"
            )


def _in_range(spec: TensorSpec, values: Sequence[Any]) -> Sequence[Any]:
    """Integers that 64 bits can hold all together."""
    if values and min(values) < 0 and max(values) > INT64_MAX:
        raise InvalidRequest(
            f"input {spec.name}: the values {min(values)} and {max(values)} do not fit {spec.datatype}"
        )
    return values


def _check(fits: bool, spec: TensorSpec, values: Sequence[Any], expected: set[type], start: int) -> None:
    if not fits:
        index, value = next((i, each) for i, each in enumerate(values, start) if type(each) not in expected)
        came = orjson.dumps(value).decode()
        advice = ", which has no missing values: fill them in first" if value is None else ""
        if advice and expected == {str}:
            advice += ', for example with "", the empty text'
        raise InvalidRequest(
            f"input {spec.name}: the value {came[:80]} at position {index} is {NAMES[type(value)]}, "
            f"expected {spec.datatype}{advice}"
        )


def plain(datatype: DataType, array: Array) -> Array | list[Any]:
    """An array of an output as `dumped` takes it."""
    if array.dtype.hasobject:
        found: list[Any] = array.tolist()
        return found
    if datatype in BY_BITS:
        array = widened(datatype, array)
    return np.ascontiguousarray(array) if array.ndim else array.reshape(1)[0]


def in_pieces(value: Any) -> Any:
    """A value for `dumped`: large arrays and lists are written here, bit by bit, for the other threads' sake.

    Args:
        value: a list, or what `plain` returns.
    """
    if isinstance(value, np.ndarray):
        return orjson.Fragment(_array_json(value)) if value.size > SLICE else value
    if not isinstance(value, list) or len(value) <= SLICE:
        return value
    starts = range(0, len(value), SLICE)
    return orjson.Fragment(_joined_json([dumped(value[start : start + SLICE]) for start in starts]))


def _array_json(array: Array) -> bytes:
    if array.size <= SLICE:
        return dumped(array)
    step = SLICE // max(array.size // len(array), 1)
    if not step:
        return b"[" + b",".join([_array_json(each) for each in array]) + b"]"
    starts = range(0, len(array), step)
    return _joined_json([dumped(array[start : start + step]) for start in starts])


def _joined_json(lists: Sequence[bytes]) -> bytes:
    """One list with the values of several."""
    return b"[" + b",".join([each[1:-1] for each in lists]) + b"]"


def dumped(fields: object) -> bytes:
    """JSON of objects, lists, texts, numbers and what `plain` returns.

    Raises:
        ValueError: a text cannot be encoded.
    """
    data = orjson.dumps(fields, option=_OPTIONS)
    if b"null" in data:  # perhaps for a number that is not finite
        data = orjson.dumps(_named(fields), option=_OPTIONS)
    return data


def in_numbers(array: Array) -> bytes:
    """JSON of numbers; one that is not finite becomes null."""
    return orjson.dumps(np.ascontiguousarray(array), option=_OPTIONS)


def _named(fields: Any) -> Any:
    """The same with names in place of numbers that are not finite."""
    if isinstance(fields, dict):
        return {key: _named(value) for key, value in fields.items()}
    if isinstance(fields, np.ndarray | np.generic) and fields.dtype.kind == "f":
        return fields if np.isfinite(fields).all() else _named(_shortest(fields))
    if isinstance(fields, list):
        return list(map(_named, fields))
    if isinstance(fields, float) and fields - fields != 0:
        return "NaN" if fields != fields else "Infinity" if fields > 0 else "-Infinity"  # noqa: PLR0124
    return fields


def _shortest(array: Any) -> Any:
    """Python's numbers with the shortest decimals that become the same value again."""
    texts = array.astype(str)
    return texts.astype(np.float64).tolist()
