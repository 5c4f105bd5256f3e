"""What a variant does to the golden rows of its model, and the golden rows that it gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import ModelLoadError
from penstock.models.golden_rows import Runnable, compare, golden_of, verify
from penstock.row_files.differences import Differences, Tolerance
from penstock.row_files.fields import Invalid
from penstock.row_files.golden import FILE, rewritten

DIGITS = 2
"""Significant digits of a tolerance."""


@dataclass(frozen=True, slots=True)
class GoldenFound:
    """How a variant answers golden rows.

    Attributes:
        rows: how many there are.
        largest: the largest difference of each output of numbers, as golden rows measure it.
        other_labels: the rows with another label, counted from 1: the variant's file has them no more.
        tolerance: that of each output of numbers in the variant's file.
        refused: why the variant may not take the original's place; "" if it may.
    """

    rows: int
    largest: Mapping[str, float]
    other_labels: Sequence[int]
    tolerance: Mapping[str, float]
    refused: str

    def __str__(self) -> str:
        parts = []
        if self.tolerance:
            shown = {f"{each:g}" for each in self.tolerance.values()}
            named = [f"{each:g} ({name})" for name, each in self.tolerance.items()]
            parts.append(f"tolerance {shown.pop() if len(shown) == 1 else ', '.join(named)}")
        count = len(self.other_labels)
        if count:
            have = "row has another label and is" if count == 1 else "rows have another label and are"
            parts.append(f"{count} {have} left out")
        rows = f"{self.rows:,} golden row{'s' * (self.rows != 1)}"
        return f"{rows}: {', '.join(parts) or 'no labels differ'}"


def check_original(model: Runnable, folder: Path) -> None:
    """Checks that the original itself has the answers that its golden rows expect.

    Raises:
        ModelLoadError: it misses them, or they cannot be read.
    """
    try:
        verify(model, folder, math.inf)
    except ModelLoadError as error:
        raise ModelLoadError(f"{folder}: {error}") from None


def compared(model: Runnable, folder: Path, limit: float, target: Path) -> GoldenFound | None:
    """Runs a variant on the golden rows of the original, and writes those that the variant gets.

    What a variant loses is added to the tolerance. Rows with another label are left out, since labels have
    to be equal.

    Args:
        model: the variant, as the server would run it.
        folder: of the original version.
        limit: the largest accepted difference of a number, and share of rows with another label.
        target: the folder of the variant.

    Returns:
        What was found; None if the original has no golden rows.

    Raises:
        ModelLoadError: the variant fails on a row.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            golden = golden_of(model, file)
            accepted = golden.tolerance
            differences, _ = compare(model, golden, _at_least(accepted, limit))
    except Invalid as error:
        raise ModelLoadError(f"{FILE}: {error.without_value}") from None
    tolerance = {name: _tolerance(each, accepted[name]) for name, each in differences.by_output.items()}
    other = differences.other_labels
    found = GoldenFound(
        differences.rows, differences.by_output, other, tolerance, _why_refused(differences, limit)
    )
    if found.refused:
        return found
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = rewritten(file, tolerance, frozenset(other))
        with (target / FILE).open("w", encoding="utf-8", newline="") as written:
            written.writelines(lines)
    verify(model, target, math.inf)  # where rows were left out, the batches are others
    return found


def _at_least(accepted: Tolerance, limit: float) -> Tolerance:
    return Tolerance(
        max(accepted.usual, limit), {name: max(each, limit) for name, each in accepted.of.items()}
    )


def _why_refused(differences: Differences, limit: float) -> str:
    """Why what was found is too much; "" if it is not."""
    largest, other = differences.by_output, len(differences.other_labels)
    if differences.beyond:
        name = max(largest, key=lambda each: largest[each] / (differences.tolerance[each] or 1e-300))
        size, accepted = largest[name], differences.tolerance[name]
        return f"golden rows: {name} differs by {size:.2g} in row {differences.worst}, more than {accepted:g}"
    if other > limit * differences.rows:
        return f"golden rows: {other} of {differences.rows} have another label, more than {limit:.1%}"
    if other == differences.rows:
        return "golden rows: all have another label"
    return ""


def _tolerance(difference: float, accepted: float) -> float:
    """The old tolerance where that is enough; else the sum, for what other machines round differently."""
    if difference <= accepted:
        return accepted
    exact = difference + accepted
    if not math.isfinite(exact):
        return exact
    step = math.floor(math.log10(exact)) - DIGITS + 1
    return float(f"{math.ceil(exact / 10.0**step)}e{step}")
