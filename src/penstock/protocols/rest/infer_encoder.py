"""Encodes the answer to an inference request over HTTP: JSON, then the outputs wanted as binary data."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.core.errors import ModelFailed, RequestError
from penstock.core.large_bytes import joined
from penstock.core.request import Response
from penstock.core.tensors import Array, DataType
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo
from penstock.protocols.open_inference.classification import top_classes
from penstock.protocols.rest.infer_decoder import BINARY_SIZE, InferForm
from penstock.protocols.rest.values import dumped, in_pieces, plain
from penstock.protocols.tensors import bytes_of, pack_bytes


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The body of the answer; an error if it cannot be encoded."""
    model, form = asked.model, asked.form
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
        model.batching.enabled,
        labels[name].names if name in labels else (),
    )
