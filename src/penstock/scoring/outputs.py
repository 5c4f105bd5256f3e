"""Converts outputs to plain Python values and to the columns of a CSV file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
import orjson

from penstock.core.tensors import Array
from penstock.row_files.fields import Field, Invalid, dumps, has_row_axis, inexact, is_one_value, row_shape
from penstock_client import Prediction, TensorInfo

MOST_COLUMNS = 1024
"""Most columns of a vector; longer ones are written as one JSON list in one column."""

_LEAST, _MOST = 1.001e-4, 0.999e16
"""Between these, numbers have no exponent."""

CLASH = "_answer"
"""The suffix of an output's name if the file already has a column with that name."""


def plain(array: Array) -> object:
    """An array as numbers, bools, texts and nested lists that JSON can hold.

    Floats have the digits of their datatype. NaN and the infinities become the texts "NaN", "Infinity" and
    "-Infinity"; bytes that are not UTF-8 are escaped.
    """
    if array.dtype.kind in "biu":
        return array.tolist()
    if array.dtype == object:
        flat = [_text(each) for each in array.ravel().tolist()]
    elif array.dtype == np.float64:
        flat = [_finite(each) for each in array.ravel().tolist()]
    else:
        # As FP64, the FP32 value 0.1 would be written as 0.10000000149011612.
        flat = [_finite(float(str(each))) for each in array.ravel()]
    if array.ndim == 1:
        return flat
    nested: object = np.array(flat, object).reshape(array.shape).tolist()
    return nested


def cell(value: object) -> str:
    """A value as the text of one CSV cell: lists and objects as JSON, null as an empty cell."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return dumps(value)
    return "" if value is None else str(value)


def json_value(field: Field, text: str) -> object:
    """What JSON has for a CSV cell of an input of numbers: a missing one is null.

    A cell that is no value of the input stays as it is, and so does a whole number that FP64 does not have.
    """
    whole = inexact(text) if field.is_float else None
    if whole is not None:
        return whole
    try:
        return _standard(json.loads(text) if text.startswith("[") else field.parse_cell(text))
    except (ValueError, RecursionError, Invalid):
        return text


def _standard(value: object) -> object:
    """A value without the numbers that JSON has no way to write."""
    if isinstance(value, list):
        return [_standard(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else _finite(value)
    return value


def unused(name: str, taken: Iterable[str]) -> str:
    """The name, with `_answer` added until it differs from all used names."""
    taken = set(taken)
    while name in taken:
        name += CLASH
    return name


class OutputColumns:
    """One output of a model, and how it is written for the rows of a file.

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
        """The output of one row, without the row axis; a single value is not a list.

        Raises:
            Invalid: the answer lacks this output.
        """
        return self._value(self._array(prediction))

    def values(self, prediction: Prediction, count: int) -> list[object]:
        """The output of each of `count` rows; see `value`.

        Raises:
            Invalid: the answer lacks this output.
        """
        array = self._array(prediction)
        if count == 1:
            return [self._value(array)]
        if self._one_value and array.size == count:
            values: list[object] = plain(array.reshape(count))  # type: ignore[assignment]  # it has one axis
            return values
        return [self._value(array[place : place + 1]) for place in range(count)]

    def texts(self, prediction: Prediction, count: int) -> list[list[str]]:
        """The texts of the columns, each for `count` rows; see `cells`.

        Raises:
            Invalid: the output is missing, or does not have the declared length.
        """
        array = self._array(prediction)
        if self._one_value and array.size == count:
            return [_texts(array.reshape(count))]
        if self._width is not None and array.shape == (count, self._width):
            return [_texts(array[:, place]) for place in range(self._width)]
        if count == 1:
            rows = [self._cells(self._value(array))]
        else:
            rows = [self._cells(self._value(array[place : place + 1])) for place in range(count)]
        return [list(column) for column in zip(*rows, strict=True)]

    def joined(self, prediction: Prediction, count: int, delimiter: str) -> list[str] | None:
        """The text of all columns for each of `count` rows, as CSV has it.

        Returns:
            None where a text may need quotes, or the output does not have a value for each column and row.
        """
        array = prediction.get(self.name)
        if array is None:
            return None
        if self._one_value and array.size == count:
            texts = _texts(array.reshape(count))
            return texts if array.dtype != object or _are_plain(texts, delimiter) else None
        if not self._width or array.shape != (count, self._width) or array.dtype == object:
            return None
        text = _json(array)
        if text:
            return text[2:-2].replace(",", delimiter).split(f"]{delimiter}[")
        columns = [_texts(array[:, place]) for place in range(self._width)]
        return list(map(delimiter.join, zip(*columns, strict=True)))

    def columns(self, taken: Iterable[str]) -> list[str]:
        """The names of the columns, different from all used names."""
        taken = set(taken)
        name = self.name
        while taken.intersection(self._columns(name)):
            name += CLASH
        return self._columns(name)

    def cells(self, prediction: Prediction) -> Sequence[str]:
        """The texts for those columns.

        Raises:
            Invalid: the output is missing, or does not have the declared length.
        """
        return self._cells(self.value(prediction))

    def _array(self, prediction: Prediction) -> Array:
        if self.name not in prediction:
            raise Invalid(f'the answer of version {prediction.version} has no output "{self.name}"')
        return prediction[self.name]

    def _value(self, array: Array) -> object:
        if self._one_value and array.size == 1:
            return plain(array.reshape(1))[0]  # type: ignore[index]  # a list: it has one axis
        return plain(array[0] if self._has_row_axis and len(array) == 1 else array)

    def _cells(self, value: object) -> Sequence[str]:
        if self._width is None:
            return (cell(value),)
        if not isinstance(value, list) or len(value) != self._width:
            raise Invalid(f'output "{self.name}" does not have {self._width} values, as the model declares')
        return [cell(each) for each in value]

    def _columns(self, name: str) -> list[str]:
        return [name] if self._width is None else [f"{name}.{i}" for i in range(self._width)]


def _texts(array: Array) -> list[str]:
    """The text of the cell for each value of a flat array; as `cell` of `plain`, but quicker."""
    kind = array.dtype.kind
    if kind in "iu":
        return list(map(str, array.tolist()))
    text = _json(array)
    if text:
        return text[1:-1].split(",") if len(array) else []
    return [cell(each) for each in plain(array)]  # type: ignore[attr-defined]  # a list: it has one axis


def _json(array: Array) -> str:
    """An array as JSON without spaces; "" where its numbers are not written as `plain` gives them."""
    if array.dtype.str not in ("<f4", "<f8") or not _is_plain(array):
        return ""
    # The shortest decimals, in a tenth of the time that an array's own `astype(str)` takes.
    text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return "" if "e" in text else text  # its exponents begin earlier


def _are_plain(texts: list[str], delimiter: str) -> bool:
    """Whether no text needs quotes in CSV."""
    text = "".join(texts)
    return not any(each in text for each in (delimiter, '"', "\n", "\r", "\0"))


def _is_plain(array: Array) -> bool:
    """Whether all values are finite and written without an exponent, which has several forms."""
    sizes = np.abs(array)
    return bool((((sizes >= _LEAST) | (sizes == 0)) & (sizes < _MOST)).all())


def _text(element: object) -> object:
    return element.decode("utf-8", "backslashreplace") if isinstance(element, bytes) else element


def _finite(value: float) -> object:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
