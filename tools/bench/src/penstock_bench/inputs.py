"""The inputs of `penstock bench`: reads them from a file, or reads the flags for generated ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from penstock.core.tensors import Array
from penstock.row_files.fields import Field, Invalid
from penstock.row_files.readers import source
from penstock_bench.errors import BenchError
from penstock_bench.payloads import Encoder, Payload, stacked
from penstock_client import TensorInfo

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".npy", ".npz")

MOST_REQUESTS = 1000
"""Most requests from a file: they are held in memory, in every process, and sent in turn."""


def from_file(path: Path, inputs: Sequence[TensorInfo], rows: int) -> list[Payload]:
    """Makes requests from the first rows of a file.

    Args:
        path: a .csv or .jsonl file as `penstock predict --file` reads it, a .npz file with an array for
            every input, or a .npy file for the only input; the first axis of an array counts rows.
        inputs: the model's inputs.
        rows: the number of rows per request.

    Returns:
        At least one and at most MOST_REQUESTS payloads; remaining rows at the end are not used.

    Raises:
        Invalid: the file cannot be used.
    """
    encoder = Encoder(inputs)
    try:
        values = _arrays(path, inputs) if path.suffix.lower() in (".npy", ".npz") else _lines(path, inputs)
        singles = (encoder.payload(each) for each in itertools.islice(values, MOST_REQUESTS * rows))
        payloads = [group[0] if rows == 1 else stacked(group) for group in _groups(singles, rows)]
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror or error}") from None
    except (BenchError, Invalid, ValueError) as error:
        raise Invalid(f"{path}: {error}") from None
    if not payloads:
        raise Invalid(f"{path}: it has fewer than {rows} rows")
    return payloads


def pairs(flag: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """Parses a flag with values of inputs, as NAME:A,B,C.

    Raises:
        Invalid: it has another form, or names an input twice.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, colon, values = text.rpartition(":")
        if not colon or not name or not values:
            raise Invalid(f"{flag}: expected NAME:A,B,..., got {text!r}")
        if name in found:
            raise Invalid(f'{flag}: input "{name}" is given twice')
        found[name] = values.split(",")
    return found


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that --shape gives.

    Raises:
        Invalid: a length is not a positive number.
    """
    found = {}
    for name, values in pairs("--shape", texts).items():
        if not all(value.strip().isdecimal() and int(value) for value in values):
            raise Invalid(f"--shape: lengths are whole numbers above 0; got {name}:{','.join(values)}")
        found[name] = tuple(int(value) for value in values)
    return found


def ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The bounds that --range gives.

    Raises:
        Invalid: they are not two numbers in order.
    """
    found = {}
    for name, values in pairs("--range", texts).items():
        try:
            low, high = map(float, values)
        except ValueError:
            low, high = 1.0, 0.0
        if not low <= high < float("inf"):
            raise Invalid(f"--range: expected NAME:LOW,HIGH, two numbers; got {name}:{','.join(values)}")
        found[name] = (low, high)
    return found


def _groups(payloads: Iterable[Payload], size: int) -> Iterator[list[Payload]]:
    each = iter(payloads)
    while len(group := list(itertools.islice(each, size))) == size:
        yield group


def _lines(path: Path, inputs: Sequence[TensorInfo]) -> Iterator[Mapping[str, object]]:
    """The rows of a CSV or JSON Lines file; one that cannot be read is an error."""
    form = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(path.suffix.lower())
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = source(lines, form)  # type: ignore[arg-type]
        read = rows.reader([Field(spec) for spec in inputs])
        for row in rows:
            try:
                if row.error:
                    raise Invalid(row.error)
                values = read(row)
            except Invalid as error:
                raise Invalid(f"line {row.line}: {error}") from None
            yield values


def _arrays(path: Path, inputs: Sequence[TensorInfo]) -> Iterator[Mapping[str, object]]:
    """The rows of arrays."""
    arrays = _loaded(path, inputs)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise Invalid(f"the arrays have different numbers of rows: {lengths}")
    for at in range(next(iter(lengths.values()), 0)):
        yield {name: array[at : at + 1] for name, array in arrays.items()}


def _loaded(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        if len(inputs) != 1:
            raise Invalid(f"it holds one array, but the model has {len(inputs)} inputs: use a .npz file")
        return {inputs[0].name: _narrowed(loaded, inputs[0])}
    types = {spec.name: spec for spec in inputs}
    with loaded:
        return {
            name: _narrowed(loaded[name], types[name]) if name in types else loaded[name]
            for name in loaded.files
        }


def _narrowed(array: Array, spec: TensorInfo) -> Array:
    """Converts FP64 to FP32 if the model needs that: numpy saves FP64 by default."""
    if spec.datatype == "FP32" and array.dtype == np.float64:
        return array.astype(np.float32)
    return array
