"""Generates inputs from a model's signature: the same ones for the same seed."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.core.minifloats import BY_BITS, narrowed, widened
from penstock.core.tensors import Array, DataType
from penstock_bench.errors import BenchError
from penstock_bench.payloads import Encoder, Payload
from penstock_client import TensorInfo

_WORD_LENGTH = 8
_INTEGERS = (0, 9)
"""The default range of integers: most models with integer inputs use them as indices."""

_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Wishes:
    """The user's options for generated inputs.

    Attributes:
        rows: the length of open first axes; None for 1.
        shapes: whole shapes by input.
        ranges: the lowest and the highest value by input.
        choices: the values to choose from by input, as texts.
        distinct: the number of different requests.
        seed: equal seeds give equal inputs.
    """

    rows: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    distinct: int = 16
    seed: int = 0


def generated(inputs: Sequence[TensorInfo], wishes: Wishes) -> list[Payload]:
    """Generates different requests.

    Args:
        inputs: the model's inputs.
        wishes: the user's options.

    Returns:
        `wishes.distinct` payloads.

    Raises:
        BenchError: an input is unknown, a length is open, or values do not fit the datatype.
    """
    _check_names(inputs, wishes)
    shapes = _shapes(inputs, wishes)
    random = np.random.default_rng(wishes.seed)
    encoder = Encoder(inputs)
    return [
        encoder.payload({info.name: _values(info, shapes[info.name], wishes, random) for info in inputs})
        for _ in range(wishes.distinct)
    ]


def _check_names(inputs: Sequence[TensorInfo], wishes: Wishes) -> None:
    known = [info.name for info in inputs]
    for flag, names in (
        ("--shape", wishes.shapes),
        ("--range", wishes.ranges),
        ("--choices", wishes.choices),
    ):
        for name in names:
            if name not in known:
                raise BenchError(f'{flag}: no input "{name}"; inputs: {", ".join(known) or "none"}')


def _shapes(inputs: Sequence[TensorInfo], wishes: Wishes) -> dict[str, tuple[int, ...]]:
    """The shape of every input; axes of the same name have the same length."""
    lengths: dict[str, int] = {}
    for info in inputs:
        if info.name in wishes.shapes:
            _bind(info, wishes.shapes[info.name], lengths)
    if wishes.rows is not None:
        _bind_rows(inputs, wishes.rows, lengths)
    return {info.name: wishes.shapes.get(info.name) or _shape(info, wishes, lengths) for info in inputs}


def _bind(info: TensorInfo, shape: tuple[int, ...], lengths: dict[str, int]) -> None:
    """Reads the lengths of named axes from a shape that the user gives."""
    if info.shape is None:
        return
    fits = len(shape) == len(info.shape)
    for axis, length in zip(info.shape, shape, strict=False):
        if isinstance(axis, int):
            fits = fits and axis == length
        elif axis != "?":
            fits = fits and lengths.setdefault(axis, length) == length
    if not fits:
        raise BenchError(f'--shape: input "{info.name}" is {info}; got {list(shape)}')


def _bind_rows(inputs: Sequence[TensorInfo], rows: int, lengths: dict[str, int]) -> None:
    for info in inputs:
        axis = info.shape[0] if info.shape else 0
        if isinstance(axis, str) and axis != "?" and lengths.setdefault(axis, rows) != rows:
            raise BenchError(f"--rows {rows}: --shape gives the axis {axis} the length {lengths[axis]}")


def _shape(info: TensorInfo, wishes: Wishes, lengths: Mapping[str, int]) -> tuple[int, ...]:
    if info.shape is None:
        raise BenchError(f'input "{info.name}" takes any shape: give one, as --shape {info.name}:1,64')
    shape = []
    for place, axis in enumerate(info.shape):
        length = axis if isinstance(axis, int) else lengths.get(axis)
        if length is None and place == 0:
            length = wishes.rows or 1
        if length is None:
            example = ",".join(str(size) if isinstance(size, int) else "1" for size in info.shape)
            raise BenchError(
                f'input "{info.name}" {info}: the length of axis {axis} is open: give the shape, '
                f"as --shape {info.name}:{example}"
            )
        shape.append(length)
    return tuple(shape)


def _values(info: TensorInfo, shape: tuple[int, ...], wishes: Wishes, random: np.random.Generator) -> Array:
    datatype = DataType[info.datatype]
    if info.name in wishes.choices:
        return random.choice(_choices(info, datatype, wishes.choices[info.name]), shape)
    bounds = wishes.ranges.get(info.name)
    if datatype is DataType.BYTES:
        if bounds is not None:
            raise BenchError(f'--range: input "{info.name}" is {info}, not of numbers; try --choices')
        return _words(shape, random)
    if datatype is DataType.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if datatype.dtype.kind in "iu" and datatype not in BY_BITS:
        low, high = bounds or _INTEGERS
        return random.integers(*_whole(info, datatype, low, high), shape, datatype.dtype, endpoint=True)
    values = random.standard_normal(shape) if bounds is None else random.uniform(*bounds, shape)
    if datatype in BY_BITS:
        return _exact(datatype, values)
    return values.astype(datatype.dtype)


def _exact(datatype: DataType, values: Array) -> Array:
    """FP32 values that the datatype can hold exactly."""
    return widened(datatype, narrowed(datatype, values))


def _whole(info: TensorInfo, datatype: DataType, low: float, high: float) -> tuple[int, int]:
    limits = np.iinfo(datatype.dtype)
    if low != int(low) or high != int(high) or low < limits.min or high > limits.max:
        raise BenchError(f'input "{info.name}" is {info}; {low:g} to {high:g} does not fit')
    return int(low), int(high)


def _choices(info: TensorInfo, datatype: DataType, texts: Sequence[str]) -> Array:
    if datatype is DataType.BYTES:
        return np.array(texts, object)
    try:
        if datatype is DataType.BOOL:
            return np.array([_TRUTHS[text.lower()] for text in texts])
        if datatype in BY_BITS:
            return _exact(datatype, np.array([float(text) for text in texts]))
        if datatype.dtype.kind == "f":
            return np.array([float(text) for text in texts]).astype(datatype.dtype)
        whole = [int(text) for text in texts]
        _whole(info, datatype, min(whole), max(whole))
        return np.array(whole, datatype.dtype)
    except (KeyError, ValueError):
        raise BenchError(f'--choices: input "{info.name}" is {info}; got {", ".join(texts)}') from None


def _words(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    letters = np.array(list(string.ascii_lowercase))
    drawn = random.choice(letters, (int(np.prod(shape)), _WORD_LENGTH))
    words: Array = np.empty(len(drawn), object)
    words[:] = ["".join(row) for row in drawn]
    return words.reshape(shape)
