"""What a loaded variant answers, how far that is from the original's answers, and how long its runs take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.backends.backend import Backend
from penstock.core.tensors import Array, Kind, TensorSpec
from penstock.models.checks.closeness import as_float64
from penstock.row_files.fields import has_row_axis

SIZES = (1, 8, 32)
"""How many rows are timed together."""
ROUNDS = 5
ROUND_SECONDS, ROUND_RUNS = 0.1, 200
"""A round ends after this time, or after this number of runs."""
FLOATS = (Kind.FLOAT, Kind.DOUBLE)

Answers = Sequence[Sequence[Array]]
"""The outputs of each row, in the order of the signature."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from the original's.

    Attributes:
        output: its name.
        size: of floating-point outputs the largest difference of a value, relative to the largest value that
            the original's output has in the sample; of others the share of rows that differ.
        row: the row with the largest difference, from 1; 0 if there is none.
        same_top: the share of rows whose largest value stands at the same place, or, of outputs that are no
            floating-point numbers, that are equal. None for an output with one number a row.
    """

    output: str
    size: float
    row: int
    same_top: float | None


def answers(backend: Backend, requests: Sequence[Mapping[str, Array]]) -> Answers:
    """What the model answers to each row alone.

    Raises:
        ModelFailed: it fails on a row.
    """
    names = list(backend.signature.outputs)
    return [[np.array(array) for array in backend.run(names, request)] for request in requests]


def differences(specs: Sequence[TensorSpec], original: Answers, variant: Answers) -> Sequence[Difference]:
    """How far each output of the variant is from the original's, over all rows."""
    return [
        _difference(spec, [row[place] for row in original], [row[place] for row in variant])
        for place, spec in enumerate(specs)
    ]


def _difference(spec: TensorSpec, original: Sequence[Array], variant: Sequence[Array]) -> Difference:
    if spec.datatype.kind not in FLOATS:
        wrong = [i for i, pair in enumerate(zip(original, variant, strict=True), 1) if not _equal(*pair)]
        share = len(wrong) / len(original)
        return Difference(spec.name, share, wrong[0] if wrong else 0, 1 - share)
    first, second = ([as_float64(spec.datatype, each) for each in rows] for rows in (original, variant))
    scale = max(float(np.abs(each[np.isfinite(each)]).max(initial=0.0)) for each in first)
    sizes = [_distance(a, b, scale) for a, b in zip(first, second, strict=True)]
    worst = int(np.argmax(sizes))
    return Difference(spec.name, sizes[worst], worst + 1 if sizes[worst] else 0, _same_top(first, second))


def _equal(first: Array, second: Array) -> bool:
    return first.shape == second.shape and bool(np.array_equal(first, second))


def _distance(first: Array, second: Array, scale: float) -> float:
    """The largest difference of two arrays of numbers; infinite where only one of them is finite."""
    if first.shape != second.shape:
        return float("inf")
    finite = np.isfinite(first)
    same = np.array_equal(finite, np.isfinite(second))
    if not same or not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return float("inf")
    largest = float(np.abs(first[finite] - second[finite]).max(initial=0.0))
    return largest / scale if largest else 0.0


def _same_top(first: Sequence[Array], second: Sequence[Array]) -> float | None:
    if any(a.shape != b.shape or a.shape[-1] < 2 for a, b in zip(first, second, strict=True)):
        return None
    same = [np.argmax(a, -1) == np.argmax(b, -1) for a, b in zip(first, second, strict=True)]
    return float(np.mean([each.mean() for each in same]))


class Timed:
    """A model that is timed on the rows of the sample.

    Args:
        backend: the model.
        requests: the rows; those of the most frequent shape are timed.
        together: whether the server runs its rows together. If not, N rows are N runs.
    """

    def __init__(self, backend: Backend, requests: Sequence[Mapping[str, Array]], together: bool) -> None:
        self._names = list(backend.signature.outputs)
        self._run = backend.run
        shapes = [tuple((name, each[name].shape) for name in sorted(each)) for each in requests]
        usual = max(shapes, key=shapes.count)
        self._rows = [each for each, shape in zip(requests, shapes, strict=True) if shape == usual]
        self._inputs = backend.signature.inputs
        self._together = together

    def runs(self, rows: int) -> Callable[[], None]:
        """A function that answers that many rows as the server would."""
        chosen = [self._rows[i % len(self._rows)] for i in range(rows)]
        if self._together:
            chosen = [_stacked(self._inputs, chosen)]

        def run() -> None:
            for each in chosen:
                self._run(self._names, each)

        return run


def _stacked(inputs: Mapping[str, TensorSpec], rows: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    return {
        name: np.concatenate([row[name] for row in rows]) if has_row_axis(spec) else rows[0][name]
        for name, spec in inputs.items()
    }


def seconds(timed: Mapping[str, Timed]) -> Mapping[str, Sequence[float]]:
    """How long the rows of `SIZES` take each model: the shortest run of several rounds that take turns.

    Args:
        timed: the models by name.
    """
    found: dict[str, list[float]] = {name: [] for name in timed}
    for rows in SIZES:
        runs = {name: each.runs(rows) for name, each in timed.items()}
        best = {name: float("inf") for name in timed}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                best[name] = min(best[name], _round(run))
        for name, value in best.items():
            found[name].append(value)
    return found


def _round(run: Callable[[], None]) -> float:
    """The shortest run of one round: what else the machine does only makes runs longer."""
    run()
    shortest = float("inf")
    end = time.perf_counter() + ROUND_SECONDS
    for _ in range(ROUND_RUNS):
        begin = time.perf_counter()
        run()
        now = time.perf_counter()
        shortest = min(shortest, now - begin)
        if now > end:
            break
    return shortest
