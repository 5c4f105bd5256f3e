"""Encodes the answer to a plain request as JSON, in the form of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.core.errors import ModelFailed, RequestError
from penstock.core.minifloats import BY_BITS
from penstock.core.request import Response
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo, attached
from penstock.protocols.rest.classifier import PREDICTION, PROBABILITY, Classifier
from penstock.protocols.rest.forms import Form, Kind
from penstock.protocols.rest.row_texts import Records
from penstock.protocols.rest.values import SLICE, dumped, in_pieces, plain

FP64_BYTES = 8


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The answer as JSON; an error if it cannot be encoded."""
    outputs, form = attached(asked.model, Outputs), asked.form
    try:
        if form.kind is Kind.RECORD and (record := outputs.texts.record(response)) is not None:
            return record
        if form.kind is Kind.INSTANCES and response_size(response) > SLICE:
            return outputs.predictions(response, form.rows)
        return dumped(outputs.fields(response, form))
    except (ValueError, TypeError) as error:  # text that cannot be encoded
        return ModelFailed(f"the model's answer cannot be sent: {error}")


class Outputs:
    """Writes the answers of one model.

    Args:
        model: the model.

    Attributes:
        texts: writes answers with one record, those of a run together where it can.
    """

    def __init__(self, model: Model) -> None:
        outputs = model.signature.outputs
        self._datatypes = {name: spec.datatype for name, spec in outputs.items()}
        self._axes = {name: spec.row_axis for name, spec in outputs.items()}
        # One number or text for each row is written without a list around it.
        self._single = {name for name, spec in outputs.items() if spec.shape and spec.shape[1:] == (1,)}
        # Those whose rows need no conversion but the one to JSON.
        self._rows_first = {
            name for name, spec in outputs.items() if not spec.row_axis and spec.datatype not in BY_BITS
        }
        self._classifier = Classifier(model)
        self.texts = Records(self._single, self._rows_first, self._classifier)

    def fields(self, response: Response, form: Form) -> dict[str, Any]:
        """The answer to a request.

        Args:
            response: the outputs.
            form: the form of the request.
        """
        outputs = response.outputs
        if form.kind is Kind.COLUMNS:
            found = {name: in_pieces(plain(self._datatypes[name], array)) for name, array in outputs.items()}
            said = {name: in_pieces(plain_of(values)) for name, values in self._said(outputs).items()}
            return {"outputs": found, **said}
        if form.kind is Kind.RECORD and (record := self._record(outputs)) is not None:
            return record
        records = self._records(outputs, form.rows, self._axes_of(outputs, form.rows))
        if form.kind is Kind.INSTANCES:
            return {"predictions": records}
        return {name: in_pieces(value) for name, value in records[0].items()}

    def _record(self, outputs: dict[str, Array]) -> dict[str, Any] | None:
        """What `_records` finds for one record, in half the time; None if an output is not a small row."""
        found: dict[str, Any] = {}
        for name, array in outputs.items():
            if name not in self._rows_first or not array.ndim or len(array) != 1 or array.size > SLICE:
                return None
            found[name] = _first(array[:, 0] if name in self._single else array)
        label, probabilities = self._classifier.label, self._classifier.probabilities
        if label in found and probabilities in found and outputs[label].size == 1:
            rows = outputs[probabilities]
            if rows.ndim == 2 and rows.shape[1]:
                found.setdefault(PREDICTION, _first(outputs[label].reshape(-1)))
                row = rows[0]
                largest = row.argmax()  # the first NaN, if there is one; quicker than max
                found.setdefault(PROBABILITY, _first(row[largest : largest + 1]))
        return found

    def predictions(self, response: Response, count: int) -> bytes:
        """The answer to a request with many records, written bit by bit; see `values.in_pieces`.

        Args:
            response: the outputs.
            count: how many records the request has.
        """
        outputs = response.outputs
        axes = self._axes_of(outputs, count)
        step = max(count * SLICE // response_size(response), 1)
        parts = []
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            some = {
                name: array[(slice(None),) * axes[name] + (rows,)] if name in axes else array
                for name, array in outputs.items()
            }
            records = self._records(some, rows.stop - start, axes)
            parts += [dumped({key: in_pieces(value) for key, value in each.items()}) for each in records]
        return b'{"predictions":[' + b",".join(parts) + b"]}"

    def _records(
        self, outputs: dict[str, Array], count: int, axes: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        """What each record gets; `axes` are those of the outputs that have something for each."""
        columns = {name: self._rows(name, array, count, axes.get(name)) for name, array in outputs.items()}
        for name, values in self._said(outputs).items():
            columns.setdefault(name, rows_of(plain_of(values)))
        names = tuple(columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _said(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """What a classifier predicts for each row, and how probable it is."""
        label, probabilities = self._classifier.label, self._classifier.probabilities
        if not label or label not in outputs or probabilities not in outputs:
            return {}
        labels, rows = outputs[label], outputs[probabilities]
        if rows.ndim != 2 or not rows.shape[1] or len(labels) != len(rows) or labels.size != len(rows):
            return {}
        return {PREDICTION: labels.reshape(-1), PROBABILITY: rows.max(axis=1)}

    def _axes_of(self, outputs: Mapping[str, Array], count: int) -> dict[str, int]:
        """The axes of the records in the outputs that have something for each."""
        axes = {name: self._axes[name] for name in outputs}
        return {
            name: axis
            for name, axis in axes.items()
            if outputs[name].ndim > axis and outputs[name].shape[axis] == count
        }

    def _rows(self, name: str, array: Array, count: int, axis: int | None) -> list[Any]:
        """What one output has for each record; all of it, if it has no rows."""
        if axis is None:
            return [plain(self._datatypes[name], array)] * count
        if axis:
            array = np.moveaxis(array, axis, 0)
        if name in self._single:
            array = array[:, 0]
        return rows_of(plain(self._datatypes[name], array))


def _first(values: Array) -> Any:
    """The first of `rows_of(plain(...))`."""
    kind = values.dtype.kind
    if kind == "O":
        return values[0] if values.ndim == 1 else values[0].tolist()
    if values.ndim > 1:
        return np.ascontiguousarray(values[0])
    return values[0] if kind == "f" and values.dtype.itemsize < FP64_BYTES else values[0].item()


def response_size(response: Response) -> int:
    """The elements of all outputs."""
    return sum([array.size for array in response.outputs.values()])


def plain_of(values: Array) -> Array | list[Any]:
    """Labels or probabilities of all rows."""
    return values.tolist() if values.dtype.hasobject else np.ascontiguousarray(values)


def rows_of(values: Array | list[Any]) -> list[Any]:
    """A list with what each row has."""
    if isinstance(values, list):
        return values
    # FP32 stays in numpy's own type, which is written with the shortest decimals that are exact.
    is_short = values.dtype.kind == "f" and values.dtype.itemsize < FP64_BYTES
    return list(values) if values.ndim > 1 or is_short else values.tolist()
