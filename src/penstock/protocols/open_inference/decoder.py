"""Decodes a ModelInferRequest: its tensors become arrays that fit the model's signature.

Raw tensors are not copied here: an input is a view of the bytes in the protobuf message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from typing_extensions import override

from penstock.core import wire
from penstock.core.errors import InvalidRequest
from penstock.core.names import many, missing
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols import long_lists
from penstock.protocols import typed_lists as values
from penstock.protocols.codec import Contents, Decoded, attached, parsed
from penstock.protocols.long_lists import NO_LISTS, Layout, Lists
from penstock.protocols.open_inference import parameters
from penstock.protocols.open_inference.classification import check_classes
from penstock.protocols.tensors import expected_inputs, of_nothing, of_raw, shaped, wanted_outputs
from penstock_proto.inference import grpc_service_pb2 as pb

Tensor: TypeAlias = pb.ModelInferRequest.InferInputTensor

REMEMBERED = 256  # shapes, for each input of a model
SHARED_MEMORY = "shared_memory_region"

LISTS: Mapping[DataType, tuple[str, np.dtype[np.generic]]] = {
    DataType.BOOL: ("bool_contents", np.dtype("?")),
    DataType.INT8: ("int_contents", np.dtype("<i4")),
    DataType.INT16: ("int_contents", np.dtype("<i4")),
    DataType.INT32: ("int_contents", np.dtype("<i4")),
    DataType.INT64: ("int64_contents", np.dtype("<i8")),
    DataType.UINT8: ("uint_contents", np.dtype("<u4")),
    DataType.UINT16: ("uint_contents", np.dtype("<u4")),
    DataType.UINT32: ("uint_contents", np.dtype("<u4")),
    DataType.UINT64: ("uint64_contents", np.dtype("<u8")),
    DataType.FP32: ("fp32_contents", np.dtype("<f4")),
    DataType.FP64: ("fp64_contents", np.dtype("<f8")),
    DataType.BYTES: ("bytes_contents", np.dtype("O")),
}
"""The field of typed contents for each datatype, and the dtype of its values."""

LAYOUT = Layout(
    inputs=wire.key(pb.ModelInferRequest.INPUTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0],
    tensor=wire.key(Tensor.CONTENTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0],
    lists={
        pb.InferTensorContents.DESCRIPTOR.fields_by_name[name].number: (name, dtype)
        for name, dtype in LISTS.values()
        if dtype.kind in "biu"
    },
)
"""Where the lists of integers are."""


def decode(data: bytes) -> Decoded:
    """The request in a message.

    Raises:
        InvalidRequest: the bytes are not a ModelInferRequest.
    """
    if len(data) < long_lists.MESSAGE_BYTES:
        return DecodedInfer(parsed(pb.ModelInferRequest, data), len(data))
    message, lists = long_lists.parsed_apart(pb.ModelInferRequest, data, LAYOUT)
    return DecodedInfer(message, len(data), lists)


class DecodedInfer(Decoded):
    """A ModelInferRequest.

    Args:
        message: the message.
        size: its size in bytes.
        lists: the lists that are not in the message.
    """

    __slots__ = ("_lists", "_message")

    def __init__(self, message: pb.ModelInferRequest, size: int, lists: Lists = NO_LISTS) -> None:
        super().__init__(message.model_name, message.model_version, message.id, 0, size)
        self._message = message
        self._lists = lists

    @property
    @override
    def names_sequence(self) -> bool:
        return "sequence_id" in self._message.parameters

    @override
    def contents(self, model: Model) -> Contents:
        message = self._message
        arrays = attached(model, Inputs).read(message, self._lists)
        outputs: Sequence[str] = model.output_names
        classes = None
        if message.outputs:
            outputs = wanted_outputs(model, [each.name for each in message.outputs])
            classes = _classes_of(message, model)
        if not message.parameters:
            return Contents(arrays, outputs, classes)
        priority, seconds = parameters.of_request(message)
        sequence = parameters.sequence_of(message) if model.sequence_state is not None else None
        return Contents(arrays, outputs, classes, seconds, priority, sequence)


def _classes_of(message: pb.ModelInferRequest, model: Model) -> Mapping[str, int]:
    classes = parameters.classes_of(message)
    for name in classes:
        check_classes(name, model.signature.outputs[name].datatype)
    return classes


class Inputs:
    """Reads the inputs of one model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._inputs = {name: _Input(spec) for name, spec in model.signature.inputs.items()}

    def read(self, message: pb.ModelInferRequest, lists: Lists = NO_LISTS) -> dict[str, Array]:
        """The request's inputs in the signature's order; optional ones only if they were sent.

        Args:
            message: the request.
            lists: the lists that are not in the message.

        Raises:
            InvalidRequest: an input is missing, unknown, repeated or does not fit; the text names it, what
                was received and what was expected.
        """
        tensors, raws = message.inputs, message.raw_input_contents
        if raws and len(raws) != len(tensors):
            raise InvalidRequest.of_form(
                f"raw_input_contents has {len(raws)} {'entry' if len(raws) == 1 else 'entries'} for "
                f"{many(len(tensors), 'input')}; "
                "expected one for each, in their order"
            )
        arrays: dict[str, Array] = {}
        for index, tensor in enumerate(tensors):
            name = tensor.name
            known = self._inputs.get(name)
            if known is None or name in arrays:
                raise self._unwanted(message, name)
            arrays[name] = known.read(tensor, raws[index]) if raws else known.read_typed(tensor, lists)
        if len(arrays) != len(self._inputs):
            self._check_missing(message, arrays)
            return {name: arrays[name] for name in self._inputs if name in arrays}
        return arrays if len(arrays) == 1 else {name: arrays[name] for name in self._inputs}

    def _unwanted(self, message: pb.ModelInferRequest, name: str) -> InvalidRequest:
        if name in self._inputs:
            return InvalidRequest(f"input {name} appears twice")
        sent = {each.name for each in message.inputs}
        return InvalidRequest.of_form(f"there is no input {name}: {expected_inputs(self._model, sent)}")

    def _check_missing(self, message: pb.ModelInferRequest, arrays: Mapping[str, Array]) -> None:
        optional = self._model.optional_inputs
        lacking = [name for name in self._inputs if name not in arrays and name not in optional]
        if lacking:
            sent = {each.name for each in message.inputs}
            raise InvalidRequest.of_form(f"{missing(lacking)}: {expected_inputs(self._model, sent)}")


