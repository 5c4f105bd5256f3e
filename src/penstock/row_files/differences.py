"""How far the outputs of a model are from those that are expected of it, over many rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from penstock.core.minifloats import BY_BITS, widened
from penstock.core.tensors import Array, DataType, Kind

TOLERANCE = 1e-4
"""The accepted difference where none is given: more than sums in FP32 differ by in another order."""


LISTED = 10
"""So many of the rows that differ are remembered."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest accepted difference of a number.

    A difference is absolute where the expected value is smaller than 1, and relative to it where larger.

    Attributes:
        usual: for all outputs.
        of: for single outputs, by name, instead.
    """

    usual: float = TOLERANCE
    of: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, output: str) -> float:
        return self.of.get(output, self.usual)


class Differences:
    """Counts differences, some rows at a time.

    Args:
        tolerance: the largest accepted difference of numbers. Texts, booleans and whole numbers are labels:
            they have to be equal.

    Attributes:
        rows: the rows that were compared.
        labels: the rows with a label that differs.
        beyond: the rows with a number beyond the tolerance.
        largest: the largest difference of a number; infinite if one is not a number and the other is.
        worst: the row with the largest excess over the tolerance, or else the first row with another label;
            counted from 1, 0 if all agree.
        by_output: the largest difference of each output of numbers.
        wrong: the first rows that differ, counted from 1.
        other_labels: all rows with a label that differs, counted from 1.
        shown: of the worst row, what was expected and what came, by output.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.rows = self.labels = self.beyond = self.worst = 0
        self.largest = 0.0
        self.by_output: dict[str, float] = {}
        self._excess = 1.0
        self._has_labels = False
        self._first_label = 0
        self.wrong: list[int] = []
        self.other_labels: list[int] = []
        self.shown: Mapping[str, tuple[Array, Array]] = {}

    def add(
        self,
        rows: int,
        datatypes: Mapping[str, DataType],
        expected: Mapping[str, Array],
        got: Mapping[str, Array],
    ) -> None:
        """Compares the next rows.

        Args:
            rows: how many.
            datatypes: of the outputs.
            expected: for each output that is compared, the expected values; the first axis counts the rows,
                where there are several.
            got: the outputs of the model; it may be more of them.
        """
        labels, beyond = np.zeros(rows, bool), np.zeros(rows, bool)
        worst = self.worst_row
        for name, wanted in expected.items():
            came, datatype = got[name], datatypes[name]
            if datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
                beyond |= self._numbers(name, rows, _distances(datatype, rows, wanted, came))
            else:
                self._has_labels = True
                labels |= _unequal(rows, wanted, came)
        if labels.any() and not self._first_label:
            self._first_label = self.rows + int(labels.argmax()) + 1
        self.labels += int(labels.sum())
        self.other_labels += (np.flatnonzero(labels) + self.rows + 1).tolist()
        self.beyond += int(beyond.sum())
        if self.worst_row != worst:
            place = self.worst_row - self.rows - 1
            self.shown = {
                name: (_row(wanted, rows, place), _row(got[name], rows, place))
                for name, wanted in expected.items()
            }
        if len(self.wrong) < LISTED:
            self.wrong += (np.flatnonzero(labels | beyond) + self.rows + 1).tolist()[
                : LISTED - len(self.wrong)
            ]
        self.rows += rows

    def _numbers(self, name: str, rows: int, distances: Array) -> Array:
        """Which of these rows are beyond the tolerance of an output."""
        largest = float(distances.max(initial=0.0))
        self.by_output[name] = max(self.by_output.get(name, 0.0), largest)
        self.largest = max(self.largest, largest)
        accepted = self.tolerance[name]
        excess = largest / accepted if accepted else math.inf if largest else 0.0
        if excess > self._excess:
            self._excess, self.worst = excess, self.rows + int(distances.argmax()) + 1
        beyond: Array = distances > accepted
        return beyond

    @property
    def are_accepted(self) -> bool:
        """Whether every row agrees within the tolerance."""
        return not self.labels and not self.beyond

    @property
    def worst_row(self) -> int:
        """The row to look at first, counted from 1; 0 if all agree."""
        return self.worst or self._first_label

    def __str__(self) -> str:
        parts = []
        if self._has_labels:
            parts.append("1 label differs" if self.labels == 1 else f"{self.labels or 'no'} labels differ")
        if self.by_output:
            if self.beyond:
                parts.append(f"{self.beyond:,} beyond the tolerance of {self._named_tolerance()}")
            parts.append(f"largest {self.largest:.2g}")
        if self.worst_row:
            parts.append(f"worst row {self.worst_row}")
        return f"{self.rows:,} row{'s' * (self.rows != 1)}: {', '.join(parts)}"

    def _named_tolerance(self) -> str:
        accepted = {self.tolerance[name] for name in self.by_output}
        if len(accepted) == 1:
            return f"{accepted.pop():.2g}"
        return ", ".join(f"{self.tolerance[name]:.2g} ({name})" for name in self.by_output)


def _row(array: Array, rows: int, place: int) -> Array:
    """One row of an array that has several, or the array itself."""
    one: Array = array[place, ...] if array.ndim and len(array) == rows else array  # a text is an array, too
    return one


def _distances(datatype: DataType, rows: int, expected: Array, came: Array) -> Array:
    """The largest difference in each row; infinite where one is not a number and the other is."""
    if expected.shape != came.shape:
        return np.full(rows, math.inf)
    first, second = (_wide(datatype, each).reshape(rows, -1) for each in (expected, came))
    with np.errstate(invalid="ignore"):
        difference = np.abs(first - second) / np.maximum(1.0, np.abs(first))
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), math.inf, difference))
    largest: Array = difference.max(axis=1, initial=0.0)
    return largest


def _wide(datatype: DataType, array: Array) -> Array:
    is_bits = datatype in BY_BITS and array.dtype.kind == "u"
    return (widened(datatype, array) if is_bits else array).astype(np.float64)


def _unequal(rows: int, expected: Array, came: Array) -> Array:
    if expected.shape != came.shape:
        return np.ones(rows, bool)
    unequal: Array = (expected != came).reshape(rows, -1).any(axis=1)
    return unequal
