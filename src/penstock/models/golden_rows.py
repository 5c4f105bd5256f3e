"""Verifies a loaded model against its golden rows, before it is ready."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

import numpy as np

from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array, Signature
from penstock.models.opened import Opened
from penstock.models.padded_inputs import unpadded
from penstock.models.sequence import scalars_of
from penstock.row_files.differences import Differences, Tolerance
from penstock.row_files.fields import Invalid
from penstock.row_files.golden import FILE, Golden, GoldenRow
from penstock.scheduling.packing.padding import PaddingPlan

MOST_SECONDS = 10.0
"""After this time further rows are not verified: a server should start within bounded time."""

CHUNK = 64
"""Most rows of one run."""

LOOKED_AT = 100
"""The rows in which one without missing values is looked for."""

MISSING_TEXT = ""
"""What `penstock import` has clients send for a missing text."""


class Run(Protocol):
    """Runs a model; see `Backend.run`."""

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array], /) -> Sequence[Array]:
        """The outputs, in the order asked for."""


class Runnable(NamedTuple):
    """What is known of a model that is verified.

    Attributes:
        run: runs it.
        signature: its inputs and outputs.
        max_rows: the most rows of a run; 1 to run each row alone.
        padding: how its requests are padded; None if they are not.
        has_state: whether it keeps a state, so that rows are no requests of their own.
    """

    run: Run
    signature: Signature
    max_rows: int = 1
    padding: PaddingPlan | None = None
    has_state: bool = False


def as_served(opened: Opened, max_rows: int) -> Runnable:
    """A model as the server runs it.

    Args:
        opened: the model.
        max_rows: the most rows of a batch; 1 if its rows run alone.
    """
    # Rows along other axes, and beside values that a whole batch shares, run one by one.
    alone = opened.axes.moved or scalars_of(opened.backend.signature)
    return Runnable(
        opened.backend.run,
        opened.declared,
        1 if alone else max_rows,
        opened.padding,
        opened.sequence_state is not None,
    )


def verify(model: Runnable, folder: Path, most_seconds: float = MOST_SECONDS) -> str:
    """Compares a model's outputs with those that its golden rows expect.

    Args:
        model: the model.
        folder: that of the version.
        most_seconds: after this time, no further rows are read.

    Returns:
        What was found, as a sentence; "" if the folder has no golden rows.

    Raises:
        ModelLoadError: the model misses them, or the file cannot be used.
    """
    if not os.path.isfile(f"{folder}/{FILE}"):
        return ""
    path = folder / FILE
    if model.has_state:
        raise ModelLoadError(
            f"{FILE}: a model that keeps a state cannot be verified by rows; remove the file"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            golden = golden_of(model, file)
            end = time.monotonic() + most_seconds
            differences, is_whole = compare(model, golden, golden.tolerance, end)
    except Invalid as error:
        raise ModelLoadError(f"{FILE}: {error.without_value}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{FILE}: {error}") from None
    said = (
        str(differences) if is_whole else f"{differences} (the first rows: more took over {most_seconds:g} s)"
    )
    if not differences.are_accepted:
        raise ModelLoadError(f"it misses its golden rows: {said}")
    return said


def first_row(model: Runnable, folder: Path) -> Mapping[str, Array]:
    """The inputs of a golden row, to show how the model is called.

    Args:
        model: the model, which the golden rows were verified with.
        folder: that of the version.

    Returns:
        By name, each with the axis of rows: the first row in which no value is missing (NaN, or the empty
        text), or else the first; empty if the folder has no golden rows that can be read.
    """
    if not os.path.isfile(f"{folder}/{FILE}"):
        return {}
    path = folder / FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [each.inputs for each in itertools.islice(golden_of(model, file), LOOKED_AT)]
    except (Invalid, OSError, UnicodeDecodeError):  # it was changed since it was verified
        return {}
    return next(filter(_is_whole, rows), rows[0])


def _is_whole(inputs: Mapping[str, Array]) -> bool:
    """Whether no value is missing."""
    numbers = (each for each in inputs.values() if each.dtype.kind == "f")
    texts = (each for each in inputs.values() if each.dtype.kind == "O")
    return not any(np.isnan(each).any() for each in numbers) and not any(
        MISSING_TEXT in each.ravel().tolist() for each in texts
    )


def golden_of(model: Runnable, file: TextIO) -> Golden:
    """The golden rows in a file, as the inputs and outputs of a model.

    Raises:
        Invalid: they cannot be.
    """
    optional = model.padding.optional if model.padding else model.signature.defaults
    specs = {**model.signature.inputs, **model.signature.defaults}
    return Golden(file, specs, model.signature.outputs, optional)


def compare(
    model: Runnable, rows: Iterable[GoldenRow], tolerance: Tolerance, end: float = float("inf")
) -> tuple[Differences, bool]:
    """Runs a model on rows and compares its outputs.

    Args:
        model: the model.
        rows: what is sent, and what is expected.
        tolerance: the differences that are accepted.
        end: the time, of `time.monotonic`, after which no more rows are run.

    Returns:
        The differences, and whether all rows were run.

    Raises:
        Invalid: a row cannot be read, or the model fails on it.
    """
    differences = Differences(tolerance)
    datatypes = {name: spec.datatype for name, spec in model.signature.outputs.items()}
    for chunk in _chunks(rows, 1 if model.padding else min(model.max_rows, CHUNK)):
        names = tuple(chunk[0].outputs)
        got = _run(model, names, chunk, differences.rows)
        differences.add(len(chunk), datatypes, _joined([each.outputs for each in chunk]), got)
        if time.monotonic() > end:
            return differences, False
    return differences, True


def _chunks(rows: Iterable[GoldenRow], most: int) -> Iterator[list[GoldenRow]]:
    """Rows that may run together, in their order."""
    chunk: list[GoldenRow] = []
    for row in rows:
        if chunk and (len(chunk) >= most or _shapes(row) != _shapes(chunk[0])):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _shapes(row: GoldenRow) -> object:
    return [{name: array.shape for name, array in each.items()} for each in row]


def _joined(arrays: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    if len(arrays) == 1:
        return arrays[0]
    return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}


def _run(
    model: Runnable, names: Sequence[str], chunk: Sequence[GoldenRow], before: int
) -> Mapping[str, Array]:
    inputs = _joined([each.inputs for each in chunk])
    if model.padding is not None:
        absent = [name for name in model.padding.optional if name not in inputs]
        if absent:
            raise Invalid(f"the rows of a padded model need all inputs; {', '.join(absent)} is missing")
        inputs = unpadded(inputs, model.padding)
    try:
        return dict(zip(names, model.run(names, inputs), strict=True))
    except ModelFailed as error:
        rows = f"row {before + 1}" if len(chunk) == 1 else f"rows {before + 1} to {before + len(chunk)}"
        raise Invalid(f"{rows}: {error}", f"{rows}: the model failed") from None
