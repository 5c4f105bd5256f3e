"""Encodes Python's own scalars without numpy: an array for each of sixty values costs a millisecond a row.

Every function here returns None for a value that it does not encode; numpy then encodes it, or tells why it
cannot be sent. Both encode a value in the same way, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from struct import Struct, error
from typing import Any, TypeAlias

import numpy as np

from penstock_client._wire import input_opened
from penstock_proto.v1 import tensor_pb2

Quick: TypeAlias = Callable[[Any], bytes | None]

FLOATS: dict[int, str] = {tensor_pb2.FP16: "e", tensor_pb2.FP32: "f", tensor_pb2.FP64: "d"}
INTEGERS: dict[int, str] = {
    tensor_pb2.INT8: "b", tensor_pb2.INT16: "h", tensor_pb2.INT32: "i", tensor_pb2.INT64: "q",
    tensor_pb2.UINT8: "B", tensor_pb2.UINT16: "H", tensor_pb2.UINT32: "I", tensor_pb2.UINT64: "Q",
}  # fmt: skip
EXACT: dict[int, int] = {tensor_pb2.FP16: 2**11, tensor_pb2.FP32: 2**24, tensor_pb2.FP64: 2**53}
"""Floating-point numbers have every integer up to this one."""

_LENGTH = Struct("<I")
_FLOATS = (float, np.float64)
_INTEGERS = (int, np.int64)


def code_of(number: int, kind: type) -> str | None:
    """The code of `struct` for a Python type and a datatype; None if there is no quick way."""
    if number in FLOATS:
        if kind is np.float64 and number == tensor_pb2.FP16:
            return None  # it has a dtype, so it is rounded to FP32 only
        return FLOATS[number] if kind in (*_FLOATS, *_INTEGERS, type(None)) else None
    if kind in _INTEGERS:
        return INTEGERS.get(number)
    return "?" if kind is bool and number == tensor_pb2.BOOL else None


def scalars(number: int) -> dict[type, Quick]:
    """For each Python type the function that encodes a scalar of it, as the `raw` bytes of a datatype."""
    if number == tensor_pb2.BYTES:
        return {str: _text, bytes: _data}
    found: dict[type, Quick] = {}
    for kind in (*_FLOATS, *_INTEGERS, bool, type(None)):
        code = code_of(number, kind)
        if code is not None:
            found[kind] = _packing(Struct(f"<{code}").pack, kind, EXACT.get(number, 0))
    return found


def _packing(pack: Callable[[Any], bytes], kind: type, exact: int) -> Quick:
    if kind is type(None):
        missing = pack(nan)
        return lambda value: missing

    checked = exact > 0 and kind in _INTEGERS

    def packed(value: Any) -> bytes | None:
        if checked and not -exact <= value <= exact:
            return None
        try:
            return pack(value)
        except (OverflowError, error):
            return None

    return packed


def _text(value: str) -> bytes | None:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        return None
    return _LENGTH.pack(len(data)) + data


def _data(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def packed_list(values: list[Any], number: int) -> bytes | None:
    """A list of Python's floats as the `raw` bytes of a floating-point datatype."""
    code = FLOATS.get(number)
    if code is None or set(map(type, values)) != {float}:
        return None
    try:
        return Struct(f"<{len(values)}{code}").pack(*values)
    except OverflowError:
        return None


class Plan:
    """How to encode requests of one value for each input, whose inputs have the same names and types.

    Args:
        inputs: for each input its name, its datatype's number and the shape of one value.
        types: the types of the values.

    Raises:
        ValueError: there is no quick way to encode one of them.
    """

    __slots__ = ("_exact", "_fixed", "_missing", "_pack", "_template", "_texts")

    def __init__(
        self, inputs: list[tuple[str, int, tuple[int, ...] | None]], types: tuple[type, ...]
    ) -> None:
        self._fixed: list[int] = []
        self._texts: list[tuple[int, str, tuple[int, ...], Quick]] = []
        self._exact: list[tuple[int, int]] = []  # integers that must be exact
        self._missing: list[int] = []
        self._template: list[Any] = []
        layout = "<"
        for place, ((name, number, shape), kind) in enumerate(zip(inputs, types, strict=True)):
            if shape is None:
                raise ValueError("it does not take a single value")
            if number == tensor_pb2.BYTES and kind in (str, bytes):
                self._texts.append((place, name, shape, _text if kind is str else _data))
                continue
            code = code_of(number, kind)
            if code is None:
                raise ValueError("there is no quick way")
            value = Struct(f"<{code}")
            head = input_opened(name, number, shape, value.size)
            layout += f"{len(head)}s{code}"
            if kind is type(None):
                self._missing.append(len(self._fixed))
            if kind in _INTEGERS and number in EXACT:
                self._exact.append((place, EXACT[number]))
            self._fixed.append(place)
            self._template += (head, None)
        self._pack = Struct(layout).pack

    def write(self, inputs: Mapping[str, Any]) -> list[bytes] | None:
        """The encoded inputs, the constant part first; None if a value needs a closer look."""
        values: list[Any] = [*inputs.values()]
        for place, exact in self._exact:
            if not -exact <= values[place] <= exact:
                return None
        fixed = values if not self._texts else [values[place] for place in self._fixed]
        for place in self._missing:
            fixed[place] = nan
        arguments = self._template.copy()
        arguments[1::2] = fixed
        try:
            written = [self._template[0], self._pack(*arguments)[len(self._template[0]) :]] if fixed else []
        except (OverflowError, error):
            return None
        for place, name, shape, encode in self._texts:
            raw = encode(values[place])
            if raw is None:
                return None
            written += (input_opened(name, tensor_pb2.BYTES, shape, len(raw)), raw)
        return written
