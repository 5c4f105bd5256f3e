"""Typed lists, the encoding that people write by hand, to and from arrays.

Numbers convert to the model's datatype where every value fits: integers must be in range, a fraction is
never cut off, a floating-point number may be rounded but not become infinite, and an integer must survive
the way into floating point unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.bits import BY_BITS, narrowed, widened
from penstock.errors import InvalidRequest
from penstock.tensors import Array, DataType, Kind, TensorSpec
from penstock_proto.v1.tensor_pb2 import Tensor

LISTS: dict[str, np.dtype[Any]] = {
    "bool_values": np.dtype("?"),
    "int_values": np.dtype("<i8"),
    "uint_values": np.dtype("<u8"),
    "float_values": np.dtype("<f4"),
    "double_values": np.dtype("<f8"),
    "string_values": np.dtype("O"),
    "bytes_values": np.dtype("O"),
}
"""The typed lists of a Tensor message, and what their values are."""

LIST_OF_KIND = {
    Kind.BOOL: "bool_values",
    Kind.INT: "int_values",
    Kind.UINT: "uint_values",
    Kind.FLOAT: "float_values",
    Kind.DOUBLE: "double_values",
}


def read(spec: TensorSpec, field: str, values: Sequence[Any]) -> Array:
    """The values of a typed list as a flat array of the input's datatype.

    Args:
        spec: the input's.
        field: the list's name.
        values: its values.

    Raises:
        InvalidRequest: a value does not fit; names it.
    """
    if spec.datatype is DataType.BYTES:
        return _read_text(spec, field, values)
    dtype = LISTS[field]
    if dtype.kind == "O" or (dtype.kind == "b") != (spec.datatype is DataType.BOOL):
        raise InvalidRequest(f"input {spec.name}: {field} cannot be given for {spec.datatype}")
    return of_list(spec, values, dtype)


def of_list(spec: TensorSpec, values: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """Values that came as a list as a flat array of the input's datatype.

    Args:
        spec: the input's.
        values: the values; of a BYTES input, `bytes`.
        dtype: what they came as.

    Raises:
        InvalidRequest: a value does not fit; names it.
    """
    if spec.datatype is DataType.BYTES:
        return text_array([decoded(spec, index, value) for index, value in enumerate(values)])
    natural = np.array(values, dtype=dtype)
    if spec.datatype.kind in (Kind.INT, Kind.UINT):
        return _to_integer(spec, natural)
    if spec.datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
        return _to_floating(spec, natural)
    return natural


def write(tensor: Tensor, datatype: DataType, array: Array) -> None:
    """Puts the elements of `array` into the typed list that suits its datatype."""
    flat = array.ravel()
    if datatype is DataType.BYTES:
        tensor.string_values.extend(flat.tolist())
    elif datatype in BY_BITS:
        tensor.float_values.extend(widened(datatype, flat).tolist())
    else:
        getattr(tensor, LIST_OF_KIND[datatype.kind]).extend(flat.tolist())


def _read_text(spec: TensorSpec, field: str, values: Sequence[Any]) -> Array:
    if field == "string_values":
        return text_array(list(values))
    if field != "bytes_values":
        raise InvalidRequest(f"input {spec.name}: {field} cannot be given for BYTES; use string_values")
    return of_list(spec, values, LISTS[field])


def decoded(spec: TensorSpec, index: int, value: bytes) -> str:
    """One element of a BYTES input as text, the only form in which ONNX has strings.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"input {spec.name}: element {index} is not UTF-8 ({error.reason} at byte {error.start}), "
            "and ONNX strings are text"
        ) from None


def text_array(texts: list[str]) -> Array:
    """A flat object array of `str`."""
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _to_integer(spec: TensorSpec, values: Array) -> Array:
    bounds = np.iinfo(spec.datatype.dtype)
    low, high = int(bounds.min), int(bounds.max)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            # float(high) may round up to high + 1, which does not fit: hence the strict comparison.
            fits = (values >= low) & (values < float(high) + (0 if float(high) > high else 1))
            _refuse_unless(fits & (values == np.trunc(values)), spec, values)
    elif values.size and not (low <= int(values.min()) and int(values.max()) <= high):
        _refuse_unless(np.array([low <= int(value) <= high for value in values]), spec, values)
    return values.astype(spec.datatype.dtype)


def _to_floating(spec: TensorSpec, values: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused below, NaNs are welcome
        if spec.datatype in BY_BITS:
            converted = narrowed(spec.datatype, values)
            back = widened(spec.datatype, converted)
        else:
            converted = back = values.astype(spec.datatype.dtype)
    if values.dtype.kind == "f":
        _refuse_unless(np.isfinite(back) | np.isnan(values) | (back == values), spec, values)
    else:
        unchanged = [np.isfinite(b) and int(b) == int(v) for b, v in zip(back, values, strict=True)]
        _refuse_unless(np.array(unchanged, dtype=bool), spec, values)
    return converted


def _refuse_unless(fits: Array, spec: TensorSpec, values: Array) -> None:
    if not fits.all():
        index = int(np.argmin(fits))
        raise InvalidRequest(
            f"input {spec.name}: the value {values[index]} at position {index} does not fit {spec.datatype}"
        )
