"""Encodes the inputs of a request: values from the caller become the raw bytes of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock_client._cast import Refusal, cast, to_bf16, to_small
from penstock_client._errors import InvalidInput
from penstock_client._tensors import BF16, BYTES, DTYPES, join_elements, small_dtype
from penstock_client._types import Array, TensorInfo
from penstock_client._wire import input_opened
from penstock_proto.v1 import tensor_pb2

_SHOWN = 60
_REMEMBERED = 64  # shapes


class InputSpec:
    """One input of a model, ready for encoding.

    Attributes:
        number: the protocol's number of the datatype.
        dtype: arrays of this dtype are sent unchanged; None if all values must be converted.
        rank: the number of axes; None if it is open.
    """

    __slots__ = ("_heads", "dtype", "info", "number", "rank")

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self.number: int = tensor_pb2.DataType.Value(info.datatype)
        self.dtype = DTYPES.get(self.number) or small_dtype(self.number)
        self.rank = None if info.shape is None else len(info.shape)
        self._heads: dict[tuple[int, ...], bytes] = {}

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
        shape, raw = self.encode(value)
        head = input_opened(self.info.name, self.number, shape, len(raw))
        # For fixed-size datatypes the shape determines the number of bytes.
        if self.dtype is not None and len(shape) == self.rank and len(self._heads) < _REMEMBERED:
            self._heads[shape] = head
        return head, raw

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
        array, literal = _as_numbers(value)
        if self.number in DTYPES:
            array = cast(array, DTYPES[self.number], literal)
        elif self.number == BF16:
            array = to_bf16(array, literal)
        else:
            array = to_small(array, self.info.datatype, small_dtype(self.number), literal)
        array = fit(array, self.info.shape, strict=literal is None)
        return array.shape, array.tobytes()

    def _encode_bytes(self, value: object) -> tuple[tuple[int, ...], bytes]:
        is_array = hasattr(value, "__array__")
        array = np.asarray(value) if is_array else _objects(value)
        if array.dtype.kind not in "OUS":
            raise Refusal("it is neither text nor bytes")
        array = fit(array, self.info.shape, strict=is_array)
        return array.shape, join_elements([_as_bytes(each) for each in array.ravel().tolist()])


def fit(array: Array, shape: Sequence[int | str] | None, *, strict: bool) -> Array:
    """The array with the axes that `shape` has.

    A scalar gets axes of length 1. A list that lacks one axis is one row if that fits, or else one value per
    row if the last axis has length 1.

    Args:
        array: the values.
        shape: the expected axes: lengths, or names of open lengths; None for any axes.
        strict: reject a missing axis, as for arrays; scalars are accepted.

    Raises:
        Refusal: the axes do not fit.
    """
    if shape is None or array.ndim == len(shape):
        return array
    rank = len(shape)
    if array.ndim == 0 and _matches((1,) * rank, shape):
        return array.reshape((1,) * rank)
    if not strict and array.ndim == rank - 1 > 0:
        if _matches((1, *array.shape), shape):
            return array[np.newaxis]
        if _matches((*array.shape, 1), shape) and shape[-1] == 1:
            return array[..., np.newaxis]
    raise Refusal(f"it has {array.ndim} axes, expected {rank}")


def describe(value: object) -> str:
    """A value in a few words, for an error message."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"


def _matches(lengths: Sequence[int], shape: Sequence[int | str]) -> bool:
    return all(isinstance(want, str) or want == have for have, want in zip(lengths, shape, strict=True))


def _as_numbers(value: object) -> tuple[Array, object]:
    """The value as an array, and the literal that it was made from: None if the value has a dtype."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        value = value.tolist()  # Python numbers in an array are still literals
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None
    if array.dtype.kind == "O":
        raise Refusal("it is not numeric, or out of range")
    return array, None if _has_dtype(value) else value


def _has_dtype(value: object) -> bool:
    """Whether a value is an array or a numpy scalar, or a list that starts with one."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return hasattr(value, "__array__")


def _objects(value: object) -> Array:
    # With dtype object numpy keeps `str` and `bytes` unchanged; otherwise it would convert 1 to "1".
    try:
        return np.array(value, dtype=object)
    except ValueError:
        raise Refusal("its lists are not of equal lengths") from None


def _as_bytes(element: Any) -> bytes:
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise Refusal("a text cannot be written as UTF-8") from None
    if isinstance(element, bytes):
        return element
    raise Refusal(f"{describe(element)} is neither text nor bytes")
