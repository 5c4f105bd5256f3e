"""Values of a row, as `Field` reads them, as arrays of a model's datatypes."""

from __future__ import annotations

import numpy as np

from penstock.core.minifloats import BY_BITS, narrowed
from penstock.core.tensors import Array, DataType, Kind, TensorSpec
from penstock.row_files.fields import Invalid

NUMBERS = {
    Kind.BOOL: "b",
    Kind.INT: "iub",
    Kind.UINT: "iub",
    Kind.FLOAT: "iufb",
    Kind.DOUBLE: "iufb",
}
"""What numpy makes of values that a datatype can hold; booleans are 1 and 0 where a number is expected."""


def tensor(spec: TensorSpec, value: object, place: str, what: str = "input") -> Array:
    """The value of one input or output as an array of its datatype.

    Args:
        spec: the input or output.
        value: one row, with all axes of the tensor.
        place: where it comes from, for messages.
        what: "input" or "output".

    Raises:
        Invalid: it does not fit.
    """
    array = _as_array(spec.datatype, value)
    if array is None:
        advice = _advice(spec.datatype, value)
        raise Invalid(f"{place}{what} {spec}: it is not of this datatype{advice}")
    declared = array.shape if spec.shape is None else spec.shape
    fits = len(declared) == array.ndim and all(
        isinstance(length, str) or length == size for length, size in zip(declared, array.shape, strict=True)
    )
    if not fits:
        raise Invalid(f"{place}{what} {spec}: it has the shape {list(array.shape)}")
    return array


def _advice(datatype: DataType, value: object) -> str:
    """What may be wrong as well, or what to do about a missing text."""
    if datatype is DataType.BYTES:
        return '; null is no text: "" stands for an empty or missing one' if _has_null(value) else ""
    return ", or too large"


def _has_null(value: object) -> bool:
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


def _as_array(datatype: DataType, value: object) -> Array | None:
    """The array; None if the datatype cannot hold the value."""
    try:
        if datatype is DataType.BYTES:
            texts = np.array(value, dtype=object)
            return texts if all(isinstance(text, str) for text in texts.flat) else None
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if array.size and not _holds(datatype, array):
        return None
    if datatype in BY_BITS:
        return narrowed(datatype, array.astype(np.float64))
    with np.errstate(over="ignore"):
        cast = array.astype(datatype.dtype)
    if datatype.dtype.kind == "f" and bool((np.isinf(cast) & np.isfinite(array)).any()):
        return None  # as the client refuses it: the model would be given infinity
    return cast


def _holds(datatype: DataType, array: Array) -> bool:
    """Whether a datatype can hold the numbers of an array."""
    if array.dtype.kind not in NUMBERS[datatype.kind]:
        return False
    if array.dtype.kind not in "iu" or datatype.dtype.kind not in "iu" or datatype in BY_BITS:
        return True
    bounds = np.iinfo(datatype.dtype)
    return bool(bounds.min <= int(array.min()) and int(array.max()) <= bounds.max)
