"""Reads the inputs of a model: from the command line, a CSV cell, or a line of JSON."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from penstock.core.minifloats import BY_BITS
from penstock.core.tensors import Array, DataType, Kind

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
TRUTH = {"True": 1, "true": 1, "TRUE": 1, "False": 0, "false": 0, "FALSE": 0}
"""What tables and spreadsheets have in the cells of a column of booleans, as numbers."""
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
MISSING = frozenset({"", "na", "<na>", "n/a", "nan", "nat", "none", "null"})
"""What tables have in the cell of a missing value, in lower case."""
_SHOWN = 40
EXACT = 2.0**53
"""FP64 has every whole number up to this one."""
_EXACT_DIGITS = sys.float_info.dig + 1
_WHOLE = re.compile(r"[+-]?[0-9]+")


class Invalid(Exception):
    """A value, a file or a flag that cannot be used; the text tells the user what, where and why.

    Args:
        text: that text.
        without_value: the same without the value that came, for those who may not see it.
    """

    def __init__(self, text: str, without_value: str = "") -> None:
        super().__init__(text)
        self.without_value = without_value or text


class Described(Protocol):
    """An input or output as the server or its client describes it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def datatype(self) -> object:
        """The Open Inference name of its datatype, or an object with that name as its text."""

    @property
    def shape(self) -> tuple[int | str, ...] | None:
        """As `penstock.core.tensors.TensorSpec` has it."""

    @property
    def row_axis(self) -> int:
        """As `penstock.core.tensors.TensorSpec` has it."""

    @property
    def missing_text(self) -> str | None:
        """As `penstock.core.tensors.TensorSpec` has it."""


def row_shape(info: Described) -> tuple[int | str, ...] | None:
    """The shape of one row: without the first axis if that counts rows; None if it is unknown."""
    return info.shape[1:] if info.shape is not None and has_row_axis(info) else info.shape


def has_row_axis(info: Described) -> bool:
    """Whether the first axis counts rows: it is open, or has length 1, and the rows are not elsewhere."""
    if info.row_axis:
        return False
    first = info.shape[0] if info.shape else 0
    return isinstance(first, str) or first == 1


def is_one_value(info: Described) -> bool:
    """Whether a row is a single value."""
    row = row_shape(info)
    return row is not None and all(size == 1 for size in row)


def dumps(value: object) -> str:
    """A value as readable JSON on one line; characters that UTF-8 cannot encode are escaped."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_plain)
    return text


def _plain(value: object) -> object:
    """What JSON has in place of a date, a time or bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def inexact(text: str) -> int | None:
    """The whole number that a text has and FP64 does not, such as an id; None for any other text."""
    if len(text) < _EXACT_DIGITS or not _WHOLE.fullmatch(text := text.strip()):
        return None
    digits = text.lstrip("+-0")
    if not _EXACT_DIGITS <= len(digits) <= sys.float_info.max_10_exp:
        return None
    whole = -int(digits) if text.startswith("-") else int(digits)
    return None if whole == float(text) else whole


