"""Encodes a run's outputs as serialized ModelInferResponses; values are always raw, one entry per output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import EncodeError

from penstock.core import wire
from penstock.core.errors import ModelFailed, RequestError
from penstock.core.large_bytes import joined
from penstock.core.request import Response
from penstock.core.tensors import Array, DataType
from penstock.models.model import Model
from penstock.protocols.codec import AnswerTo, attached
from penstock.protocols.open_inference.classification import top_classes
from penstock.protocols.tensors import COPIED_BYTES, bytes_of, pack_bytes
from penstock.transport.grpc.call import UNLIMITED
from penstock_proto.inference import grpc_service_pb2 as pb

REMEMBERED = 256  # combinations of outputs and shapes, for a model
ID = wire.key(pb.ModelInferResponse.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RAW = wire.key(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)

_Shapes: TypeAlias = tuple[tuple[int, ...], ...]


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The serialized ModelInferResponse to a request; an error if it cannot be encoded."""
    run, start, stop = response.run, response.start, response.stop
    if asked.form or stop is None or stop - start == run.rows:
        return attached(asked.model, Outputs).encode(response, asked.id, asked.form)
    shared = run.shared
    if shared is None:
        shared = run.shared = {}
    key = Outputs, response.names, stop - start
    alike = shared.get(key)
    if alike is None:
        alike = shared[key] = attached(asked.model, Outputs).alike(response)
    assert isinstance(alike, _Alike), "nothing else is put there"
    if not alike.values:
        return attached(asked.model, Outputs).encode(response, asked.id)
    parts = [alike.head, wire.field(ID, asked.id.encode())] if asked.id else [alike.head]
    for beginning, data, row_bytes in alike.values:
        parts.append(beginning)
        parts.append(data[start * row_bytes : stop * row_bytes])
    return b"".join(parts)


class _Alike(NamedTuple):
    """What the answers of a run with the same outputs and as many rows consist of, besides the id.

    Attributes:
        head: all but the values.
        values: for each output, what comes before its values, those of the whole run, the bytes of a row.
            Empty if the answers must be written one by one.
    """

    head: bytes
    values: Sequence[tuple[bytes, bytes, int]]


class Outputs:
    """Writes the answers of one model.

    Apart from the id and the values, all answers with the same outputs of the same shapes are equal: this
    part is serialized once.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._datatypes = {name: spec.datatype for name, spec in model.signature.outputs.items()}
        self._heads: dict[tuple[Sequence[str], _Shapes], bytes] = {}

    def encode(
        self, response: Response, id: str, classes: Mapping[str, int] | None = None
    ) -> bytes | ModelFailed:
        """The serialized ModelInferResponse; an error if it cannot be encoded.

        Args:
            response: the answer.
            id: the request's id.
            classes: the outputs of which only the largest values are wanted, and how many; see `top_classes`.
        """
        try:
            data = self._classified(response, id, classes) if classes else self._encoded(response, id)
        except (ValueError, EncodeError) as error:  # text that cannot be encoded
            return ModelFailed(f"the model's answer cannot be sent: {error}")
        if len(data) > UNLIMITED:
            return ModelFailed(f"the model's answer is {len(data)} bytes, above protobuf's limit")
        return data

    def alike(self, response: Response) -> _Alike:
        """What is equal in all answers with the rows and outputs of this one, which is one of several."""
        assert response.stop is not None, "the model is batched"
        rows = response.stop - response.start
        values, shapes = [], []
        for name in response.names:
            array = response.run.outputs[name]
            if array.dtype.hasobject or not array.nbytes or not array.ndim or array.nbytes > COPIED_BYTES:
                return _Alike(b"", ())
            row_bytes = array.nbytes // len(array)
            values.append((RAW + wire.varint(rows * row_bytes), array.tobytes(), row_bytes))
            shapes.append((rows, *array.shape[1:]))
        return _Alike(self._known_head(response.names, tuple(shapes)), values)

    def _known_head(self, names: Sequence[str], shapes: _Shapes) -> bytes:
        key = names, shapes
        head = self._heads.get(key)
        if head is None:
            head = self._head(names, [self._datatypes[name] for name in names], shapes)
            if len(self._heads) < REMEMBERED:
                self._heads[key] = head
        return head

    def _encoded(self, response: Response, id: str) -> bytes:
        run, names, start, stop = response.run.outputs, response.names, response.start, response.stop
        arrays = [run[name] if stop is None else run[name][start:stop] for name in names]
        head = self._known_head(names, tuple([array.shape for array in arrays]))
        parts: list[bytes | memoryview] = [head, wire.field(ID, id.encode())] if id else [head]
        join: Callable[[Sequence[bytes | memoryview]], bytes] = b"".join
        for array in arrays:
            if array.dtype.hasobject or array.nbytes <= COPIED_BYTES:
                parts.append(_raw(array))
            else:  # copied once only
                parts += (RAW, wire.varint(array.nbytes), bytes_of(array))
                join = joined
        return join(parts)

    def _classified(self, response: Response, id: str, classes: Mapping[str, int]) -> bytes:
        batched, labels, axes = self._model.by_rows, self._model.class_labels, self._model.row_axes
        arrays, datatypes = response.outputs, dict(self._datatypes)
        for name in classes:
            arrays[name] = top_classes(
                datatypes[name],
                np.moveaxis(arrays[name], axes.get(name, 0), 0) if axes else arrays[name],
                classes[name],
                batched,
                labels[name].names if name in labels else (),
            )
            datatypes[name] = DataType.BYTES
        shapes = tuple([array.shape for array in arrays.values()])
        head = self._head(response.names, [datatypes[name] for name in response.names], shapes)
        return b"".join([head, wire.field(ID, id.encode()), *map(_raw, arrays.values())])

    def _head(self, names: Sequence[str], datatypes: Sequence[DataType], shapes: _Shapes) -> bytes:
        """The part of an answer without the id and the values."""
        message = pb.ModelInferResponse(model_name=self._model.name, model_version=self._model.version_text)
        for name, datatype, shape in zip(names, datatypes, shapes, strict=True):
            message.outputs.add(name=name, datatype=datatype.label, shape=shape)
        return message.SerializeToString()


def _raw(array: Array) -> bytes:
    """A ModelInferResponse that holds the values of one output and nothing else."""
    return wire.field(RAW, pack_bytes(array) if array.dtype.hasobject else array.tobytes())
