"""Casts values to a model's datatype without loss.

There are two rules. An array has a dtype: it is cast only if every value is exact in the new dtype; float64,
which is what tables hold, may be rounded to float32. A literal (a Python number, or a list of them) has no
dtype: a float may be rounded to the precision of the model, but must stay finite; an int must be exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock_client._tensors import bf16_bits, widen_bf16
from penstock_client._types import Array

_EXACT_INTEGERS = 2.0**53
"""Above this, numpy may have rounded an int in a list that also has floats."""


class Refusal(ValueError):
    """Why a value cannot be sent; the caller adds the name of the input."""


def cast(array: Array, dtype: np.dtype[Any], literal: object = None) -> Array:
    """The same values in `dtype`.

    Args:
        array: bools, ints or floats of any width and byte order, in any shape.
        dtype: the new dtype: bool, ints or floats.
        literal: the lists or the number that `array` was made from; None if it was an array.

    Raises:
        Refusal: a value would not survive, or is no number.
    """
    if array.dtype == dtype and literal is None:
        return array
    if array.dtype.name.startswith(("bfloat16", "float8")):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise Refusal("it is not numeric")
    with np.errstate(all="ignore"):  # errors are found by checking the values
        result = array.astype(dtype)
        exact = _survives(array, result)
        if exact if literal is None else _acceptable(array, result, exact, literal):
            return result
    if array.dtype.kind in "iu" and dtype.kind == "f":
        raise Refusal(
            f"a value would not survive the cast: {dtype} does not have every whole number; "
            "floating-point numbers are rounded"
        )
    raise Refusal("a value would not survive the cast")


def rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """Floating-point numbers in a narrower dtype, rounded to nearest; NaN stays NaN.

    Raises:
        Refusal: a finite value would become infinite.
    """
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
    if _overflows(array, result):
        place = int(np.flatnonzero((np.isinf(result) & ~np.isinf(array)).ravel())[0])
        raise Refusal(f"the value {array.ravel()[place]} at position {place} is too large for {dtype}")
    return result


def to_bf16(array: Array, literal: object = None) -> Array:
    """The same values as the bits (uint16) of bfloat16; the rules of `cast`.

    Raises:
        Refusal: a value would not survive, or is no number.
    """
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16)
    singles = cast(array, np.dtype(np.float32), literal)
    bits = bf16_bits(singles)
    widened = widen_bf16(bits)
    if _floats_survive(singles, widened):
        return bits
    if literal is not None and not _overflows(singles, widened) and _ints_survive(literal, widened):
        return bits
    raise Refusal("a value would not survive the cast")


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
    singles = cast(array, np.dtype(np.float32), literal)
    with np.errstate(all="ignore"):
        small = singles.astype(dtype)
        widened = small.astype(np.float32)
    if _floats_survive(singles, widened):
        return small
    too_large = bool((~np.isfinite(widened) & np.isfinite(singles)).any())
    if literal is not None and not too_large and _ints_survive(literal, widened):
        return small
    raise Refusal("a value would not survive the cast")


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
