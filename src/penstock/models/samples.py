"""Generates sample inputs, to warm up, check and time a model.

`[sample]` of model.toml describes a request, or names a file of real requests. If it leaves shapes or values
open, several are tried.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from penstock.config import ModelSample
from penstock.core.errors import ModelLoadError
from penstock.core.minifloats import BY_BITS, narrowed
from penstock.core.tensors import Array, DataType, Kind, Signature, TensorSpec
from penstock.models.axis_names import computed
from penstock.models.fills import WHOLE, Fill, Recording, counted, is_list, varied, zeros
from penstock.models.sample_file import read_requests

SIZES = (4, 1, 16, 64, 224)
"""Lengths tried for open axes: 4 shows best whether rows affect each other, 1 always broadcasts, and images
need more."""

RECORDED = (512, 4096)
"""Lengths tried last, of axes that may be those of a recording."""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
"""A number that stands alone, not one in a name."""

MOST_SHAPES = 4
"""Of the shapes that the requests of a file have, the most frequent ones are tried."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The shapes and values of an ordinary request of one row, as far as they are known.

    Attributes:
        shapes: the shapes of inputs.
        values: the value of all elements of an input, as arrays of its datatype hold it.
        written: the same values as written in model.toml.
        requests: real requests of one row, each with its inputs by name.
        file: the name of the file that these were read from; "" if there are none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, object]
    written: Mapping[str, bool | int | float | str]
    requests: Sequence[Mapping[str, Array]] = ()
    file: str = ""

    @property
    def tried(self) -> str:
        """What a model is tried on, in words."""
        return f"every request of {self.file}" if self.file else "every generated input"

    @property
    def first(self) -> Mapping[str, Array]:
        """The first real request of the most frequent shape; empty if there are none."""
        if not self.requests:
            return {}
        shapes = [tuple([array.shape for array in each.values()]) for each in self.requests]
        return self.requests[shapes.index(max(shapes, key=shapes.count))]

    def failure(self, error: Exception) -> str:
        """Why a model fails, in words. The numbers may be those of a real request, which are not told."""
        return NUMBER.sub("#", str(error)) if self.requests else str(error)

    def shape(self, spec: TensorSpec, alone: bool = False) -> tuple[int | str, ...] | None:
        """The shape of an input, with what is known of its open axes.

        Args:
            spec: the input; its fixed lengths are kept.
            alone: whether the length of the first axis is taken from the sample, too, since no other rows
                are batched with it.
        """
        known = self.shapes.get(spec.name)
        if known is None or spec.shape is None:
            return known or spec.shape
        return tuple(
            size if isinstance(length, str) and (axis or alone) else length
            for axis, (length, size) in enumerate(zip(spec.shape, known, strict=True))
        )

    def turned(self, signature: Signature) -> Sample:
        """The sample for this model with its rows along the first axis of every input."""
        axes = {name: spec.row_axis for name, spec in signature.inputs.items() if spec.row_axis}
        if not axes:
            return self
        shapes = {
            name: (shape[axis := axes.get(name, 0)], *shape[:axis], *shape[axis + 1 :])
            for name, shape in self.shapes.items()
        }
        requests = [
            {
                name: np.moveaxis(array, axes.get(name, 0), 0) if array.ndim else array
                for name, array in each.items()
            }
            for each in self.requests
        ]
        return replace(self, shapes=shapes, requests=requests)


UNKNOWN = Sample({}, {}, {})
"""The sample if model.toml has no `[sample]`."""


def read_sample(
    settings: ModelSample,
    signature: Signature,
    state_inputs: Collection[str] = (),
    folder: Path = Path(),
    optional: Collection[str] = (),
) -> Sample:
    """Reads `[sample]` for a model of this signature.

    Args:
        settings: `[sample]` of model.toml.
        signature: the graph's.
        state_inputs: the inputs that requests do not have, since the server keeps their values.
        folder: the model's, which the file's name is relative to.
        optional: the inputs that requests may leave out.

    Raises:
        ModelLoadError: they do not fit; names the key, its value and what the model has.
    """
    inputs = signature.inputs
    _check_names("shapes", settings.shapes, inputs, state_inputs)
    _check_names("values", settings.values, inputs, state_inputs)
    for name, shape in settings.shapes.items():
        _check_shape(shape, inputs[name])
    values = {name: _value(value, inputs[name]) for name, value in settings.values.items()}
    if not settings.file:
        return Sample(settings.shapes, values, settings.values)
    wanted = {
        name: spec
        for name, spec in inputs.items()
        if name not in state_inputs and name not in settings.values
    }
    requests = read_requests(folder / settings.file, wanted, optional)
    shapes = {name: array.shape for name, array in requests[0].items()} | settings.shapes
    return Sample(shapes, values, settings.values, requests, settings.file)


