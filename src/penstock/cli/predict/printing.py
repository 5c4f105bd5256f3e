"""Prints a prediction as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli.output import is_encodable, say
from penstock.core.tensors import Array
from penstock.row_files.fields import dumps, has_row_axis
from penstock.scoring.outputs import cell, plain
from penstock_client import ModelInfo, Prediction, TensorInfo

MOST_ROWS = 50
_MOST_VALUES = 8
_MOST_CHARACTERS = 60
_WIDTH_OF_A_PIPE = 10_000


def print_json(prediction: Prediction) -> None:
    """Prints a prediction as one JSON object on one line."""
    timing = prediction.timing
    said = {
        "model": prediction.model,
        "version": prediction.version,
        "outputs": {name: plain(array) for name, array in prediction.items()},
        "timing": {
            "queue_seconds": round(timing.queue_seconds, 9),
            "compute_seconds": round(timing.compute_seconds, 9),
            "batch_rows": timing.batch_rows,
        },
    }
    text = dumps(said)
    say(f"{text if is_encodable(text) else json.dumps(said)}\n")


def print_table(info: ModelInfo, inputs: Mapping[str, object], prediction: Prediction) -> None:
    """Prints a prediction as a table, with its rows as rows, and inputs and outputs as columns.

    Args:
        info: the model.
        inputs: the inputs of the request.
        prediction: the answer.
    """
    rows = _row_count(info.outputs, prediction)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns = []
    for spec in info.inputs:
        if spec.name not in inputs:  # it was omitted
            continue
        table.add_column(Text(spec.name), overflow="fold", style="dim")
        columns.append(_column(np.asarray(inputs[spec.name]), rows))
    for spec in info.outputs:
        if spec.name in prediction:
            table.add_column(Text(spec.name), overflow="fold", style="bold")
            columns.append(_column(prediction[spec.name], rows))
    for cells in zip(*columns, strict=True):
        table.add_row(*map(Text, cells))
    console = _console()
    with console.capture() as printed:  # rich would exit by itself if the pipe has no reader
        console.print(table)
        if rows > MOST_ROWS:
            console.print(Text(f"… and {rows - MOST_ROWS:,} more rows; --json prints all"))
        console.print(Text(_about(prediction), style="dim"))
    say(printed.get())


def _console() -> Console:
    # Rich takes a pipe for a terminal of 80 columns.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)


def _about(prediction: Prediction) -> str:
    timing = prediction.timing
    rows = f"{timing.batch_rows} row{'' if timing.batch_rows == 1 else 's'}"
    return (
        f"{prediction.model} version {prediction.version} · queue {timing.queue_seconds * 1e3:.2f} ms"
        f" · compute {timing.compute_seconds * 1e3:.2f} ms, in a batch of {rows}"
    )


def _row_count(outputs: Sequence[TensorInfo], prediction: Prediction) -> int:
    """The number of rows of the answer; 1 if its outputs differ in it."""
    counts = {
        len(prediction[spec.name]) for spec in outputs if spec.name in prediction and has_row_axis(spec)
    }
    return counts.pop() if len(counts) == 1 else 1


def _column(array: Array, rows: int) -> Iterator[str]:
    """The cells of the first rows; a value without rows is repeated in each."""
    per_row = array.ndim > 0 and len(array) == rows
    for i in range(min(rows, MOST_ROWS)):
        yield _compact(array[i] if per_row else array)


def _compact(value: object) -> str:
    """A value, or a row of values, in a short form."""
    array = np.asarray(value)
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.size == 1:
        return _one(array.reshape(()))
    if array.ndim > 1 or array.size == 0:
        return f"{array.dtype}{list(array.shape)}"
    parts = ", ".join(_one(array[i : i + 1].reshape(())) for i in range(min(len(array), _MOST_VALUES)))
    return f"[{parts}]" if len(array) <= _MOST_VALUES else f"[{parts}, … {len(array):,} values]"


def _one(array: Array) -> str:
    value = plain(array)
    text = f"{value:.7g}" if isinstance(value, float) else cell(value)
    if not text.isprintable():
        text = dumps(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
