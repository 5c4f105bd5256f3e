"""Encodes the inputs of a request: values from the caller become the raw bytes of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock_client._cast import Refusal, cast, rounded, shown, to_bf16, to_small
from penstock_client._errors import InvalidInput
from penstock_client._missing import column_of, is_missing
from penstock_client._quick import packed_list, scalars
from penstock_client._tensors import BF16, BOOL, BYTES, DTYPES, FP32, join_elements, small_dtype
from penstock_client._types import Array, TensorInfo
from penstock_client._wire import input_opened
from penstock_proto.v1 import tensor_pb2

_SHOWN = 60
_REMEMBERED = 64  # shapes
_BF16_NAN = 0x7FC0


class InputSpec:
    """One input of a model, ready for encoding.

    Attributes:
        number: the protocol's number of the datatype.
        dtype: arrays of this dtype are sent unchanged; None if all values must be converted.
        rank: the number of axes; None if it is open.
        one: the shape of a single value; None if the input does not take one.
    """

    __slots__ = ("_heads", "_lists", "_one_head", "_quick", "dtype", "info", "number", "one", "rank")

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self.number: int = tensor_pb2.DataType.Value(info.datatype)
        self.dtype = DTYPES.get(self.number) or small_dtype(self.number)
        self.rank = None if info.shape is None else len(info.shape)
        self._heads: dict[tuple[int, ...], bytes] = {}
        self.one = None
        if info.shape is not None and _matches((1,) * len(info.shape), info.shape):
            self.one = (1,) * len(info.shape)
        self._quick = {} if self.one is None else scalars(self.number)
        self._one_head = b""
        if self.one is not None and self.dtype is not None:
            self._one_head = input_opened(info.name, self.number, self.one, self.dtype.itemsize)
        self._lists: dict[int, bytes] = {}

    def write(self, value: object) -> tuple[bytes, bytes]:
        """An encoded input: the part before its `raw` bytes, and these bytes.

        Args:
            value: as for `encode`.

        Raises:
            InvalidInput: the value does not fit.
        """
        if type(value) is np.ndarray:
            head = self._heads.get(value.shape)
            if head is not None and value.dtype == self.dtype:
                return head, value.tobytes()
        else:
            quick = self._write_quickly(value)
            if quick is not None:
                return quick
        shape, raw = self.encode(value)
        head = input_opened(self.info.name, self.number, shape, len(raw))
        # For fixed-size datatypes the shape determines the number of bytes.
        if self.dtype is not None and len(shape) == self.rank and len(self._heads) < _REMEMBERED:
            self._heads[shape] = head
        return head, raw

    def _write_quickly(self, value: object) -> tuple[bytes, bytes] | None:
        """A scalar or a list of Python's floats, encoded without numpy; None for what needs a closer look."""
        encode = self._quick.get(type(value))
        if encode is None or self.one is None:
            is_list = type(value) is list and value and type(value[0]) is float
            return self._write_list(value) if is_list else None  # type: ignore[arg-type]  # checked
        raw = encode(value)
        if raw is not None and self.number == BYTES:
            return input_opened(self.info.name, BYTES, self.one, len(raw)), raw
        return None if raw is None else (self._one_head, raw)

    def _write_list(self, values: list[object]) -> tuple[bytes, bytes] | None:
        raw, head = packed_list(values, self.number), self._lists.get(len(values))
        if raw is not None and head is None:
            try:
                shape = fit(np.empty(len(values)), self.info.shape, strict=False).shape
            except Refusal:
                return None
            head = input_opened(self.info.name, self.number, shape, len(raw))
            if len(self._lists) < _REMEMBERED:
                self._lists[len(values)] = head
        return None if raw is None or head is None else (head, raw)

    def encode(self, value: object) -> tuple[tuple[int, ...], bytes]:
        """The shape and the `raw` bytes of a value.

        Args:
            value: an array of the input's rank; or a number, a bool, a `str`, `bytes` or (nested) lists
                of these, which may leave out axes of length 1 and the batch axis.

        Raises:
            InvalidInput: the value does not fit; the text names the input, the value and what was expected.
        """
        if (
            type(value) is np.ndarray
            and self.dtype is not None
            and value.dtype == self.dtype
            and value.ndim == self.rank
        ):
            return value.shape, value.tobytes()
        try:
            return self._encode_bytes(value) if self.number == BYTES else self._encode_numbers(value)
        except Refusal as refusal:
            name, got = self.info.name, describe(value)
            raise InvalidInput(f'input "{name}": {refusal}; got {got}, expected {self.info}') from None

    def _encode_numbers(self, value: object) -> tuple[tuple[int, ...], bytes]:
        column = column_of(value, self.info.datatype)
        if column.missing is None:
            array = self._cast(column.array, column.literal)
        else:
            try:
                array = self._cast(column.array, column.literal)
            except Refusal as refusal:
                raise refusal.among(~column.missing) from None
            array = self._with_missing(array, column.missing)
        is_array = column.literal is None and hasattr(value, "__array__")
        array = fit(array, self.info.shape, strict=is_array)
        return array.shape, array.tobytes()

    def _cast(self, array: Array, literal: object) -> Array:
        if self.number not in DTYPES:
            if self.number == BF16:
                return to_bf16(array, literal)
            return to_small(array, self.info.datatype, small_dtype(self.number), literal)
        dtype = DTYPES[self.number]
        if array.dtype.kind == "f":
            if literal is None and array.dtype.itemsize == 8 and self.number == FP32:
                return rounded(array, dtype)
            if dtype.kind in "iub" and (lost := np.isnan(array)).any():
                raise self._is_missing(lost)
        return cast(array, dtype, literal)

    def _with_missing(self, present: Array, missing: Array) -> Array:
        """The values with NaN where one is missing.

        Raises:
            Refusal: the datatype has no NaN.
        """
        if self.number in DTYPES and DTYPES[self.number].kind != "f":
            raise self._is_missing(missing)
        if self.number == BF16 and present.dtype.kind == "u":
            array: Array = np.full(missing.shape, _BF16_NAN, present.dtype)
        else:
            array = np.full(missing.shape, np.nan, present.dtype)
        array[~missing] = present
        return array

    def _is_missing(self, missing: Array, came: str = "") -> Refusal:
        """The refusal of an input of which some values are missing: which is the first, and what helps."""
        places = np.flatnonzero(missing.ravel())
        others = f", and {len(places) - 1} more" if len(places) > 1 else ""
        fill = '""' if self.number == BYTES else "False" if self.number == BOOL else "0"
        return Refusal(
            f"the value at position {places[0]} is missing{came}{others}, and {self.info.datatype} has no "
            f"missing values: fill them in first, for example with {fill}"
        )

    def _encode_bytes(self, value: object) -> tuple[tuple[int, ...], bytes]:
        is_array = hasattr(value, "__array__")
        array = np.asarray(value) if is_array else _objects(value)
        if array.dtype.kind not in "OUS" and not _all_missing(array):
            raise Refusal("it is neither text nor bytes")
        array = fit(array, self.info.shape, strict=is_array)
        elements = array.ravel().tolist()
        try:
            return array.shape, join_elements(_all_as_bytes(elements))
        except Refusal:
            missing = np.fromiter(map(is_missing, elements), bool, len(elements))
            if not missing.any():
                raise
            text = self.info.missing_text
            if text is None:
                raise self._is_missing(missing, f" ({describe(elements[int(missing.argmax())])})") from None
        filled = [text if gone else each for each, gone in zip(elements, missing.tolist(), strict=True)]
        return array.shape, join_elements([_as_bytes(each) for each in filled])