def shown(value: object) -> str:
    """A value as the user wrote it, shortened, for a message."""
    text = dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Field:
    """One input of a model, and how to read it.

    The values go to the client as numbers, texts, lists or arrays. The client checks that they fit the
    signature.

    Args:
        info: the input, as the server or its client describes it.
    """

    def __init__(self, info: Described) -> None:
        self.info = info
        self.name = info.name
        self.datatype = datatype = DataType[str(info.datatype)]
        self.is_text = datatype is DataType.BYTES
        self.is_float = datatype.kind in (Kind.FLOAT, Kind.DOUBLE)
        self._missing_text = info.missing_text if self.is_text else None
        self._row = row_shape(info)
        self.is_one_value = is_one_value(info)
        self._parse = self._parser()
        self._number = float if self.is_float else int
        self._dtype = datatype.dtype
        self._lowest, self._highest = _bounds(datatype)

    @property
    def is_vector(self) -> bool:
        """Whether a row is a list of values, which may be in columns `x.0`, `x.1` and so on."""
        return self._row is not None and len(self._row) == 1 and not self.is_one_value

    @property
    def length(self) -> int | None:
        """The number of values of a vector; None if it is open."""
        size = self._row[0] if self._row else None
        return size if isinstance(size, int) else None

    def argument(self, text: str) -> object:
        """A value from the command line: itself, a JSON list, or `@` and the name of a file.

        Raises:
            Invalid: it cannot be read as the input's datatype.
        """
        if text.startswith("@@"):
            return self._parse(text[1:])
        if text.startswith("@"):
            return self._file(Path(text[1:]))
        if text.startswith("["):
            try:
                return self.json(json.loads(text))
            except (ValueError, RecursionError):
                if not self.is_text:
                    raise self.refuse("it is not a JSON list", text) from None
        if text == "null" and not self.is_text:
            return self.parse_cell(text)
        return self._parse(text)

    def cell(self, text: str) -> object:
        """One row's value from one CSV cell; an empty cell of a floating-point input is NaN.

        Raises:
            Invalid: it cannot be read as the input's datatype, or is not one row.
        """
        if self.is_one_value or not text.startswith("["):
            return self.one_row(self.parse_cell(text))
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise self.refuse("it is not a JSON list", text) from None
        return self.one_row(self.json(value))

    def cells(self, texts: Sequence[str]) -> object:
        """One row's vector from its CSV cells.

        Raises:
            Invalid: a cell cannot be read as the input's datatype.
        """
        return self.one_row([self.parse_cell(text) for text in texts])

    def parse_cell(self, text: str) -> object:
        """A single value from a CSV cell.

        Raises:
            Invalid: it cannot be read as the input's datatype, or it is missing and the datatype has no NaN.
        """
        try:
            return self._parse(text)
        except Invalid:
            if text.strip().lower() not in MISSING:
                raise
        if self.is_float:
            return math.nan
        why = "its value is missing" if text.strip() else "it is empty"
        name = self.datatype.name
        raise self.refuse(f"{why}, and {name} has no missing values: fill them in first", text)

    def json(self, value: object) -> object:
        """A value from JSON; ints become floats, and null NaN, if the input needs floats.

        For texts, null becomes what the model takes for a missing one, if it says so.

        Raises:
            Invalid: a text in it is not a value of the datatype, or its lists are nested too deeply.
        """
        if isinstance(value, list):
            try:
                return self._list(value)
            except RecursionError:
                why = f'input "{self.name}": its lists are nested too deeply; expected {self.info}'
                raise Invalid(why) from None
        return self._element(value)

    def _list(self, values: list[object]) -> object:
        return [self._list(each) if isinstance(each, list) else self._element(each) for each in values]

    def _element(self, value: object) -> object:
        if self.is_float and (
            type(value) is int or (isinstance(value, str) and _NOT_FINITE.fullmatch(value))
        ):
            return self._float(str(value))
        if value is None:
            return math.nan if self.is_float else self._missing_text
        return value

    def one_row(self, value: object) -> object:
        """The value with its first axis, if that counts rows.

        Raises:
            Invalid: it has several rows.
        """
        rank = len(self.info.shape or ())
        if not has_row_axis(self.info):
            return value
        depth = _depth(value)
        if depth == 0:
            return self._single(value, rank) if self.is_one_value else value
        if depth == rank and isinstance(value, list):
            if len(value) != 1:
                raise self.refuse(f"it has {len(value)} rows, expected one", value)
            return value
        return [value]

    def refuse(self, why: str, came: object) -> Invalid:
        """The error for a value of this input."""
        place = f'input "{self.name}": {why}'
        wanted = f"expected {self.info}"
        return Invalid(f"{place}; got {shown(came)}, {wanted}", f"{place}; {wanted}")

    def _single(self, value: object, rank: int) -> object:
        """One value with all its axes.

        Ordinary numbers become arrays here, which the client sends without a check, since files have many of
        them. The client checks all other values, and rejects those that do not fit.
        """
        if type(value) is self._number and self._lowest <= value <= self._highest:
            return np.array(value, self._dtype, ndmin=rank)
        return _nested(value, rank)

    def _parser(self) -> Callable[[str], object]:
        if self.is_text:
            return str
        if self.is_float:
            return self._float
        return self._bool if self.datatype is DataType.BOOL else self._int

    def _bool(self, text: str) -> bool:
        try:
            return _BOOLS[text.strip().lower()]
        except KeyError:
            raise self.refuse(_empty(text) or "it is neither true nor false", text) from None

    def _int(self, text: str) -> int:
        if (text := text.strip()) in TRUTH:
            return TRUTH[text]
        # Some programs write 2 as 2.0 in a column with missing values.
        whole, _, zeros = text.partition(".")
        try:
            if "_" not in whole and not zeros.strip("0"):  # 1_000 is valid in Python only
                return int(whole)
        except ValueError:
            pass
        raise self.refuse(_empty(text) or "it is not a whole number", text)

    def _float(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float(TRUTH.get(text.strip(), math.nan))
        if math.isfinite(value) and "_" not in text:
            if self.datatype is DataType.FP64 and inexact(text) is not None:
                raise self.refuse(f"FP64 does not have this whole number, only {value:.0f} near it", text)
            return value
        if _NOT_FINITE.fullmatch(text.strip()):
            return value
        why = "it is not a number" if text.strip() else "it is empty; a missing number is NaN"
        raise self.refuse(why, text)

    def _file(self, path: Path) -> object:
        try:
            if path.suffix == ".npy":
                return self._rounded(np.load(path, allow_pickle=False))
            if path.suffix == ".json":
                return self.json(json.loads(path.read_text(encoding="utf-8-sig")))
        except OSError as error:
            raise Invalid(f'input "{self.name}": {path}: {error.strerror or error}') from None
        except (ValueError, EOFError, RecursionError) as error:
            raise Invalid(f'input "{self.name}": {path}: {error}') from None
        raise self.refuse("a file is .npy or .json; a text that starts with @ is written @@", f"@{path}")

    def _rounded(self, array: Array) -> object:
        """Converts FP64 to FP32 if the model needs that: numpy saves FP64 by default."""
        if self.datatype is not DataType.FP32 or array.dtype != np.float64:
            return array
        try:
            with np.errstate(over="raise"):
                return array.astype(np.float32)
        except FloatingPointError:
            raise Invalid(f'input "{self.name}": a value is too large for {self.info}') from None


def _bounds(datatype: DataType) -> tuple[float, float]:
    """The least and the greatest number of a datatype; the other way round if it has no ordinary numbers."""
    dtype = datatype.dtype
    if datatype in BY_BITS or dtype.kind not in "iuf":
        return math.inf, -math.inf
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _depth(value: object) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def _empty(text: str) -> str:
    return "" if text.strip() else "it is empty"
