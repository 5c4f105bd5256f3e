"""Reads `sample.file` of model.toml: real requests in CSV, JSON Lines or .npz, beside the file itself."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Array, TensorSpec
from penstock.row_files.arrays import tensor
from penstock.row_files.fields import Field, Invalid, has_row_axis
from penstock.row_files.readers import Format, source

MOST_REQUESTS = 1000
MOST_BYTES = 16 << 20
"""At most as many requests, and as many bytes of them, are read: they are held in memory."""

FORMATS: Mapping[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
ARRAYS = ".npz"


class _Row(NamedTuple):
    """One row of the file: where it is, for messages, and its values by the input's name."""

    place: str
    values: Mapping[str, object]


def read_requests(
    path: Path, inputs: Mapping[str, TensorSpec], optional: Collection[str] = ()
) -> Sequence[Mapping[str, Array]]:
    """Reads the first requests of a file, each of one row.

    Args:
        path: a .csv or .jsonl file as `penstock predict --file` reads it, or a .npz file with an array for
            every input. The first axis of an array counts rows; an array for an input without rows holds its
            value in all requests.
        inputs: the inputs that are read, by name.
        optional: those that may be missing, all together or in some rows.

    Returns:
        At least one request: an array for each input that its row has.

    Raises:
        ModelLoadError: the file cannot be used; names the line, the input, what came and what was expected.
    """
    try:
        read = _arrays if path.suffix.lower() == ARRAYS else _lines
        requests, size = [], 0
        for row in itertools.islice(read(path, inputs, optional), MOST_REQUESTS):
            requests.append(_request(row, inputs))
            size += sum(array.nbytes for array in requests[-1].values())
            if size > MOST_BYTES:
                break
    except OSError as error:
        raise _refuse(path, error.strerror or str(error)) from error
    except (Invalid, ValueError, BadZipFile, EOFError) as error:
        raise _refuse(path, str(error)) from error
    if not requests:
        raise _refuse(path, "it has no rows")
    return requests


def _refuse(path: Path, why: str) -> ModelLoadError:
    return ModelLoadError(f"sample.file {path.name}: {why}")


def _lines(path: Path, inputs: Mapping[str, TensorSpec], optional: Collection[str]) -> Iterator[_Row]:
    """The rows of a CSV or JSON Lines file.

    Raises:
        Invalid: a line cannot be read.
        OSError: the file cannot be read.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        known = ", ".join([*FORMATS, ARRAYS])
        raise Invalid(f"its format is not known by its name; expected one of {known}")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = source(lines, form)
        columns = rows.columns or ()
        fields = [
            Field(spec)
            for name, spec in inputs.items()
            if name not in optional or any(each == name or each.startswith(f"{name}.") for each in columns)
        ]
        read = rows.reader(fields)
        for row in rows:
            if row.error:
                raise Invalid(f"line {row.line}: {row.error}")
            try:
                yield _Row(f"line {row.line}: ", read(row))
            except Invalid as error:
                # Without the value: it is of a real request, and this is logged.
                raise Invalid(f"line {row.line}: {error.without_value}") from None


def _arrays(path: Path, inputs: Mapping[str, TensorSpec], optional: Collection[str]) -> Iterator[_Row]:
    """The rows of a .npz file.

    Raises:
        Invalid: it lacks an input, or its arrays have different numbers of rows.
        OSError: the file cannot be read.
        ValueError: it is not a .npz file, or holds objects.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = [str(spec) for name, spec in inputs.items() if name not in file and name not in optional]
        if missing:
            raise Invalid(f"no array for input {', '.join(missing)}; the arrays are: {', '.join(file)}")
        arrays = {name: file[name] for name in inputs if name in file}
    by_row = {name: array for name, array in arrays.items() if has_row_axis(inputs[name]) and array.ndim}
    counts = {len(array) for array in by_row.values()}
    if len(counts) > 1:
        listed = ", ".join(f"{name} {len(array)}" for name, array in by_row.items())
        raise Invalid(f"the arrays have different numbers of rows: {listed}")
    for row in range(counts.pop() if counts else 1):
        yield _Row(
            f"row {row + 1}: ",
            {name: array[row : row + 1] if name in by_row else array for name, array in arrays.items()},
        )


def _request(row: _Row, inputs: Mapping[str, TensorSpec]) -> Mapping[str, Array]:
    return {name: tensor(inputs[name], value, row.place) for name, value in row.values.items()}
