"""Casts values to a model's datatype without loss.

There are two rules. An array has a dtype: it is cast only if every value is exact in the new dtype; float64,
which is what tables hold, may be rounded to float32. A literal (a Python number, or a list of them) has no
dtype: a float may be rounded to the precision of the model, but must stay finite; an int must be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from penstock_client._tensors import bf16_bits, widen_bf16
from penstock_client._types import Array

_SHOWN = 60
_EXACT_INTEGERS = 2.0**53
"""Above this, numpy may have rounded an int in a list that also has floats."""


class Refusal(ValueError):
    """Why a value cannot be sent; the caller adds the name of the input."""

    def among(self, present: Array) -> Refusal:
        """The same for values that are counted among those where `present` is true."""
        return self


class Unfit(Refusal):
    """The first value that cannot be sent.

    Args:
        value: the value.
        place: its position among the values in row-major order, from 0; None for a single value.
        why: what is wrong with it.
    """

    def __init__(self, value: object, place: int | None, why: str) -> None:
        where = "" if place is None else f" at position {place}"
        super().__init__(f"the value {shown(value)}{where} {why}")
        self._value, self._place, self._why = value, place, why

    def among(self, present: Array) -> Refusal:
        if self._place is None:
            return self
        return Unfit(self._value, int(np.flatnonzero(present.ravel())[self._place]), self._why)


def shown(value: object) -> str:
    """The beginning of a value as Python writes it."""
    try:
        text = repr(value)
    except ValueError:  # it has an integer of more digits than Python writes
        return "of too many digits"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def cast(array: Array, dtype: np.dtype[Any], literal: object = None, datatype: str = "") -> Array:
    """The same values in `dtype`.

    Args:
        array: bools, ints or floats of any width and byte order, in any shape.
        dtype: the new dtype: bool, ints or floats.
        literal: the lists or the number that `array` was made from; None if it was an array.
        datatype: for an error, the name of the datatype that the values are for; "" for that of `dtype`.

    Raises:
        Refusal: a value would not survive, or is no number.
    """
    if array.dtype == dtype and literal is None:
        return array
    if array.dtype.name.startswith(("bfloat16", "float8")):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise _not_numeric(literal)
    with np.errstate(all="ignore"):  # errors are found by checking the values
        result = array.astype(dtype)
        if _accepts(array, result, literal):
            return result
        accepts = _accepts
        if literal is not None and array.dtype.kind == "f" and dtype.kind in "iu":
            if (whole := _whole(literal, dtype)) is not None:
                return whole.reshape(array.shape)
            accepts = _are_whole
        raise _unfit(accepts, array, result, literal, datatype or dtype.name.upper().replace("FLOAT", "FP"))


def rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """Floating-point numbers in a narrower dtype, rounded to nearest; NaN stays NaN.

    Raises:
        Refusal: a finite value would become infinite.
    """
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
    if _overflows(array, result):
        place = int(np.flatnonzero((np.isinf(result) & ~np.isinf(array)).ravel())[0])
        raise Unfit(array.ravel()[place].item(), place, f"is too large for {dtype}")
    return result


def to_bf16(array: Array, literal: object = None) -> Array:
    """The same values as the bits (uint16) of bfloat16; the rules of `cast`.

    Raises:
        Refusal: a value would not survive, or is no number.
    """
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16)
    singles = cast(array, np.dtype(np.float32), literal, "BF16")
    bits = bf16_bits(singles)
    widened = widen_bf16(bits)
    if _narrows(singles, widened, literal):
        return bits
    raise _unfit(_narrows, singles, widened, literal, "BF16")


def to_small(array: Array, datatype: str, dtype: np.dtype[Any] | None, literal: object = None) -> Array:
    """The same values in a floating-point dtype of 8 bits that numpy lacks; the rules of `cast`.

    Args:
        array: as for `cast`; or the bits (uint8).
        datatype: its name.
        dtype: that of `ml_dtypes`; None if that package is not installed.
        literal: as for `cast`.

    Raises:
        Refusal: a value would not survive, or is no number; or the package is missing.
    """
    if dtype is not None and array.dtype == dtype:
        return array
    if dtype is None:
        if array.dtype != np.uint8:
            raise Refusal(f"{datatype} needs the package ml_dtypes; without it, only uint8 bits are accepted")
        return array
    singles = cast(array, np.dtype(np.float32), literal, datatype)
    with np.errstate(all="ignore"):
        small = singles.astype(dtype)
        widened = small.astype(np.float32)
    if _narrows(singles, widened, literal):
        return small
    raise _unfit(_narrows, singles, widened, literal, datatype)


def _unfit(
    accepts: Callable[[Array, Array, object], bool],
    array: Array,
    result: Array,
    literal: object,
    datatype: str,
) -> Unfit:
    """The error for the first value that is not accepted, where not all are: found by halving."""
    single = array.ndim == 0
    array, result = array.ravel(), result.ravel()
    values = None if literal is None else _flat(literal)
    start, stop = 0, len(array)
    while stop - start > 1:
        half = (start + stop) // 2
        part = slice(start, half)
        if accepts(array[part], result[part], None if values is None else values[part]):
            start = half
        else:
            stop = half
    value = array[start].item() if values is None else values[start]
    why = f"does not fit {datatype}"
    if isinstance(value, int) and datatype.startswith(("FP", "BF")):
        why += ", which does not have every whole number; floating-point numbers are rounded"
    return Unfit(value, None if single else start, why)


def _not_numeric(literal: object) -> Refusal:
    """The error for values of which one made numpy take all for texts or dates."""
    if isinstance(literal, list | tuple):
        for place, each in enumerate(_flat(literal)):
            if np.asarray(each).dtype.kind not in "biuf":
                return Unfit(each, place, "is not numeric")
    return Refusal("it is not numeric")


def _flat(literal: object) -> list[Any]:
    flat: list[Any] = np.asarray(literal, object).ravel().tolist()
    return flat


def _whole(literal: object, dtype: np.dtype[Any]) -> Array | None:
    """A literal's values as integers, without a detour through floats; None if they are not whole numbers.

    numpy makes floats of a list in which ints and floats are mixed, and rounds the ints beyond 2^53.
    """
    values, info = _flat(literal), np.iinfo(dtype)
    try:
        whole = [int(each) for each in values]
    except (OverflowError, ValueError):  # infinite; NaN
        return None
    if whole != values or not all(info.min <= each <= info.max for each in whole):
        return None
    return np.array(whole, dtype)


def _are_whole(array: Array, result: Array, literal: object) -> bool:
    return _whole(literal, result.dtype) is not None


def _accepts(array: Array, result: Array, literal: object) -> bool:
    exact = _survives(array, result)
    return exact if literal is None else _acceptable(array, result, exact, literal)


def _narrows(singles: Array, widened: Array, literal: object) -> bool:
    """Whether float32 may become what is `widened` here again; see `cast`."""
    if _floats_survive(singles, widened):
        return True
    too_large = bool((~np.isfinite(widened) & np.isfinite(singles)).any())
    return literal is not None and not too_large and _ints_survive(literal, widened)


def _survives(array: Array, result: Array) -> bool:
    """Whether all values are equal; NaN equals NaN."""
    kinds = array.dtype.kind, result.dtype.kind
    if kinds[0] == "b":
        return True
    if kinds[1] == "b":
        return bool((array == result).all())
    if kinds == ("f", "f"):
        return _floats_survive(array, result)
    if kinds[0] == "f":
        return _same_numbers(array, result)
    if kinds[1] == "f":
        return _same_numbers(result, array)
    return _within(array, result.dtype)


def _floats_survive(array: Array, result: Array) -> bool:
    back = result.astype(array.dtype)
    return bool(((back == array) | (np.isnan(array) & np.isnan(result))).all())


def _within(integers: Array, dtype: np.dtype[Any]) -> bool:
    # Casting forth and back would not detect it: -1 survives a cast to UINT64 and back.
    info = np.iinfo(dtype)
    return integers.size == 0 or bool(info.min <= int(integers.min()) and int(integers.max()) <= info.max)


def _same_numbers(floats: Array, integers: Array) -> bool:
    """Whether floats and integers are the same numbers, in either direction of a cast."""
    info = np.iinfo(integers.dtype)
    wide = floats.astype(np.promote_types(floats.dtype, np.float64), copy=False)
    # Check the bounds first: outside of them the result of a cast to integers is undefined.
    inside = (wide >= float(info.min)) & (wide < float(info.max) + 1)
    if not inside.all():
        return False
    return bool(((wide.astype(integers.dtype) == integers) & (integers.astype(wide.dtype) == wide)).all())


def _acceptable(array: Array, result: Array, exact: bool, literal: object) -> bool:
    """Whether the cast of a literal is acceptable: floats may be rounded, ints may not."""
    if array.dtype.kind != "f":
        return exact
    if exact and not (np.abs(array) >= _EXACT_INTEGERS).any():
        return True
    rounded = result.dtype.kind == "f" and not _overflows(array, result)
    return (exact or rounded) and _ints_survive(literal, result)


def _overflows(array: Array, result: Array) -> bool:
    return bool((np.isinf(result) & ~np.isinf(array)).any())


def _ints_survive(literal: object, result: Array) -> bool:
    """Whether the ints among a literal's values are still the same."""
    before = np.asarray(literal, object).ravel()
    # Python compares ints and floats exactly, numpy does not.
    return all(
        now == was for was, now in zip(before, result.ravel().tolist(), strict=True) if type(was) is int
    )
