"""What people write for the inputs of a model: on the command line, in a CSV cell, in a line of JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from penstock.bits import BY_BITS
from penstock.tensors import Array, DataType, Kind
from penstock_client import TensorInfo

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_SHOWN = 40


class Bad(Exception):
    """Something that cannot be used as it is; the text says what, where and why, fit for the user."""


def row_shape(info: TensorInfo) -> tuple[int | str, ...] | None:
    """The shape of one row: without the first axis where that counts rows; None where it is unknown."""
    return info.shape[1:] if info.shape is not None and has_row_axis(info) else info.shape


def has_row_axis(info: TensorInfo) -> bool:
    """Whether the first axis counts rows: it is open, or has length 1."""
    first = info.shape[0] if info.shape else 0
    return isinstance(first, str) or first == 1


def is_one_value(info: TensorInfo) -> bool:
    """Whether a row is a single value."""
    row = row_shape(info)
    return row is not None and all(size == 1 for size in row)


def dumps(value: object) -> str:
    """A value as JSON on one line, readable; what UTF-8 cannot hold is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def shown(value: object) -> str:
    """A value as the user wrote it, cut short, for a message."""
    text = dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Field:
    """One input of a model, and how to read it.

    What is read goes to the client as numbers, texts, lists or arrays; that they fit the signature is
    for the client to check.

    Args:
        info: the input as the server describes it.
    """

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self.name = info.name
        self.is_text = info.datatype == "BYTES"
        self.is_float = DataType[info.datatype].kind in (Kind.FLOAT, Kind.DOUBLE)
        self._row = row_shape(info)
        self._one_value = is_one_value(info)
        self._parse = self._parser()
        self._number = float if self.is_float else int
        self._dtype = DataType[info.datatype].dtype
        self._lowest, self._highest = _bounds(info.datatype)

    @property
    def is_vector(self) -> bool:
        """Whether a row is a list of values, which may stand in columns `x.0`, `x.1` and so on."""
        return self._row is not None and len(self._row) == 1 and not self._one_value

    @property
    def length(self) -> int | None:
        """How many values a vector has; None where that is open."""
        size = self._row[0] if self._row else None
        return size if isinstance(size, int) else None

    def argument(self, text: str) -> object:
        """A value from the command line: itself, a JSON list, or `@` and the name of a file.

        Raises:
            Bad: it cannot be read as the input's datatype.
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
        return self._parse(text)

    def cell(self, text: str) -> object:
        """One row's value from one CSV cell.

        Raises:
            Bad: it cannot be read as the input's datatype, or is not one row.
        """
        if self._one_value or not text.startswith("["):
            return self.one_row(self._parse(text))
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise self.refuse("it is not a JSON list", text) from None
        return self.one_row(self.json(value))

    def cells(self, texts: Sequence[str]) -> object:
        """One row's vector from its CSV cells.

        Raises:
            Bad: a cell cannot be read as the input's datatype.
        """
        return self.one_row([self._parse(text) for text in texts])

    def json(self, value: object) -> object:
        """A value that was JSON; ints become floats where floats are wanted.

        Raises:
            Bad: a text in it does not stand for a value.
        """
        if isinstance(value, list):
            return [self.json(each) for each in value]
        if self.is_float and (
            type(value) is int or (isinstance(value, str) and _NOT_FINITE.fullmatch(value))
        ):
            return self._float(str(value))
        return value

    def one_row(self, value: object) -> object:
        """The value with its first axis, where that counts rows.

        Raises:
            Bad: it is several rows.
        """
        rank = len(self.info.shape or ())
        if not has_row_axis(self.info):
            return value
        depth = _depth(value)
        if depth == 0:
            return self._single(value, rank) if self._one_value else value
        if depth == rank and isinstance(value, list):
            if len(value) != 1:
                raise self.refuse(f"it is {len(value)} rows where one belongs", value)
            return value
        return [value]

    def refuse(self, why: str, came: object) -> Bad:
        """The error for a value of this input."""
        return Bad(f'input "{self.name}": {why}; came {shown(came)}, expected {self.info}')

    def _single(self, value: object, rank: int) -> object:
        """One value with all its axes.

        Ordinary numbers become arrays here, which the client sends without a look: files have many. The
        others it checks, and refuses where that is due.
        """
        if type(value) is self._number and self._lowest <= value <= self._highest:
            return np.array(value, self._dtype, ndmin=rank)
        return _nested(value, rank)

    def _parser(self) -> Callable[[str], object]:
        if self.is_text:
            return str
        if self.is_float:
            return self._float
        return self._bool if self.info.datatype == "BOOL" else self._int

    def _bool(self, text: str) -> bool:
        try:
            return _BOOLS[text.strip().lower()]
        except KeyError:
            raise self.refuse(_empty(text) or "it is neither true nor false", text) from None

    def _int(self, text: str) -> int:
        # Other programs write 2 as 2.0 in a column where a value was missing.
        whole, _, zeros = text.strip().partition(".")
        try:
            if "_" not in whole and not zeros.strip("0"):  # Python takes 1_000, and nobody else
                return int(whole)
        except ValueError:
            pass
        raise self.refuse(_empty(text) or "it is not a whole number", text)

    def _float(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and "_" not in text:
            return value
        if _NOT_FINITE.fullmatch(text.strip()):
            return value
        raise self.refuse(_empty(text) or "it is not a number", text)

    def _file(self, path: Path) -> object:
        try:
            if path.suffix == ".npy":
                return self._rounded(np.load(path, allow_pickle=False))
            if path.suffix == ".json":
                return self.json(json.loads(path.read_text(encoding="utf-8-sig")))
        except OSError as error:
            raise Bad(f'input "{self.name}": {path}: {error.strerror or error}') from None
        except (ValueError, EOFError, RecursionError) as error:
            raise Bad(f'input "{self.name}": {path}: {error}') from None
        raise self.refuse("a file is .npy or .json; a text that starts with @ is written @@", f"@{path}")

    def _rounded(self, array: Array) -> object:
        """Doubles as singles where the model takes these: numpy saves doubles unless told otherwise."""
        if self.info.datatype != "FP32" or array.dtype != np.float64:
            return array
        try:
            with np.errstate(over="raise"):
                return array.astype(np.float32)
        except FloatingPointError:
            raise Bad(f'input "{self.name}": a value is too large for {self.info}') from None


def _bounds(datatype: str) -> tuple[float, float]:
    """The least and the greatest number of a datatype; nothing is between them where there are none."""
    dtype = DataType[datatype].dtype
    if DataType[datatype] in BY_BITS or dtype.kind not in "iuf":
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
