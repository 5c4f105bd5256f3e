"""Makes up the values of inputs, to warm up, check and time a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from penstock.core.minifloats import BY_BITS, narrowed
from penstock.core.tensors import Array, DataType, Kind, TensorSpec

WHOLE = (Kind.INT, Kind.UINT)

WORDS = ("a", "b", "penstock", "")
MORE_WORDS = (
    *WORDS,
    "rows run together",
    "42",
    "-3.5",
    "A much longer text, of several words.",
    "Größe",
    "2024-02-29",
)

SCALES = (1.0, -10.0, 100.0, -0.1)
"""How far the values of wide rows spread, row by row; those of a negative one are all negative."""

RATE = 16_000  # the usual sampling rate of speech


Fill = Callable[[TensorSpec, tuple[int, ...], np.random.Generator], Array]
"""Makes the values of an input of that shape."""


def varied(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Values that differ from row to row, small enough for an index or a token."""
    datatype = spec.datatype
    if datatype.kind is Kind.BYTES:
        return random.choice(np.array(WORDS, dtype=object), size=shape)
    if datatype.kind in (Kind.BOOL, Kind.INT, Kind.UINT):
        return random.integers(0, 2, size=shape).astype(datatype.dtype)
    return _as(datatype, random.standard_normal(shape, dtype=np.float32))


def counted(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """As `varied`, but without zeros among whole numbers, which a model may divide by."""
    if spec.datatype.kind in WHOLE:
        return random.integers(1, 4, size=shape).astype(spec.datatype.dtype)
    return varied(spec, shape, random)


def zeros(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Zeros and empty texts."""
    if spec.datatype.kind is Kind.BYTES:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, spec.datatype.dtype)


def ones(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """The same value everywhere, which can be written down shortly."""
    kind = spec.datatype.kind
    if kind is Kind.BYTES:
        return np.full(shape, "text", dtype=object)
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return _as(spec.datatype, np.full(shape, 0.5, np.float32))
    return np.ones(shape, spec.datatype.dtype)


@dataclass(frozen=True, slots=True)
class Recording:
    """Fills inputs as those of a model of sound: a whole number is the rate, or the length of each row.

    Attributes:
        size: the length of the rows.
    """

    size: int

    def __call__(self, spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
        """The values of an input of that shape."""
        if spec.datatype.kind not in WHOLE or len(shape) > 1 or is_list(spec):
            return varied(spec, shape, random)
        most = int(np.iinfo(spec.datatype.dtype).max)
        return np.full(shape, min(self.size if shape else RATE, most), spec.datatype.dtype)


def is_list(spec: TensorSpec) -> bool:
    """Whether an input is a list of several numbers, such as the sizes of an output that they make."""
    length = spec.shape[0] if spec.shape and len(spec.shape) == 1 else 1
    return isinstance(length, int) and length > 1


@dataclass(frozen=True, slots=True)
class Wide:
    """Fills inputs with values that differ much from row to row; the first row comes again as the last.

    Whole numbers that are often lengths or counts stay as they are known to run: scalars, and the numbers of
    a model of sequences of which each row has one.

    Attributes:
        usual: fills what stays as it is.
        has_lengths: whether the model takes sequences.
        high: whole numbers are below this.
        bounds: for some inputs, by name, what their whole numbers are below instead.
        signed: whether every second whole number is negative, where the datatype has such and nothing is
            looked up by it.
    """

    usual: Fill
    has_lengths: bool
    high: int
    bounds: Mapping[str, int]
    signed: bool = False

    def __call__(self, spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
        """The values of an input of that shape."""
        datatype = spec.datatype
        is_count = datatype.kind in WHOLE and len(shape) == 1 and self.has_lengths
        if not shape or datatype.kind is Kind.BOOL or (is_count and spec.name not in self.bounds):
            return self.usual(spec, shape, random)
        if datatype.kind is Kind.BYTES:
            values = random.choice(np.array(MORE_WORDS, dtype=object), size=shape)
        elif datatype.kind in WHOLE:
            high = min(self.bounds.get(spec.name, self.high), int(np.iinfo(datatype.dtype).max) + 1)
            values = random.integers(0, max(high, 1), size=shape).astype(datatype.dtype)
            if self.signed and datatype.kind is Kind.INT and spec.name not in self.bounds:
                values[1::2] = -values[1::2]
        else:
            floats = random.standard_normal(shape, dtype=np.float32)
            for place, row in enumerate(floats):
                scale = SCALES[place % len(SCALES)] / (10 if datatype in BY_BITS else 1)
                floats[place] = row * scale if scale > 0 else np.abs(row) * scale
            values = _as(datatype, floats)
        if len(values) > 2:
            values[-1] = values[0]
        return values


def _as(datatype: DataType, values: Array) -> Array:
    return narrowed(datatype, values) if datatype in BY_BITS else values.astype(datatype.dtype)