def fit(array: Array, shape: Sequence[int | str] | None, *, strict: bool) -> Array:
    """The array with the axes that `shape` has.

    A scalar gets axes of length 1. A list that lacks one axis is one row if that fits, or else one value per
    row if the last axis has length 1. An array that lacks one is one value per row.

    Args:
        array: the values.
        shape: the expected axes: lengths, or names of open lengths; None for any axes.
        strict: reject a missing first axis, as for arrays; scalars are accepted.

    Raises:
        Refusal: the axes do not fit.
    """
    if shape is None or array.ndim == len(shape):
        return array
    rank = len(shape)
    if array.ndim == 0 and _matches((1,) * rank, shape):
        return array.reshape((1,) * rank)
    if array.ndim == rank - 1 > 0:
        if not strict and _matches((1, *array.shape), shape):
            return array[np.newaxis]
        if _matches((*array.shape, 1), shape) and shape[-1] == 1:
            return array[..., np.newaxis]
    raise Refusal(f"it has {array.ndim} {'axis' if array.ndim == 1 else 'axes'}, expected {rank}")


def _all_missing(array: Array) -> bool:
    """Whether a column of numbers or times has none, as tables have it where all texts are missing."""
    if array.dtype.kind not in "fmM" or not array.size:
        return False
    return bool((np.isnan(array) if array.dtype.kind == "f" else np.isnat(array)).all())


def describe(value: object) -> str:
    """A value in a few words, for an error message."""
    if isinstance(value, np.ndarray):
        return f"{_article(str(value.dtype))} array of shape {value.shape}"
    shape: object = getattr(value, "shape", ())
    if hasattr(value, "dtype") and shape != ():
        return f"{_article(type(value).__name__)} of {value.dtype} and shape {shape}"
    kind = type(value).__name__
    if hasattr(value, "to_pylist") and hasattr(value, "slice"):  # pyarrow, whose text is an address
        kind, value = f"{kind} of {getattr(value, 'type', 'values')}", value.slice(0, _SHOWN).to_pylist()
    return f"{kind} {shown(value)}"


def _article(noun: str) -> str:
    """The noun with its article: an int64, a uint8."""
    return f"{'an' if noun[0].lower() in 'aeio' else 'a'} {noun}"


def _matches(lengths: Sequence[int], shape: Sequence[int | str]) -> bool:
    return all(isinstance(want, str) or want == have for have, want in zip(lengths, shape, strict=True))


def _objects(value: object) -> Array:
    # With dtype object numpy keeps `str` and `bytes` unchanged; otherwise it would convert 1 to "1".
    try:
        return np.array(value, dtype=object)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None


def _all_as_bytes(elements: list[Any]) -> list[bytes]:
    try:
        return list(map(str.encode, elements))
    except (TypeError, UnicodeEncodeError):  # bytes among them, or what is refused
        return [_as_bytes(each) for each in elements]


def _as_bytes(element: Any) -> bytes:
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise Refusal("a text cannot be written as UTF-8") from None
    if isinstance(element, bytes):
        return element
    raise Refusal(f"{describe(element)} is neither text nor bytes")
