"""How far two rows are from each other, measured as the server's documentation says it is."""

from __future__ import annotations

import math

import numpy as np

from penstock.core.tensors import DataType
from penstock.models.checks.closeness import TOLERANCES
from tests.support.dtypes import SMALL


def apart(datatype: DataType, whole: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two rows, relative to the largest value of the output.

    Args:
        datatype: of all three.
        whole: the output that `one` is a row of.
        one: a row, as a batch of one.
        other: what it should be.

    Returns:
        0.0 only where every bit is the same; infinity where the shapes are not, or what is no number is not.
    """
    if one.shape != other.shape:
        return math.inf
    if one.dtype == object:
        return 0.0 if one.tolist() == other.tolist() else math.inf
    if one.tobytes() == other.tobytes():
        return 0.0
    if datatype not in TOLERANCES:
        return math.inf
    return _between(*(_numbers(datatype, each) for each in (one, other, whole)))


def is_within(datatype: DataType, difference: float) -> bool:
    """Whether the server would take two rows so far apart for the same."""
    return difference <= TOLERANCES.get(datatype, 0.0)


def _between(first: np.ndarray, second: np.ndarray, values: np.ndarray) -> float:
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return math.inf
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return math.inf
    largest = np.abs(values[np.isfinite(values)]).max(initial=np.finfo(np.float32).tiny)
    difference = np.abs(first[finite] - second[finite]).max(initial=0.0)
    # Zeros of another sign, and NaNs with another payload, still have different bits.
    return max(float(difference / largest), float(np.finfo(np.float64).tiny))


def _numbers(datatype: DataType, array: np.ndarray) -> np.ndarray:
    known = array.view(SMALL[datatype]) if datatype in SMALL else array
    return known.astype(np.float64)
