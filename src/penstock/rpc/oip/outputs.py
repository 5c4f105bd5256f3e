"""From a run's outputs to serialized ModelInferResponses: always raw, one entry an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from google.protobuf.message import EncodeError

from penstock.errors import ModelFailed
from penstock.messages import InferResponse
from penstock.models.model import Model
from penstock.rpc import wire
from penstock.rpc.arrays import pack_bytes
from penstock.rpc.oip.classes import top_classes
from penstock.tensors import Array, DataType
from penstock.transport.call import UNLIMITED
from penstock_proto.inference import grpc_service_pb2 as pb

REMEMBERED = 256  # combinations of outputs and shapes, for a model
ID = wire.key(pb.ModelInferResponse.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RAW = wire.key(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)

_Shapes: TypeAlias = tuple[tuple[int, ...], ...]


class Outputs:
    """Writes the answers of one model.

    All of an answer but its id and its values is the same for all that have the same outputs of the same
    shapes: it is serialized once.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._datatypes = {name: spec.datatype for name, spec in model.signature.outputs.items()}
        self._heads: dict[tuple[Sequence[str], _Shapes], bytes] = {}

    def encode(
        self, response: InferResponse, id: str, classes: Mapping[str, int] | None = None
    ) -> bytes | ModelFailed:
        """The serialized ModelInferResponse; an error where there can be none.

        Args:
            response: the answer.
            id: the request's.
            classes: of which outputs only so many of the largest values are wanted; see `top_classes`.
        """
        try:
            data = self._classified(response, id, classes) if classes else self._encoded(response, id)
        except (ValueError, EncodeError) as error:  # text that is none
            return ModelFailed(f"the model's answer cannot be sent: {error}")
        if len(data) > UNLIMITED:
            return ModelFailed(f"the model's answer is {len(data)} bytes, more than protobuf carries")
        return data

    def _encoded(self, response: InferResponse, id: str) -> bytes:
        run, names, start, stop = response.run.outputs, response.names, response.start, response.stop
        arrays = [run[name] if stop is None else run[name][start:stop] for name in names]
        key = (names, tuple([array.shape for array in arrays]))
        head = self._heads.get(key)
        if head is None:
            head = self._head(names, [self._datatypes[name] for name in names], key[1])
            if len(self._heads) < REMEMBERED:
                self._heads[key] = head
        parts = [head, wire.field(ID, id.encode())] if id else [head]
        parts += [_raw(array) for array in arrays]
        return b"".join(parts)

    def _classified(self, response: InferResponse, id: str, classes: Mapping[str, int]) -> bytes:
        batched, labels = self._model.batching.enabled, self._model.class_labels
        arrays, datatypes = response.outputs, dict(self._datatypes)
        for name in classes:
            arrays[name] = top_classes(
                datatypes[name],
                arrays[name],
                classes[name],
                batched,
                labels[name].names if name in labels else (),
            )
            datatypes[name] = DataType.BYTES
        shapes = tuple([array.shape for array in arrays.values()])
        head = self._head(response.names, [datatypes[name] for name in response.names], shapes)
        return b"".join([head, wire.field(ID, id.encode()), *map(_raw, arrays.values())])

    def _head(self, names: Sequence[str], datatypes: Sequence[DataType], shapes: _Shapes) -> bytes:
        """All but the id and the values."""
        message = pb.ModelInferResponse(model_name=self._model.name, model_version=self._model.version_text)
        for name, datatype, shape in zip(names, datatypes, shapes, strict=True):
            message.outputs.add(name=name, datatype=datatype.label, shape=shape)
        return message.SerializeToString()


def _raw(array: Array) -> bytes:
    """A ModelInferResponse that holds the values of one output and nothing else."""
    return wire.field(RAW, pack_bytes(array) if array.dtype.hasobject else array.tobytes())
