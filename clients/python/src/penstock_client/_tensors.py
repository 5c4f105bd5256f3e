"""Encodes and decodes the `raw` bytes of tensors; has the client's table of dtypes.

On every machine, `raw` is row-major and little-endian. In BYTES, each element follows its length in 4 bytes,
unsigned, little-endian.
"""

from __future__ import annotations

import struct
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from penstock_client._errors import PenstockError
from penstock_client._types import Array
from penstock_proto.v1 import tensor_pb2

BYTES: int = tensor_pb2.BYTES
BF16: int = tensor_pb2.BF16
BOOL: int = tensor_pb2.BOOL
FP32: int = tensor_pb2.FP32

DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.BOOL: np.dtype("?"),
    tensor_pb2.UINT8: np.dtype("u1"),
    tensor_pb2.UINT16: np.dtype("<u2"),
    tensor_pb2.UINT32: np.dtype("<u4"),
    tensor_pb2.UINT64: np.dtype("<u8"),
    tensor_pb2.INT8: np.dtype("i1"),
    tensor_pb2.INT16: np.dtype("<i2"),
    tensor_pb2.INT32: np.dtype("<i4"),
    tensor_pb2.INT64: np.dtype("<i8"),
    tensor_pb2.FP16: np.dtype("<f2"),
    tensor_pb2.FP32: np.dtype("<f4"),
    tensor_pb2.FP64: np.dtype("<f8"),
}
"""The numpy dtype of every datatype that numpy has; the others are handled separately."""

SMALL: dict[int, tuple[str, np.dtype[Any]]] = {
    tensor_pb2.BF16: ("bfloat16", np.dtype("<u2")),
    tensor_pb2.FP8E4M3FN: ("float8_e4m3fn", np.dtype("u1")),
    tensor_pb2.FP8E4M3FNUZ: ("float8_e4m3fnuz", np.dtype("u1")),
    tensor_pb2.FP8E5M2: ("float8_e5m2", np.dtype("u1")),
    tensor_pb2.FP8E5M2FNUZ: ("float8_e5m2fnuz", np.dtype("u1")),
}
"""The names in `ml_dtypes` of the floating-point datatypes that numpy lacks, and the dtype of their bits."""

_LENGTH = struct.Struct("<I")
_SHORT = tuple(map(_LENGTH.pack, range(256)))


@cache
def small_dtype(number: int) -> np.dtype[Any] | None:
    """The dtype that `ml_dtypes` adds to numpy for a datatype; None for others, or without that package."""
    if number not in SMALL:
        return None
    try:
        found: np.dtype[Any] = np.dtype(getattr(import_module("ml_dtypes"), SMALL[number][0]))
    except ImportError:
        return None
    return found


def bf16_bits(values: Array) -> Array:
    """The upper halves (uint16) of float32 values, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(values.shape)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    quiet = (bits >> 16) | 0x40  # adding could carry a NaN into infinity or zero
    return np.where(np.isnan(values), quiet, rounded).astype("<u2")


def widen_bf16(bits: Array) -> Array:
    """The float32 values whose upper halves are `bits` (uint16)."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)


def join_elements(elements: list[bytes]) -> bytes:
    """BYTES elements as `raw`."""
    lengths = list(map(len, elements))
    are_short = max(lengths, default=0) < len(_SHORT)
    parts = [b""] * (2 * len(elements))
    parts[::2] = map(_SHORT.__getitem__ if are_short else _LENGTH.pack, lengths)
    parts[1::2] = elements
    return b"".join(parts)


def decode(name: str, tensor: tensor_pb2.Tensor) -> Array:
    """The array of an answer's tensor; a read-only view of its bytes for all but BYTES.

    Args:
        name: the output's name, for the error.
        tensor: the tensor, written as `raw`.

    Raises:
        PenstockError: UNKNOWN, when datatype, shape and bytes do not agree.
    """
    shape = tuple(tensor.shape)
    try:
        array = _flat(tensor).reshape(shape)
    except (ValueError, struct.error) as error:
        raise _wrong(name, tensor, str(error)) from None
    if array.shape != shape:  # reshape takes a negative length for "whatever fits"
        raise _wrong(name, tensor, "a negative length")
    return array


def _flat(tensor: tensor_pb2.Tensor) -> Array:
    dtype = DTYPES.get(tensor.datatype)
    if dtype is not None:
        return np.frombuffer(tensor.raw, dtype)
    if tensor.datatype == BYTES:
        return _text(_split_elements(tensor.raw))
    if tensor.datatype in SMALL:
        bits = np.frombuffer(tensor.raw, SMALL[tensor.datatype][1])
        known = small_dtype(tensor.datatype)
        if known is not None:
            return bits.view(known)
        return widen_bf16(bits) if tensor.datatype == BF16 else bits
    raise ValueError("an unknown datatype")


def _split_elements(raw: bytes) -> list[bytes]:
    elements, at = [], 0
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size + length
        elements.append(raw[at - length : at])
    if at != len(raw):
        raise ValueError("the last element is cut off")
    return elements


def _text(elements: list[bytes]) -> Array:
    array: Array = np.empty(len(elements), object)
    try:
        array[:] = [each.decode() for each in elements]
    except UnicodeDecodeError:
        array[:] = elements
    return array


def _wrong(name: str, tensor: tensor_pb2.Tensor, reason: str) -> PenstockError:
    return PenstockError(
        f'the server\'s output "{name}" cannot be read: {reason} (datatype {tensor.datatype}, '
        f"shape {list(tensor.shape)}, {len(tensor.raw)} bytes)"
    )
