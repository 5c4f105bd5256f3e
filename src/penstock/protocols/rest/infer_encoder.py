"""Encodes the answer to an inference request over HTTP: JSON, then the outputs wanted as binary data."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.core.errors import ModelFailed, RequestError
from penstock.core.large_bytes import joined
from penstock.core.request import Response, Run
from penstock.core.tensors import Array, DataType
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo, attached
from penstock.protocols.open_inference.classification import top_classes
from penstock.protocols.rest.infer_decoder import BINARY_SIZE, MOST_KNOWN, InferForm
from penstock.protocols.rest.values import dumped, in_pieces, plain
from penstock.protocols.tensors import COPIED_BYTES, bytes_of, pack_bytes


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The body of the answer; an error if it cannot be encoded."""
    model, form = asked.model, asked.form
    if not asked.id and response.stop is not None and not form.classes:
        found = attached(model, _Heads).answer(response, form)
        if found is not None:
            return found
    try:
        tensors, binary = _outputs(response, model, form)
        fields: dict[str, Any] = {"model_name": model.name, "model_version": model.version_text}
        if asked.id:
            fields["id"] = asked.id
        head = dumped({**fields, "outputs": tensors})
    except (ValueError, TypeError) as error:  # text that cannot be encoded
        return ModelFailed(f"the model's answer cannot be sent: {error}")
    if not binary:
        return head
    form.json_bytes = len(head)
    return joined((head, *binary))


class _Heads:
    """The answers of one model whose outputs are all binary data: these differ in the data only.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[object, bytes] = {}

    def answer(self, response: Response, form: InferForm) -> bytes | None:
        """The body of an answer; None if it must be written in another way."""
        run, names = response.run, response.names
        shared = run.shared
        if shared is None:
            shared = run.shared = {}
        values = shared.get(self)
        if values is None:
            values = shared[self] = _values(run)
        assert isinstance(values, dict), "nothing else is put there"
        start, stop = response.start, response.stop
        assert stop is not None, "the model is batched"
        parts = [b""]
        shapes = []
        for name in names:
            if name not in form.binary or name not in values:
                return None
            data, size, inner = values[name]
            parts.append(data[start * size : stop * size])
            shapes.append(inner)
        key = (stop - start, *names, *shapes)
        head = self._known.get(key)
        if head is None:
            head = self._learn(key, response, form)
        form.json_bytes = len(head)
        parts[0] = head
        return b"".join(parts)

    def _learn(self, key: object, response: Response, form: InferForm) -> bytes:
        model = self._model
        tensors, _ = _outputs(response, model, form)
        head = dumped({"model_name": model.name, "model_version": model.version_text, "outputs": tensors})
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = head
        return head


def _values(run: Run) -> dict[str, tuple[bytes, int, tuple[int, ...]]]:
    """The bytes of small outputs that are numbers, how many each row has, and the shape of a row."""
    return {
        name: (array.tobytes(), array.nbytes // len(array), array.shape[1:])
        for name, array in run.outputs.items()
        if array.ndim and 0 < array.nbytes <= COPIED_BYTES and not array.dtype.hasobject
    }


def _outputs(
    response: Response, model: Model, form: InferForm
) -> tuple[list[dict[str, Any]], list[bytes | memoryview]]:
    """The outputs for the JSON, and the binary data after it."""
    tensors: list[dict[str, Any]] = []
    binary: list[bytes | memoryview] = []
    for name, output in response.outputs.items():
        datatype, array = model.signature.outputs[name].datatype, output
        if name in form.classes:
            array, datatype = _classified(model, name, output, form.classes[name]), DataType.BYTES
        tensor: dict[str, Any] = {"name": name, "datatype": datatype.label, "shape": list(array.shape)}
        if name in form.binary:
            data = pack_bytes(array) if array.dtype.hasobject else bytes_of(array)
            tensor["parameters"] = {BINARY_SIZE: len(data)}
            binary.append(data)
        else:
            tensor["data"] = in_pieces(plain(datatype, array.reshape(-1)))
        tensors.append(tensor)
    return tensors, binary


def _classified(model: Model, name: str, array: Array, count: int) -> Array:
    labels, axes = model.class_labels, model.row_axes
    return top_classes(
        model.signature.outputs[name].datatype,
        np.moveaxis(array, axes.get(name, 0), 0) if axes else array,
        count,
        model.by_rows,
        labels[name].names if name in labels else (),
    )
