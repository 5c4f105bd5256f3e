"""What is known of a tensor: how its content depends on the rows of a batch, its shape, its small integers.

Notation: a graph is run on N rows. A tensor *has rows* along an axis if it is the tensors that each row alone
would give, one after another along that axis. An axis may hold several entries a row: `outer * N * inner`
entries, of which entry (o, n, i) belongs to row n. So the reshape [N, T, D] -> [N*T, D] has rows on axis 0
with `inner` T, and [T, N, D] -> [T*N, D] has rows on axis 0 with `outer` T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from penstock.models.analysis.expressions import ROWS, Dim, counts, opaque

Data: TypeAlias = "np.ndarray[Any, np.dtype[np.object_]]"
MOST_ELEMENTS = 4096
"""The most elements of a tensor whose values are followed."""
LARGEST = 1 << 62


class Kind(Enum):
    """How the content of a tensor depends on the batch."""

    SAME = "the same whatever the rows and however many"
    ROWS = "rows along an axis, each from its own row only"
    COUNT = "known numbers that depend on the number of rows"
    MIXED = "depends on several rows, or on the place of a row"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor, as far as it is known.

    Attributes:
        kind: how it depends on the batch.
        dims: its shape; None if its rank is not known. Only tensors of the first three kinds have one.
        axis: the axis of the rows; -1 without rows.
        outer: how many blocks of all rows the axis has, one after another.
        inner: how many neighbouring entries of the axis belong to one row.
        filler: whether all entries along the axis are equal, so that any layout fits.
        numbers: whether its elements are the numbers of their rows, from 0; then it is not row-wise.
        data: its elements (numbers, truth values, formulas), if they are few and known.
        real: whether `data` stands for floating-point numbers.
        asked: whether it depends on the values of an input that is the same for the whole batch.
        source: the graph's input whose integers these are; "" for others.
        why: what is said of a mixed or unknown tensor.
    """

    kind: Kind
    dims: tuple[Dim, ...] | None = None
    axis: int = -1
    outer: Dim = 1
    inner: Dim = 1
    filler: bool = False
    numbers: bool = False
    data: Data | None = None
    real: bool = False
    asked: bool = False
    source: str = ""
    why: str = ""

    @property
    def has_rows(self) -> bool:
        """Whether it has rows along an axis."""
        return self.kind is Kind.ROWS

    @property
    def whole_rows(self) -> bool:
        """Whether an entry of its axis is a row."""
        return self.has_rows and self.outer == 1 and self.inner == 1

    @property
    def layout(self) -> tuple[Dim, Dim]:
        """How the entries of its axis belong to rows."""
        return self.outer, self.inner


def same(
    dims: tuple[Dim, ...] | list[Dim] | None = None, data: Data | None = None, *, real: bool = False
) -> Value:
    """A tensor that does not depend on the batch."""
    return Value(Kind.SAME, None if dims is None else tuple(dims), data=data, real=real)


def rows(
    dims: tuple[Dim, ...] | list[Dim], axis: int, outer: Dim = 1, inner: Dim = 1, *, filler: bool = False
) -> Value:
    """A tensor with rows; the length of the axis is set here."""
    found = list(dims)
    found[axis] = outer * ROWS * inner
    return Value(Kind.ROWS, tuple(found), axis, outer, inner, filler)


def like(value: Value, dims: tuple[Dim, ...] | list[Dim], axis: int) -> Value:
    """A tensor with rows laid out as in another one, on an axis of other dims."""
    return rows(dims, axis, value.outer, value.inner)


def mixed(why: str) -> Value:
    """A tensor that depends on several rows."""
    return Value(Kind.MIXED, why=why)


def unknown(why: str) -> Value:
    """A tensor of which nothing is known."""
    return Value(Kind.UNKNOWN, why=why)


def known(data: Data, *, real: bool = False) -> Value | None:
    """A tensor of known elements; None if they are too many or too large."""
    if data.size > MOST_ELEMENTS:
        return None
    elements = data.ravel().tolist()
    if any(isinstance(each, int) and abs(each) > LARGEST for each in elements):
        return None
    kind = Kind.COUNT if any(counts(each) for each in elements) else Kind.SAME
    return Value(kind, tuple(data.shape), data=data, real=real)


def joined(one: Value, other: Value, name: str, place: int) -> Value:
    """What is true of both of two tensors: of the branches of an If, of the rounds of a Loop.

    Args:
        one: a tensor.
        other: another one.
        name: of the node.
        place: which of its outputs or states this is; lengths that differ are called after both.
    """
    for kind in (Kind.MIXED, Kind.UNKNOWN):
        for each in (one, other):
            if each.kind is kind:
                return each
    if one.kind is not other.kind:
        return unknown(f"{name} gives rows in one case only")
    dims = _joined_dims(one, other, f"{name}:{place}")
    data = one.data if _equal_data(one.data, other.data) else None
    asked = one.asked or other.asked
    if one.kind is Kind.COUNT and data is None:
        return unknown(f"{name} depends on the number of rows")
    if one.has_rows:
        if (
            dims is None
            or one.axis != other.axis
            or one.layout != other.layout
            or one.numbers != other.numbers
        ):
            return unknown(f"{name} gives rows elsewhere in another case")
        found = rows(dims, one.axis, one.outer, one.inner, filler=one.filler and other.filler)
        return replace(found, numbers=one.numbers, source=one.source if one.source == other.source else "")
    return replace(one, dims=dims, data=data, asked=asked, source="")


def _joined_dims(one: Value, other: Value, name: str) -> tuple[Dim, ...] | None:
    if one.dims is None or other.dims is None or len(one.dims) != len(other.dims):
        return None
    return tuple(
        a if a == b else opaque(f"{name}:{place}", natural=True)
        for place, (a, b) in enumerate(zip(one.dims, other.dims, strict=True))
    )


def _equal_data(one: Data | None, other: Data | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(one.ravel().tolist() == other.ravel().tolist())


def is_one(value: Value) -> bool:
    """Whether a tensor certainly has exactly one element."""
    return value.dims is not None and all(dim == 1 for dim in value.dims)


def only_data(value: Value) -> list[Any] | None:
    """The known elements of a tensor, in order."""
    return None if value.data is None else value.data.ravel().tolist()
