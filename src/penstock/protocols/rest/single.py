"""Reads one value of a record quickly: most records have numbers and texts that fit, one for each input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from penstock.core.tensors import Array, DataType, Kind, TensorSpec

Reader: TypeAlias = Callable[[Any], "Array | None"]
"""Gives the tensor of one row for a value; None if the value must be looked at more closely."""

FLOATS = (DataType.FP32, DataType.FP64)


def reader(spec: TensorSpec) -> Reader | None:
    """The reader of an input that has one value in each row; None for other inputs.

    Args:
        spec: an input with rows.
    """
    shape = spec.shape or ()
    if spec.row_axis or any(length != 1 for length in shape[1:]):
        return None
    axes = len(shape)
    if spec.datatype in FLOATS:
        return _float(spec, axes)
    if spec.datatype.kind in (Kind.INT, Kind.UINT):
        return _integer(spec, axes)
    return _text(axes) if spec.datatype is DataType.BYTES else None


def _float(spec: TensorSpec, axes: int) -> Reader:
    dtype, largest = spec.datatype.dtype, float(np.finfo(spec.datatype.dtype).max)

    def read(value: Any) -> Array | None:
        if type(value) not in (float, int) or not -largest <= value <= largest:
            return None
        return np.array(value, dtype, ndmin=axes)

    return read


def _integer(spec: TensorSpec, axes: int) -> Reader:
    dtype, bounds = spec.datatype.dtype, np.iinfo(spec.datatype.dtype)
    low, high = int(bounds.min), int(bounds.max)

    def read(value: Any) -> Array | None:
        if type(value) is not int or not low <= value <= high:
            return None
        return np.array(value, dtype, ndmin=axes)

    return read


def _text(axes: int) -> Reader:
    ones = (1,) * axes

    def read(value: Any) -> Array | None:
        if type(value) is not str:
            return None
        array = np.empty(ones, object)
        array.fill(value)
        return array

    return read
