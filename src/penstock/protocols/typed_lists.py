"""Converts typed lists, the encoding that people write by hand, to and from arrays.

Numbers are converted to the model's datatype if every value fits: integers must be in range, fractions are
never cut off, a floating-point number may be rounded but must stay finite, and an integer must be exact in
floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.core import varints, wire
from penstock.core.errors import InvalidRequest
from penstock.core.minifloats import BY_BITS, narrowed, widened
from penstock.core.tensors import Array, DataType, Kind, TensorSpec
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
"""The typed lists of a Tensor message, and the dtypes of their values."""

FEW = 256
"""Up to this number of values, a list of Python's objects is quicker to convert than protobuf's own list."""
FEW_READ = 64
"""The same where protobuf gives its list as one block."""
FEW_WRITTEN = 1024
"""Up to this number of values, protobuf's own list is quicker to fill than one is written in bulk."""
SLICE = 4096
"""Values converted at once where one step would hold up other threads."""

LIST_OF_KIND = {
    Kind.BOOL: "bool_values",
    Kind.INT: "int_values",
    Kind.UINT: "uint_values",
    Kind.FLOAT: "float_values",
    Kind.DOUBLE: "double_values",
}

SAME_AS_RAW = frozenset({DataType.FP32, DataType.FP64, DataType.BOOL})
"""The datatypes whose packed list holds the same bytes as their raw values."""


def read(spec: TensorSpec, field: str, values: Sequence[Any]) -> Array:
    """The values of a typed list as a flat array of the input's datatype.

    Args:
        spec: the input's spec.
        field: the list's name.
        values: its values.

    Raises:
        InvalidRequest: a value does not fit; the text names it.
    """
    if spec.datatype is DataType.BYTES:
        return _read_text(spec, field, values)
    dtype = LISTS[field]
    if dtype.kind == "O" or (dtype.kind == "b") != (spec.datatype is DataType.BOOL):
        raise InvalidRequest(f"input {spec.name}: {field} cannot be given for {spec.datatype}")
    return of_list(spec, values, dtype)


def of_list(spec: TensorSpec, values: Sequence[Any], dtype: np.dtype[Any], first: int = 0) -> Array:
    """The values of a list as a flat array of the input's datatype.

    Args:
        spec: the input's spec.
        values: the values; `bytes` for a BYTES input.
        dtype: the dtype of the list.
        first: the position of the first value, if these are a part of a list.

    Raises:
        InvalidRequest: a value does not fit; the text names it.
    """
    if spec.datatype is DataType.BYTES:
        return text_array([decoded(spec, index, value) for index, value in enumerate(values)])
    natural = _numbers(values, dtype)
    if spec.datatype.kind in (Kind.INT, Kind.UINT):
        return _to_integer(spec, natural, first)
    if spec.datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
        return _to_floating(spec, natural, first)
    return natural


def write(tensor: Tensor, datatype: DataType, array: Array) -> None:
    """Puts the elements of `array` into the typed list that suits its datatype."""
    flat = array.ravel()
    if datatype is DataType.BYTES:
        tensor.string_values.extend(flat.tolist())
        return
    numbers = widened(datatype, flat) if datatype in BY_BITS else flat
    getattr(tensor, LIST_OF_KIND[datatype.kind]).extend(numbers.tolist())


def packed(datatype: DataType, array: Array) -> list[bytes]:
    """The elements of an array of numbers as they are in their packed list, in parts to be joined."""
    flat = array.ravel()
    numbers = widened(datatype, flat) if datatype in BY_BITS else flat
    dtype = LISTS[LIST_OF_KIND[datatype.kind]]
    return varints.written(numbers) if dtype.kind in "iu" else [numbers.astype(dtype, copy=False).tobytes()]


def of_one_width(datatype: DataType, array: Array) -> bytes | None:
    """The elements of an array as they are in their packed list, if each of them takes as many bytes there.

    Integers do if all of them are from 0 to 127, as the numbers of classes are. None for texts and for
    larger integers.
    """
    if datatype is DataType.BYTES:
        return None
    name = LIST_OF_KIND[datatype.kind]
    numbers = widened(datatype, array.ravel()) if datatype in BY_BITS else array
    if LISTS[name].kind not in "iu":
        return numbers.astype(LISTS[name], copy=False).tobytes()
    if numbers.size > FEW and not 0 <= numbers.min() <= numbers.max() <= wire.LAST_BYTE:
        return None
    try:
        data = bytes(numbers.ravel().tolist()) if numbers.size <= FEW else numbers.astype(np.uint8).tobytes()
    except ValueError:  # below 0, or above 255
        return None
    return data if data.isascii() else None


