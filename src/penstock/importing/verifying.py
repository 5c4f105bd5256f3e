"""Compares the original with the ONNX file, row by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.names import many
from penstock.core.tensors import DataType
from penstock.importing.errors import Refused
from penstock.importing.hard_rows import hard_rows
from penstock.importing.original import HardRows, Original
from penstock.importing.table import Inputs
from penstock.importing.trees_sklearn import NotCarried
from penstock.row_files.differences import Differences, Tolerance


class Rows(NamedTuple):
    """Rows that were compared.

    Attributes:
        inputs: as they were sent, by input.
        outputs: what the original gave, by output.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Verified(NamedTuple):
    """What was compared.

    Attributes:
        sample: over the rows of the sample.
        hard: over the rows made to be hard; None if the original took none.
        rows: those of both, to be kept.
        tolerance: what was accepted.
        not_compared: what the original refuses, with its error.
        ties: the rows with two classes that are equally probable.
    """

    sample: Differences
    hard: Differences | None
    rows: Sequence[Rows]
    tolerance: Tolerance
    not_compared: Mapping[str, str]
    ties: int


def check_original(original: Original, inputs: Inputs, frame: Any) -> None:
    """Has the original predict the sample, before anything is made of it.

    Raises:
        Refused: it fails; says what the columns were read as.
    """
    try:
        _outputs(original, inputs, frame)
    except Refused:
        raise
    except Exception as error:  # whatever the original raises
        if isinstance(error, NotCarried):
            raise Refused(str(error)) from error
        said = f"the original fails on the sample: {type(error).__name__}: {error}"
        said += _missing_in(inputs, frame)
        if isinstance(error, TypeError | ValueError):
            texts = [each.name for each in inputs.columns if each.text]
            numbers = [each.name for each in inputs.columns if not each.text]
            said += (
                f"\nread as texts: {', '.join(texts) or 'none'}; as numbers: {', '.join(numbers) or 'none'}; "
                "--text COLUMN reads one as texts, --drop COLUMN leaves one out"
            )
        raise Refused(said) from error


def _missing_in(inputs: Inputs, frame: Any) -> str:
    """The columns with missing texts, which may be why an original fails."""
    given = inputs.as_trained(frame)
    counts = {each.name: int(given[each.name].isna().sum()) for each in inputs.columns if each.text}
    named = ", ".join(f"{name} ({many(count, 'row', ',')})" for name, count in counts.items() if count)
    way = "if it takes none, leave these rows out of the sample, or put a text there"
    return f"; missing texts are in {named}: {way}" if named else ""


def _outputs(original: Original, inputs: Inputs, frame: Any) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return original.predict(inputs.as_trained(frame))


class Verifier:
    """Runs both on the same rows.

    Args:
        original: the loaded original.
        inputs: what the file takes.
        path: the file.

    Raises:
        Refused: the file cannot be loaded.
    """

    def __init__(self, original: Original, inputs: Inputs, path: Path) -> None:
        self._original, self._inputs = original, inputs
        try:
            self._backend = OnnxBackend(path, RuntimeConfig(), 1)
        except ModelLoadError as error:
            said = str(error).replace(str(path), path.name)
            raise Refused(f"the converted file cannot be loaded: {said}") from error
        self.signature = self._backend.signature
        self.ties = 0

    def verify(self, frame: Any, tolerance: float, left_out: Sequence[str]) -> Verified:
        """Compares all rows of a sample, which the original takes, and the hard ones made of it.

        Raises:
            Refused: the file fails.
        """
        expected = self._expected(frame)
        accepted = _tolerance(tolerance, expected)
        sample, kept = Differences(accepted), []
        kept.append(self._compare(sample, frame, expected))
        not_compared: dict[str, str] = {}
        hard = Differences(accepted)
        for what, table in self._hard_rows(frame, left_out):
            try:
                wanted = self._expected(table)
            except Exception as error:  # the original refuses such rows
                not_compared.setdefault(what, f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")
                continue
            kept.append(self._compare(hard, table, wanted, what))
        return Verified(sample, hard if hard.rows else None, kept, accepted, not_compared, self.ties)

    def _hard_rows(self, frame: Any, left_out: Sequence[str]) -> Iterator[tuple[str, Any]]:
        if isinstance(self._original, HardRows):
            return self._original.hard_rows(frame, left_out)
        return hard_rows(frame, self._inputs.columns, left_out, self._inputs.na_texts)

    def _expected(self, frame: Any) -> Mapping[str, Any]:
        return _outputs(self._original, self._inputs, frame)

    def _compare(
        self, differences: Differences, frame: Any, expected: Mapping[str, Any], what: str = ""
    ) -> Rows:
        feeds = self._inputs.feeds(frame)
        names = tuple(self.signature.outputs)
        try:
            came = dict(zip(names, self._backend.run(names, feeds), strict=True))
        except ModelFailed as error:
            raise Refused(f"the converted file fails on {what or 'the sample'}: {error}") from error
        _check_rows(came, len(frame))
        wanted = {name: _as_declared(expected[name], came[name]) for name in names}
        tied = self._tied(wanted, differences.tolerance)
        if tied.any():  # either label is right; the probabilities are compared all the same
            wanted["label"] = np.where(tied, came["label"], wanted["label"])
        datatypes: dict[str, DataType] = {
            name: spec.datatype for name, spec in self.signature.outputs.items()
        }
        differences.add(len(frame), datatypes, wanted, came)
        return Rows(feeds, wanted)

    def _tied(self, wanted: Mapping[str, Any], tolerance: Tolerance) -> Any:
        """The rows whose two most probable classes are as probable: either label is right."""
        probabilities, label = wanted.get("probabilities"), wanted.get("label")
        rows = len(next(iter(wanted.values())))
        if label is None or probabilities is None or probabilities.ndim != 2 or probabilities.shape[1] < 2:
            return np.zeros(rows, bool)
        two = np.sort(probabilities, axis=1)[:, -2:]
        tied = (two[:, 1] - two[:, 0]) <= min(tolerance["probabilities"], 1e-6)
        self.ties += int(tied.sum())
        return tied


def _check_rows(came: Mapping[str, Any], rows: int) -> None:
    """Checks that each output has a row for each row.

    Raises:
        Refused: one has not.
    """
    for name, values in came.items():
        if not values.ndim or len(values) != rows:
            raise Refused(
                f"the converted file gives {name} in the shape {list(values.shape)} for {many(rows, 'row')}, "
                "expected one for each row"
            )


def _tolerance(tolerance: float, expected: Mapping[str, Any]) -> Tolerance:
    """The tolerance for each output: smaller where all of its values are small."""
    single = {}
    for name, values in expected.items():
        if values.dtype.kind == "f":
            finite = np.abs(values[np.isfinite(values)])
            single[name] = tolerance * min(1.0, float(finite.max(initial=0.0)) or 1.0)
    return Tolerance(tolerance, single)


def _as_declared(values: Any, came: Any) -> Any:
    """What the original gave, in the datatype and the axes of what came."""
    array = np.asarray(values)
    if array.size == came.size and array.shape != came.shape:
        array = array.reshape(came.shape)
    if came.dtype == object:
        return array.astype(object)
    with np.errstate(over="ignore"):
        return array.astype(came.dtype)
