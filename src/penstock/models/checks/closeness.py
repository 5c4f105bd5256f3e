"""How far answers of rows that ran together are from those of the same rows alone."""

from __future__ import annotations

import numpy as np

from penstock.core.minifloats import BY_BITS, FORMATS, widened
from penstock.core.tensors import Array, DataType, Kind

TOLERANCES = {DataType.FP64: 1e-10, DataType.FP32: 1e-4, DataType.FP16: 1e-2, DataType.BF16: 5e-2} | {
    datatype: 2.0**-form.mantissa for datatype, form in FORMATS.items()
}
"""The largest accepted difference between rows run together and alone, relative to the largest values. Sums
in another order differ in the last bits; rows that affect each other differ in the first bits."""

LEAST_SCALE = 0.01
"""A difference is relative to the largest value at the same position in all rows, so that large values at one
position hide nothing at another; but at least to this share of the largest value of all, since rounding
errors of large intermediate values affect small results."""


def accepted(datatype: DataType, tolerance: float) -> float:
    """The largest accepted difference.

    Args:
        datatype: of the output.
        tolerance: what the settings say; 0 for the usual tolerance. For FP32 it takes the place of the usual
            one. Of other datatypes at least the usual one is accepted.
    """
    usual = TOLERANCES.get(datatype, 0.0)
    return (tolerance or usual) if datatype is DataType.FP32 else max(tolerance, usual)


def distance(datatype: DataType, whole: Array, single: Array, row: int) -> float:
    """The largest difference relative to the scale of its place; infinite between unequal non-numbers."""
    if np.array_equal(whole[row], single):
        return 0.0
    if datatype.kind not in (Kind.FLOAT, Kind.DOUBLE):
        return float("inf")
    first, second = (as_float64(datatype, each) for each in (whole[row], single))
    return relative(first, second, _scales(datatype, whole))


def relative(first: Array, second: Array, scales: Array) -> float:
    """The largest difference relative to the scale of its place; infinite between unequal non-numbers.

    Args:
        first: FP64.
        second: FP64, of the same shape.
        scales: how large the values of each place are; of the same shape, or one that broadcasts to it.
    """
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return float("inf")
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = np.abs(np.where(finite, first, 0.0) - np.where(finite, second, 0.0))
    return float((difference / scales).max())


def _scales(datatype: DataType, whole: Array) -> Array:
    """How large the values of an output are, for each place of a row."""
    values = as_float64(datatype, whole)
    sizes = np.abs(np.where(np.isfinite(values), values, 0.0))
    least = max(LEAST_SCALE * float(sizes.max()), float(np.finfo(np.float32).tiny))
    scales: Array = np.atleast_1d(np.maximum(sizes.max(axis=0), least))
    return scales


def as_float64(datatype: DataType, array: Array) -> Array:
    """The values of an array as FP64, with at least one axis."""
    if datatype in BY_BITS:
        array = widened(datatype, array)
    return np.atleast_1d(array.astype(np.float64))