class _Input:
    """Reads one input of a model.

    A raw tensor whose shape has passed all checks before is recognised by the size of its message: if name,
    datatype and shape account for all of it, it has no other fields.
    """

    __slots__ = ("_dtype", "_known", "_label", "_spec", "_values_matter")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._label = spec.datatype.label
        self._dtype = spec.datatype.dtype
        self._values_matter = spec.datatype in (DataType.BOOL, DataType.BYTES)
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def read(self, tensor: Tensor, raw: bytes) -> Array:
        """A tensor with its values in raw_input_contents.

        Raises:
            InvalidRequest: it does not fit.
        """
        shape = tuple(tensor.shape[:])  # a slice is a list, which is faster to iterate
        sizes = self._known.get(shape)
        if sizes is not None and tensor.datatype == self._label and sizes == (len(raw), tensor.ByteSize()):
            return np.ndarray(shape, self._dtype, raw)
        self._check(tensor)
        if tensor.HasField("contents"):
            raise InvalidRequest.of_form(
                f"input {self._spec.name} has values in both raw_input_contents and contents; send one"
            )
        array = shaped(of_raw(self._spec, raw), shape, self._spec)
        plain = Tensor(name=self._spec.name, datatype=self._label, shape=shape).ByteSize()
        nothing_else = tensor.ByteSize() == plain  # not even unknown fields
        if raw and shape and nothing_else and not self._values_matter and len(self._known) < REMEMBERED:
            self._known[shape] = (len(raw), plain)
        return array

    def read_typed(self, tensor: Tensor, taken: Lists) -> Array:
        """A tensor with its values in its `contents`.

        Args:
            tensor: the tensor.
            taken: the lists that are not in the message.

        Raises:
            InvalidRequest: it does not fit.
        """
        self._check(tensor)
        spec, shape = self._spec, tuple(tensor.shape)
        lists = tensor.contents.ListFields()
        if not lists:
            return shaped(of_nothing(spec, shape), shape, spec)
        came = ", ".join(field.name for field, _ in lists)
        if spec.datatype not in LISTS:
            raise InvalidRequest.of_form(
                f"input {spec.name} has values in {came}; {spec.datatype} must be sent in raw_input_contents"
            )
        name, dtype = LISTS[spec.datatype]
        if came != name:
            raise InvalidRequest.of_form(
                f"input {spec.name} has values in {came}; {spec.datatype} is expected in {name}"
            )
        content = taken.get((spec.name, name), lists[0][1]) if taken else lists[0][1]
        return shaped(values.of_list(spec, content, dtype), shape, spec)

    def _check(self, tensor: Tensor) -> None:
        spec = self._spec
        if not tensor.shape and spec.shape:  # the protocol has no way to omit the shape
            raise InvalidRequest.of_form(f"input {spec.name} has shape [], expected {spec}")
        if tensor.datatype and tensor.datatype != self._label:
            raise InvalidRequest.of_form(
                f"input {spec.name} has datatype {tensor.datatype}, expected {spec.datatype}"
            )
        if SHARED_MEMORY in tensor.parameters:
            raise InvalidRequest(
                f"input {spec.name} is in shared memory, which this server does not read; "
                "send its values in raw_input_contents"
            )
