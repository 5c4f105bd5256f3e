"""Outputs as Python's own values, and as the columns of a CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from penstock.cli.cells import Bad, dumps, has_row_axis, is_one_value, row_shape
from penstock.tensors import Array
from penstock_client import Prediction, TensorInfo

MOST_COLUMNS = 1024
"""Longer vectors are one JSON list in one column."""

CLASH = "_answer"
"""What is added to the name of an output where the file has a column of that name already."""


def plain(array: Array) -> object:
    """An array as numbers, bools, texts and nested lists that JSON can hold.

    Floats come with as many digits as their datatype has. NaN and the infinities become the texts "NaN",
    "Infinity" and "-Infinity"; bytes that are no text are escaped.
    """
    if array.dtype.kind in "biu":
        return array.tolist()
    if array.dtype == object:
        flat = [_text(each) for each in array.ravel().tolist()]
    elif array.dtype == np.float64:
        flat = [_finite(each) for each in array.ravel().tolist()]
    else:
        # Widened to a double, 0.1 as a single would read 0.10000000149011612.
        flat = [_finite(float(str(each))) for each in array.ravel()]
    if array.ndim == 1:
        return flat
    nested: object = np.array(flat, object).reshape(array.shape).tolist()
    return nested


def cell(value: object) -> str:
    """A value as the text of one CSV cell: lists and objects as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return dumps(value)
    return "" if value is None else str(value)


def unused(name: str, taken: Iterable[str]) -> str:
    """The name, with as many `_answer` added as make it differ from all that are taken."""
    taken = set(taken)
    while name in taken:
        name += CLASH
    return name


class Answer:
    """One output of a model, as it is written beside the rows of a file.

    Args:
        info: the output as the server describes it.
    """

    def __init__(self, info: TensorInfo) -> None:
        self.name = info.name
        self._has_row_axis = has_row_axis(info)
        self._one_value = is_one_value(info)
        row = row_shape(info)
        is_vector = row is not None and len(row) == 1 and not self._one_value
        length = row[0] if is_vector and row else None
        self._width = length if isinstance(length, int) and length <= MOST_COLUMNS else None

    def value(self, prediction: Prediction) -> object:
        """The output of one row, without the axis that counts rows; one value is no list.

        Raises:
            Bad: the server did not give this output.
        """
        if self.name not in prediction:
            raise Bad(f'the answer of version {prediction.version} has no output "{self.name}"')
        array = prediction[self.name]
        if self._one_value and array.size == 1:
            return plain(array.reshape(1))[0]  # type: ignore[index]  # a list: it has one axis
        return plain(array[0] if self._has_row_axis and len(array) == 1 else array)

    def columns(self, taken: Iterable[str]) -> list[str]:
        """The names of the columns, none of which is taken."""
        taken = set(taken)
        name = self.name
        while taken.intersection(self._columns(name)):
            name += CLASH
        return self._columns(name)

    def cells(self, prediction: Prediction) -> Sequence[str]:
        """The texts for those columns.

        Raises:
            Bad: the output is not there, or not of the length that the model declares.
        """
        value = self.value(prediction)
        if self._width is None:
            return (cell(value),)
        if not isinstance(value, list) or len(value) != self._width:
            raise Bad(f'output "{self.name}" is not {self._width} values, as the model declares')
        return [cell(each) for each in value]

    def _columns(self, name: str) -> list[str]:
        return [name] if self._width is None else [f"{name}.{i}" for i in range(self._width)]


def _text(element: object) -> object:
    return element.decode("utf-8", "backslashreplace") if isinstance(element, bytes) else element


def _finite(value: float) -> object:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