def _check_names(
    key: str, names: Collection[str], inputs: Mapping[str, TensorSpec], state_inputs: Collection[str]
) -> None:
    for name in names:
        if name in state_inputs:
            raise ModelLoadError(f"sample.{key} names input {name}, which is a state in sequence.state")
        if name not in inputs:
            others = [str(spec) for spec in inputs.values() if spec.name not in state_inputs]
            raise ModelLoadError(
                f"sample.{key} names input {name}, which does not exist; the model has "
                f"{', '.join(others) or 'none'}"
            )


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


def _value(value: bool | int | float | str, spec: TensorSpec) -> object:
    try:
        return element(spec.datatype, value)
    except ValueError:
        raise ModelLoadError(f"sample.values: {value!r} is not a valid value for input {spec}") from None


def element(datatype: DataType, value: bool | int | float | str) -> object:
    """A value of model.toml as arrays of a datatype hold it.

    Raises:
        ValueError: the datatype has no such value.
    """
    is_text = datatype.kind is Kind.BYTES
    fits = is_text if isinstance(value, str) else not is_text and _holds(datatype, value)
    if not fits:
        raise ValueError(f"{value!r} is not a valid {datatype} value")
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


class Manner(NamedTuple):
    """One way to make inputs up.

    Attributes:
        fill: makes the values.
        size: the length of open axes.
        requests: real requests of one shape to take instead; those that they lack are made up.
    """

    fill: Fill
    size: int
    requests: Sequence[Mapping[str, Array]] = ()


def samples(
    signature: Signature, rows: int | None, seed: int = 0, sample: Sample = UNKNOWN
) -> Iterator[dict[str, Array]]:
    """Inputs to try one after another, the most useful first: a model may fail on some.

    Args:
        signature: the model's.
        rows: the length of the first axis, if it is open; None for the length in a single request.
        seed: the seed of the random values.
        sample: what is known of a request.
    """
    for manner in manners(signature, sample, alone=rows is None):
        yield made(signature, rows, seed, manner, sample)


def manners(signature: Signature, sample: Sample = UNKNOWN, alone: bool = False) -> Sequence[Manner]:
    """The ways to make inputs up, the most useful first: a model may fail on some.

    Args:
        signature: the model's.
        sample: what is known of a request.
        alone: whether a single request is made, with the length of the first axis that is known of it.
    """
    if sample.requests:
        return [Manner(varied, SIZES[0], group) for group in _by_shape(signature, sample.requests)]
    known = _known(signature, sample, alone)
    sizes = SIZES if any(spec.has_open_inner_axis() for spec in known.values()) else SIZES[:1]
    whole = [
        spec for name, spec in known.items() if spec.datatype.kind in WHOLE and name not in sample.values
    ]
    fills = (varied, zeros, counted) if whole else (varied, zeros)
    usual = [Manner(fill, size) for fill in fills for size in sizes]
    return [*usual, *(Manner(Recording(size), size) for size in _recorded(known, whole))]


def _recorded(known: Mapping[str, TensorSpec], whole: Sequence[TensorSpec]) -> Sequence[int]:
    """The lengths of recordings to try; none if no input can be one."""
    open_axes = [sum(isinstance(size, str) for size in (spec.shape or ())[1:]) for spec in known.values()]
    if max(open_axes, default=0) > 1:
        return ()  # images of that size would be large
    if any(open_axes):
        return RECORDED
    are_lengths = any(len(spec.shape or ()) < 2 and not is_list(spec) for spec in whole)
    return RECORDED[:1] if are_lengths else ()


