"""Tells missing values from present ones, in whatever holds a column.

pandas, pyarrow and polars are never imported: their objects are recognised by what they can do. A missing
value is None, NaN, NaT, `pandas.NA` or a masked or null element.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from penstock_client._cast import Refusal, Unfit
from penstock_client._types import Array

_NAMES = frozenset({"NAType", "NaTType"})  # the types of pandas.NA and pandas.NaT


class Column(NamedTuple):
    """The values of an input before they are cast.

    Attributes:
        array: the present values, any dtype: in the shape of the input, or flat if some are missing.
        literal: the Python values that `array` was made from; None if they had a dtype.
        missing: for each value whether it is missing, in the shape of the input; None if none are.
    """

    array: Array
    literal: object
    missing: Array | None


def is_missing(value: Any) -> bool:
    """Whether a single value stands for a missing one."""
    if value is None or type(value).__name__ in _NAMES:
        return True
    if isinstance(value, str | bytes | np.ndarray | list | tuple | dict):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124 - only NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return False


def column_of(value: object, datatype: str) -> Column:
    """A value for a numeric input as its present values and the places of the missing ones.

    Args:
        value: a number, (nested) lists of numbers, an array, or a column of pandas, pyarrow or polars.
        datatype: of the input, for the text of an error.

    Raises:
        Refusal: its lists are not of equal lengths, or it is not numeric.
    """
    if isinstance(value, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(value)
        return Column(value.compressed(), None, missing) if missing.any() else Column(value.data, None, None)
    parted = _parted(value)
    if parted is not None:
        kept, missing = parted
        array = np.asarray(kept)
        if array.dtype.kind != "O":
            return Column(array, None, missing)
        return _objects(array, missing, datatype)
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None
    if array.dtype.kind != "O":
        return Column(array, None if _has_dtype(value) else value, None)
    return _objects(array if hasattr(value, "__array__") else _as_objects(value), None, datatype)


def _parted(value: Any) -> tuple[Any, Array] | None:
    """The present values of a column and the places of the missing ones; None if an array says it all.

    An array would lose something: with a missing value among them, integers become floating-point numbers.
    """
    if hasattr(value, "isna") and hasattr(value, "__array__"):  # pandas
        if isinstance(value.dtype if hasattr(value, "dtype") else None, np.dtype) or value.ndim != 1:
            return None  # numpy's own dtypes; a DataFrame
        missing = np.asarray(value.isna(), bool)
        return (value[~missing], missing) if missing.any() else None
    count = getattr(value, "null_count", 0)
    if callable(count):  # polars
        nulls = count()
        if not isinstance(nulls, int):
            return None  # a DataFrame, whose array has NaN for them
        return (value.drop_nulls(), np.asarray(value.is_null(), bool)) if nulls else None
    if isinstance(count, int) and count > 0:  # pyarrow
        return value.drop_null(), np.asarray(value.is_null(), bool)
    return None


def _objects(array: Array, missing: Array | None, datatype: str) -> Column:
    """A column of Python objects: those that are missing are found one by one."""
    if missing is None:
        flat = array.ravel().tolist()
        found = np.fromiter(map(is_missing, flat), bool, len(flat))
        if found.any():
            missing = found.reshape(array.shape)
            array = array[~missing]
    # Python's numbers in an array are still literals.
    literal: Any = array.tolist()
    if missing is not None:
        literal = [float(each) if isinstance(each, Decimal) else each for each in literal]
    elif any(isinstance(each, Decimal) for each in array.ravel().tolist()):
        shape = array.shape
        array = np.array([float(each) for each in array.ravel().tolist()]).reshape(shape)
        literal = array.tolist()
    try:
        numbers = np.asarray(literal)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None
    if missing is not None and numbers.ndim > 1:
        place = int(np.flatnonzero(missing.ravel())[0])
        raise Refusal(f"the value at position {place} is missing, where others are lists")
    if numbers.dtype.kind == "O":
        nested = _as_objects(literal)
        if nested.ndim > array.ndim:  # lists in the cells of a column
            return _objects(nested, None, datatype)
        refusal = _not_numeric(literal, datatype)
        raise refusal if missing is None else refusal.among(~missing)
    return Column(numbers, None if _has_dtype(literal) else literal, missing)


def _not_numeric(values: list[Any], datatype: str) -> Refusal:
    """The error for the first of some Python values that numpy has no number for."""
    single = not isinstance(values, list)
    for place, each in enumerate(np.array(values, dtype=object).ravel().tolist()):
        if np.asarray(each).dtype.kind == "O":
            fits = not isinstance(each, int) or datatype.startswith(("FP", "BF"))
            why = (
                f"is not numeric, or out of range ({type(each).__name__})"
                if fits
                else f"does not fit {datatype}"
            )
            return Unfit(each, None if single else place, why)
    return Refusal("it is not numeric, or out of range")


def _as_objects(value: object) -> Array:
    try:
        return np.array(value, dtype=object)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None


def _has_dtype(value: object) -> bool:
    """Whether a value is an array or a numpy scalar, or a list that starts with one."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return hasattr(value, "__array__")
