"""Makes inputs up, to warm a model up and to see how it behaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from penstock.bits import BY_BITS, narrowed
from penstock.tensors import Array, DataType, Kind, Signature, TensorSpec

SIZES = (4, 1, 16, 64, 224)
"""Lengths tried for the open axes: 4 shows mixing best, 1 always broadcasts, images want more."""

WHOLE = (Kind.INT, Kind.UINT)

WORDS = ("a", "b", "penstock", "")


def samples(signature: Signature, rows: int, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Inputs to try one after another, the most telling first: a model may refuse some.

    Args:
        signature: the model's.
        rows: the length of the first axis, where that is open.
        seed: of the values.
    """
    whole = any(spec.datatype.kind in WHOLE for spec in signature.inputs.values())
    for fill in (_varied, _zeros, _counted) if whole else (_varied, _zeros):
        for size in SIZES:
            random = np.random.default_rng(seed)
            yield {
                name: np.asarray(fill(spec.datatype, _shape(spec, rows, size), random))
                for name, spec in signature.inputs.items()
            }
            if not _has_open_inner_axis(signature):
                break


def _has_open_inner_axis(signature: Signature) -> bool:
    return any(spec.has_open_inner_axis() for spec in signature.inputs.values())


def _shape(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    if spec.shape is None:
        return (rows, size)
    return tuple(
        length if isinstance(length, int) else rows if axis == 0 else size
        for axis, length in enumerate(spec.shape)
    )


Fill = Callable[[DataType, tuple[int, ...], np.random.Generator], Array]


def _varied(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Values that differ from row to row, small enough to be taken for an index or a token."""
    if datatype.kind is Kind.BYTES:
        return random.choice(np.array(WORDS, dtype=object), size=shape)
    if datatype.kind in (Kind.BOOL, Kind.INT, Kind.UINT):
        return random.integers(0, 2, size=shape).astype(datatype.dtype)
    values = random.standard_normal(shape, dtype=np.float32)
    return narrowed(datatype, values) if datatype in BY_BITS else values.astype(datatype.dtype)


def _counted(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """As `_varied`, but whole numbers that can be divided by."""
    if datatype.kind in WHOLE:
        return random.integers(1, 4, size=shape).astype(datatype.dtype)
    return _varied(datatype, shape, random)


def _zeros(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if datatype.kind is Kind.BYTES:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, datatype.dtype)