def made(
    signature: Signature, rows: int | None, seed: int, manner: Manner, sample: Sample = UNKNOWN
) -> dict[str, Array]:
    """Inputs made up in one manner; the arguments are those of `samples`."""
    random = np.random.default_rng(seed)
    inputs = {}
    known = _known(signature, sample, alone=rows is None)
    lengths = _named_lengths(known, signature, rows or 1, manner.size)
    for name, spec in known.items():
        real = [each[name] for each in manner.requests if name in each]
        if real:
            inputs[name] = _real(signature.inputs[name], real, rows, seed)
        else:
            shape = _shape(spec, rows or 1, manner.size, lengths)
            inputs[name] = _filled(spec, shape, manner.fill, random, sample)
    return inputs


def _known(signature: Signature, sample: Sample, alone: bool) -> Mapping[str, TensorSpec]:
    """The inputs, with what is known of their shapes."""
    return {name: replace(spec, shape=sample.shape(spec, alone)) for name, spec in signature.inputs.items()}


def _by_shape(
    signature: Signature, requests: Sequence[Mapping[str, Array]]
) -> Sequence[Sequence[Mapping[str, Array]]]:
    """The requests that may share a batch together, the most frequent shapes first."""
    groups: dict[object, list[Mapping[str, Array]]] = {}
    for request in requests:
        key = tuple([_shape_of_row(signature.inputs[name], array) for name, array in request.items()])
        groups.setdefault(key, []).append(request)
    return sorted(groups.values(), key=len, reverse=True)[:MOST_SHAPES]


def _shape_of_row(spec: TensorSpec, array: Array) -> object:
    if not array.ndim:
        return array.item()  # a batch has one value of a scalar
    return _lengths(spec, array)[1:]


def _lengths(spec: TensorSpec, array: Array) -> tuple[int, ...]:
    """The shape of an array of a request, with the lengths that a signature fixes."""
    fixed = spec.shape if spec.shape is not None and len(spec.shape) == array.ndim else array.shape
    return tuple(
        [length if isinstance(length, int) else size for length, size in zip(fixed, array.shape, strict=True)]
    )


def _real(spec: TensorSpec, arrays: Sequence[Array], rows: int | None, seed: int) -> Array:
    """Rows of real requests; where the signature fixes a length, they are cut or repeated to have it."""
    has_rows = spec.shape is None or (spec.shape and isinstance(spec.shape[0], str))
    count = rows if rows is not None and has_rows else 1
    chosen = [arrays[(seed + place) % len(arrays)] for place in range(count)] if has_rows else arrays[:1]
    shape = _lengths(spec, chosen[0])
    for axis, length in enumerate(shape):
        if axis or not has_rows:
            chosen = [_with_length(each, axis, length) for each in chosen]
    if rows is None or not has_rows:
        return chosen[0].copy()
    return np.concatenate([each[:1] for each in chosen])


def _with_length(array: Array, axis: int, length: int) -> Array:
    """The array cut or repeated to a length along an axis."""
    size = array.shape[axis]
    return array if size in (length, 0) else array.take(np.arange(length) % size, axis)


def _named_lengths(
    known: Mapping[str, TensorSpec], signature: Signature, rows: int, size: int
) -> Mapping[str, int]:
    """The lengths of the axes whose names are known: those of the batch, and those that the sample gives."""
    lengths = {}
    for name, spec in known.items():
        declared = signature.inputs[name].shape or ()
        for axis, (before, length) in enumerate(zip(declared, spec.shape or (), strict=False)):
            if isinstance(before, str) and isinstance(length, int):
                lengths[before] = length
            elif isinstance(before, str):
                lengths.setdefault(before, size if axis else rows)
    return lengths


def _shape(spec: TensorSpec, rows: int, size: int, lengths: Mapping[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        return (rows, size)
    return tuple(
        length if isinstance(length, int) else rows if axis == 0 else computed(length, lengths, size)
        for axis, length in enumerate(spec.shape)
    )


def _filled(
    spec: TensorSpec, shape: tuple[int, ...], fill: Fill, random: np.random.Generator, sample: Sample
) -> Array:
    if spec.name in sample.values:
        return np.full(shape, sample.values[spec.name], spec.datatype.dtype)
    return np.asarray(fill(spec, shape, random))