def list_key(datatype: DataType) -> bytes:
    """The key of the packed list that suits a datatype of numbers."""
    field = Tensor.DESCRIPTOR.fields_by_name[LIST_OF_KIND[datatype.kind]]
    return wire.key(field.number, wire.LENGTH_DELIMITED)


def _numbers(values: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """The values as an array, without an object for each where protobuf gives them as one block."""
    if isinstance(values, np.ndarray):
        return values  # a long list, perhaps of a narrower dtype
    count = len(values)
    if count > FEW_READ and hasattr(values, "__array__"):  # protobuf from release 7 on
        return np.array(values, dtype=dtype)
    if count <= FEW:
        return np.array(values[:], dtype=dtype)
    array = np.empty(count, dtype=dtype)
    for start in range(0, count, SLICE):
        array[start : start + SLICE] = values[start : start + SLICE]
    return array


def _read_text(spec: TensorSpec, field: str, values: Sequence[Any]) -> Array:
    if field == "string_values":
        return text_array(values)
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


def text_array(texts: Sequence[str]) -> Array:
    """A flat object array of `str`."""
    array = np.empty(len(texts), dtype=object)
    for start in range(0, len(texts), SLICE):
        array[start : start + SLICE] = texts[start : start + SLICE]
    return array


def _to_integer(spec: TensorSpec, values: Array, start: int) -> Array:
    bounds = np.iinfo(spec.datatype.dtype)
    low, high = int(bounds.min), int(bounds.max)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            # float(high) may round up to high + 1, which does not fit: hence the strict comparison.
            fits = (values >= low) & (values < float(high) + (0 if float(high) > high else 1))
            _refuse_unless(fits & (values == np.trunc(values)), spec, values, start)
    elif values.size and not (low <= int(values.min()) and int(values.max()) <= high):
        sent = np.iinfo(values.dtype)
        low, high = max(low, int(sent.min)), min(high, int(sent.max))
        _refuse_unless((values >= low) & (values <= high), spec, values, start)
    return values.astype(spec.datatype.dtype, copy=False)


def _to_floating(spec: TensorSpec, values: Array, start: int) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are rejected below, NaNs are valid
        if spec.datatype in BY_BITS:
            converted = narrowed(spec.datatype, values)
            back = widened(spec.datatype, converted)
        else:
            converted = back = values.astype(spec.datatype.dtype)
    if values.dtype.kind == "f":
        _refuse_unless(np.isfinite(back) | np.isnan(values) | (back == values), spec, values, start)
    elif not _are_small(values, back.dtype, spec):
        _refuse_unless(_are_equal(back, values), spec, values, start)
    return converted


def _are_small(integers: Array, dtype: np.dtype[Any], spec: TensorSpec) -> bool:
    """Whether all integers are so small that the floating-point type has each of them."""
    if spec.datatype in BY_BITS or not integers.size:
        return not integers.size
    exact: int = 2 ** (int(np.finfo(dtype).nmant) + 1)
    return bool(-exact <= int(integers.min()) and int(integers.max()) <= exact)


def _are_equal(floats: Array, integers: Array) -> Array:
    """For each pair whether the two are the same number; bool [count].

    Args:
        floats: floating-point numbers, of up to 64 bits.
        integers: int64 or uint64.
    """
    bounds = np.iinfo(integers.dtype)
    wide = floats.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # float(bounds.max) is max + 1, which does not fit: hence the strict comparison.
        inside = (wide >= float(bounds.min)) & (wide < float(bounds.max))
    same: Array = np.where(inside, wide, 0.0).astype(integers.dtype) == integers
    return same & inside


def _refuse_unless(fits: Array, spec: TensorSpec, values: Array, start: int) -> None:
    if not fits.all():
        index = int(np.argmin(fits))
        raise InvalidRequest(
            f"input {spec.name}: the value {values[index]} at position {start + index} "
            f"does not fit {spec.datatype}"
        )
