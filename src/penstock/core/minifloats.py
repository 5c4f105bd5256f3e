"""Floating-point numbers that numpy lacks, held as their bits: bfloat16, and ONNX's 8-bit formats.

bfloat16 is the upper half of an IEEE 754 single. The 8-bit formats are described in
https://onnx.ai/onnx/technical/float8.html: E4M3 has 4 bits of exponent and 3 of mantissa, E5M2 5 and 2; FN
has no infinities, UZ no negative zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from penstock.core.tensors import Array, DataType


class Format(NamedTuple):
    """The layout of an 8-bit floating-point format.

    Attributes:
        mantissa: the bits of its mantissa; those between it and the sign are the exponent's.
        bias: what its exponent is too large by.
        finite: how many of the codes without a sign are finite numbers, from 0 up.
        infinite: whether the next one is infinity.
        unsigned_zero: whether what would be the negative zero is its one NaN.
    """

    mantissa: int
    bias: int
    finite: int
    infinite: bool
    unsigned_zero: bool


FORMATS: Mapping[DataType, Format] = {
    DataType.FP8E4M3FN: Format(3, 7, 0x7F, infinite=False, unsigned_zero=False),
    DataType.FP8E4M3FNUZ: Format(3, 8, 0x80, infinite=False, unsigned_zero=True),
    DataType.FP8E5M2: Format(2, 15, 0x7C, infinite=True, unsigned_zero=False),
    DataType.FP8E5M2FNUZ: Format(2, 16, 0x80, infinite=False, unsigned_zero=True),
}
BY_BITS = frozenset({DataType.BF16, *FORMATS})
"""The datatypes whose arrays hold bits: uint16 those of bfloat16, uint8 all others."""


def widened(datatype: DataType, bits: Array) -> Array:
    """The float32 values of bits; exact."""
    if datatype is DataType.BF16:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    values: Array = _values(datatype)[bits]
    return values


def narrowed(datatype: DataType, values: Array) -> Array:
    """The bits of the nearest numbers, ties to even; what is too large becomes infinity, else NaN."""
    if datatype is DataType.BF16:
        return _bfloat16(values)
    form, sizes = FORMATS[datatype], _values(datatype)[: FORMATS[datatype].finite].astype(np.float64)
    size = np.abs(values.astype(np.float64))
    above = np.searchsorted(sizes, size).clip(1, form.finite - 1)
    below = above - 1
    middle = (sizes[below] + sizes[above]) / 2  # exact: doubles have bits to spare
    up = (size > middle) | ((size == middle) & (above % 2 == 0))
    code = np.where(up, above, below)
    limit = 1.5 * sizes[-1] - 0.5 * sizes[-2]
    too_large = (size > limit) | ((size == limit) & (form.finite % 2 == 0))
    code = np.where(too_large, form.finite, code)
    sign = np.where(np.signbit(values) & ((code > 0) | (not form.unsigned_zero)), 0x80, 0)
    no_number = np.isnan(values) | (code == form.finite) & (not form.infinite)
    return np.where(no_number, _nan(form), code | sign).astype(np.uint8)


def _nan(form: Format) -> int:
    if form.unsigned_zero:
        return 0x80
    return 0x7E if form.infinite else 0x7F


@cache
def _values(datatype: DataType) -> Array:
    """The value of every code."""
    form = FORMATS[datatype]
    code = np.arange(0x80)
    mantissa, exponent = code & ((1 << form.mantissa) - 1), code >> form.mantissa
    normal = exponent > 0
    scale = np.ldexp(1.0, np.where(normal, exponent, 1) - form.bias - form.mantissa)
    sizes = (mantissa + np.where(normal, 1 << form.mantissa, 0)) * scale
    sizes[form.finite :] = np.nan
    if form.infinite:
        sizes[form.finite] = np.inf
    values = np.concatenate([sizes, -sizes]).astype(np.float32)
    if form.unsigned_zero:
        values[0x80] = np.nan
    return values


def _bfloat16(values: Array) -> Array:
    """The 16 bits of the nearest bfloat16, ties to even, as hardware rounds."""
    bits = _rounded_to_odd(values)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40  # rounding could turn a NaN into an infinity
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)


def _rounded_to_odd(values: Array) -> Array:
    """The 32 bits of single precision, the last of which is set where it cannot hold a value exactly.

    Rounding twice would go wrong: a value just above the middle of two bfloat16 would first become the
    middle and then the even one of the two. The bit set keeps it above.
    """
    single = values.astype(np.float32)
    bits: Array = single.view(np.uint32)
    if values.dtype == np.float64:
        bits = (bits - (np.abs(single) > np.abs(values))) | (single != values)  # cut off, and marked
    return bits
