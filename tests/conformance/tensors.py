"""Tensors as they travel, written and read here without the server's own code."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from penstock.core.tensors import DataType, Signature

LENGTH = struct.Struct("<I")


class Raw(NamedTuple):
    """A tensor as bytes: two of them are equal bit for bit, or they are not equal."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes


Tensors = Mapping[str, Raw]


def held(array: np.ndarray) -> np.ndarray:
    """An array as the server's core holds it: what numpy lacks as its bits, text as objects of `str`."""
    if array.dtype.name.startswith(("bfloat16", "float8")):
        return array.view(f"u{array.dtype.itemsize}")
    if array.dtype.kind in "OSU":
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()]
        return np.array(texts, object).reshape(array.shape)
    return array


def packed(array: np.ndarray, datatype: DataType) -> Raw:
    """An array that the core holds, as bytes.

    Raises:
        TypeError: it is of another datatype.
    """
    array = np.asarray(array)
    if array.dtype != datatype.dtype:
        raise TypeError(f"{array.dtype} came for {datatype}")
    if datatype is not DataType.BYTES:
        return Raw(datatype.label, array.shape, array.tobytes())
    elements = [text.encode() for text in array.ravel()]
    data = b"".join(LENGTH.pack(len(element)) + element for element in elements)
    return Raw(datatype.label, array.shape, data)


def packed_inputs(inputs: Mapping[str, np.ndarray], signature: Signature) -> dict[str, Raw]:
    return {name: packed(array, signature.inputs[name].datatype) for name, array in inputs.items()}


def unpacked(raw: Raw) -> np.ndarray:
    """The array, as the core holds it; not for text."""
    datatype = DataType[raw.datatype]
    return np.frombuffer(raw.data, datatype.dtype).reshape(raw.shape)


def difference(expected: Tensors, came: Tensors) -> str | None:
    """What is not the same, in words; None where every bit is."""
    if expected.keys() != came.keys():
        return f"outputs {sorted(came)} came, {sorted(expected)} were expected"
    for name, one in expected.items():
        other = came[name]
        if one == other:
            continue
        if one[:2] != other[:2]:
            return f"{name} is {other.datatype}{list(other.shape)}, not {one.datatype}{list(one.shape)}"
        return f"{name} differs {_by_how_much(one, other)}"
    return None


def _by_how_much(one: Raw, other: Raw) -> str:
    if one.datatype == DataType.BYTES.label or len(one.data) != len(other.data):
        return "in its bytes"
    first, second = (np.atleast_1d(unpacked(each)) for each in (one, other))
    at = np.flatnonzero(first.ravel().view("u1") != second.ravel().view("u1"))[0] // first.itemsize
    return f"at {at}: {second.ravel()[at]!r}, not {first.ravel()[at]!r}"
