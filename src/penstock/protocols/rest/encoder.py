"""Encodes the answer to a plain request as JSON, in the form of the request."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.core.errors import ModelFailed, RequestError
from penstock.core.request import Response
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo, attached
from penstock.protocols.rest.classifier import PREDICTION, PROBABILITY, Classifier
from penstock.protocols.rest.forms import Form, Kind
from penstock.protocols.rest.values import dumped, plain

FP64_BYTES = 8


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The answer as JSON; an error if it cannot be encoded."""
    try:
        return dumped(attached(asked.model, Outputs).fields(response, asked.form))
    except (ValueError, TypeError) as error:  # text that cannot be encoded
        return ModelFailed(f"the model's answer cannot be sent: {error}")


class Outputs:
    """Writes the answers of one model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        outputs = model.signature.outputs
        self._datatypes = {name: spec.datatype for name, spec in outputs.items()}
        self._axes = {name: spec.row_axis for name, spec in outputs.items()}
        # One number or text for each row is written without a list around it.
        self._single = {name for name, spec in outputs.items() if spec.shape and spec.shape[1:] == (1,)}
        self._classifier = Classifier(model)

    def fields(self, response: Response, form: Form) -> dict[str, Any]:
        """The answer to a request.

        Args:
            response: the outputs.
            form: the form of the request.
        """
        outputs = response.outputs
        if form.kind is Kind.COLUMNS:
            found = {name: plain(self._datatypes[name], array) for name, array in outputs.items()}
            said = self._said(outputs)
            return {"outputs": found, **{name: plain_of(values) for name, values in said.items()}}
        columns = {name: self._rows(name, array, form.rows) for name, array in outputs.items()}
        for name, values in self._said(outputs).items():
            columns.setdefault(name, rows_of(plain_of(values)))
        names = tuple(columns)
        records = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return records[0] if form.kind is Kind.RECORD else {"predictions": records}

    def _said(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """What a classifier predicts for each row, and how probable it is."""
        label, probabilities = self._classifier.label, self._classifier.probabilities
        if not label or label not in outputs or probabilities not in outputs:
            return {}
        labels, rows = outputs[label], outputs[probabilities]
        if rows.ndim != 2 or not rows.shape[1] or len(labels) != len(rows) or labels.size != len(rows):
            return {}
        return {PREDICTION: labels.reshape(-1), PROBABILITY: rows.max(axis=1)}

    def _rows(self, name: str, array: Array, count: int) -> list[Any]:
        """What one output has for each record; all of it, if it has no rows."""
        axis = self._axes[name]
        if array.ndim <= axis or array.shape[axis] != count:
            return [plain(self._datatypes[name], array)] * count
        if axis:
            array = np.moveaxis(array, axis, 0)
        if name in self._single:
            array = array[:, 0]
        return rows_of(plain(self._datatypes[name], array))


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
