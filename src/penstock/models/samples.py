"""Makes inputs up, to warm a model up and to see how it behaves.

What `[sample]` of model.toml says of a request is kept to; everything else is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from penstock.bits import BY_BITS, narrowed
from penstock.config import ModelSample
from penstock.errors import ModelLoadError
from penstock.tensors import Array, DataType, Kind, Signature, TensorSpec

SIZES = (4, 1, 16, 64, 224)
"""Lengths tried for the open axes: 4 shows mixing best, 1 always broadcasts, images want more."""

WHOLE = (Kind.INT, Kind.UINT)

WORDS = ("a", "b", "penstock", "")


@dataclass(frozen=True, slots=True)
class Sample:
    """What an ordinary request of one row holds, as far as it is known.

    Attributes:
        shapes: the shapes of inputs.
        values: what all elements of an input are, as arrays of its datatype hold it.
        said: the same as model.toml writes it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, object]
    said: Mapping[str, bool | int | float | str]

    def shape(self, spec: TensorSpec, alone: bool = False) -> tuple[int | str, ...] | None:
        """The shape of an input, with what is known of its open axes.

        Args:
            spec: the input; lengths that it fixes stay.
            alone: whether its first axis is known as well, since no other rows are to lie along it.
        """
        known = self.shapes.get(spec.name)
        if known is None or spec.shape is None:
            return known or spec.shape
        return tuple(
            size if isinstance(length, str) and (axis or alone) else length
            for axis, (length, size) in enumerate(zip(spec.shape, known, strict=True))
        )


UNKNOWN = Sample({}, {}, {})
"""Where model.toml says nothing of it."""


def read_sample(settings: ModelSample, signature: Signature, kept: Collection[str] = ()) -> Sample:
    """What the settings say of a request to a model of this signature.

    Args:
        settings: `[sample]` of model.toml.
        signature: the graph's.
        kept: the inputs that no request holds, since the server keeps them.

    Raises:
        ModelLoadError: they do not fit; names the key, what it says and what there is.
    """
    inputs = signature.inputs
    for key, names in (("shapes", settings.shapes), ("values", settings.values)):
        for name in names:
            if name in kept:
                raise ModelLoadError(f"sample.{key} names the input {name}, which sequence.state keeps")
            if name not in inputs:
                listed = ", ".join(str(spec) for spec in inputs.values() if spec.name not in kept) or "none"
                raise ModelLoadError(
                    f"sample.{key} names the input {name}, which is not there; there is {listed}"
                )
    for name, shape in settings.shapes.items():
        _check_shape(shape, inputs[name])
    values = {}
    for name, value in settings.values.items():
        try:
            values[name] = element(inputs[name].datatype, value)
        except ValueError:
            raise ModelLoadError(f"sample.values: {value!r} is no value of input {inputs[name]}") from None
    return Sample(settings.shapes, values, settings.values)


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    declared = shape if spec.shape is None else spec.shape
    if len(shape) != len(declared):
        raise ModelLoadError(
            f"sample.shapes: {list(shape)} does not fit input {spec}: expected a length for each axis"
        )
    for axis, (size, length) in enumerate(zip(shape, declared, strict=True)):
        if isinstance(length, int) and size != length:
            raise ModelLoadError(
                f"sample.shapes: axis {axis} of {list(shape)} is {size}, expected {length} as in input {spec}"
            )


def element(datatype: DataType, value: bool | int | float | str) -> object:
    """A value of model.toml as arrays of a datatype hold it.

    Raises:
        ValueError: the datatype has no such value.
    """
    is_text = datatype.kind is Kind.BYTES
    fits = is_text if isinstance(value, str) else not is_text and _holds(datatype, value)
    if not fits:
        raise ValueError(f"{value!r} is no {datatype}")
    if datatype in BY_BITS:
        return narrowed(datatype, np.array([value], np.float32))[0]
    return value


def _holds(datatype: DataType, value: float) -> bool:
    if datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
        return True
    if datatype.kind is Kind.BOOL:
        return value in (0, 1)
    bounds = np.iinfo(datatype.dtype)
    return math.isfinite(value) and value == int(value) and bounds.min <= value <= bounds.max


def samples(
    signature: Signature, rows: int | None, seed: int = 0, sample: Sample = UNKNOWN
) -> Iterator[dict[str, Array]]:
    """Inputs to try one after another, the most telling first: a model may refuse some.

    Args:
        signature: the model's.
        rows: the length of the first axis, where that is open; None for that of a request by itself.
        seed: of the values.
        sample: what is known of a request.
    """
    known = {
        name: replace(spec, shape=sample.shape(spec, alone=rows is None))
        for name, spec in signature.inputs.items()
    }
    sizes = SIZES if any(spec.has_open_inner_axis() for spec in known.values()) else SIZES[:1]
    whole = any(spec.datatype.kind in WHOLE for name, spec in known.items() if name not in sample.values)
    for fill in (_varied, _zeros, _counted) if whole else (_varied, _zeros):
        for size in sizes:
            random = np.random.default_rng(seed)
            yield {
                name: _filled(spec, _shape(spec, rows or 1, size), fill, random, sample)
                for name, spec in known.items()
            }


def _shape(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    if spec.shape is None:
        return (rows, size)
    return tuple(
        length if isinstance(length, int) else rows if axis == 0 else size
        for axis, length in enumerate(spec.shape)
    )


Fill = Callable[[DataType, tuple[int, ...], np.random.Generator], Array]


def _filled(
    spec: TensorSpec, shape: tuple[int, ...], fill: Fill, random: np.random.Generator, sample: Sample
) -> Array:
    if spec.name in sample.values:
        return np.full(shape, sample.values[spec.name], spec.datatype.dtype)
    return np.asarray(fill(spec.datatype, shape, random))


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
