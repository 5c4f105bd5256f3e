"""From a ModelInferRequest's tensors to arrays, held against the model's signature.

Raw tensors are never copied here: an input is a view of the bytes that protobuf has made of its contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from penstock.errors import InvalidRequest
from penstock.models.model import Model
from penstock.rpc import values
from penstock.rpc.arrays import expected_inputs, of_nothing, of_raw, shaped
from penstock.tensors import Array, DataType, TensorSpec
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
"""The list in which the protocol has each datatype's typed contents, and what its values are."""


class Inputs:
    """Reads the inputs of one model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._inputs = {name: _Input(spec) for name, spec in model.signature.inputs.items()}

    def read(self, message: pb.ModelInferRequest) -> dict[str, Array]:
        """The request's inputs, in the signature's order; those that may be left out, where they were sent.

        Raises:
            InvalidRequest: an input is missing, unknown, twice there or does not fit; names it, what came
                and what was expected.
        """
        tensors, raws = message.inputs, message.raw_input_contents
        if raws and len(raws) != len(tensors):
            raise InvalidRequest(
                f"raw_input_contents has {len(raws)} entries for {len(tensors)} inputs; "
                "expected one for each, in their order"
            )
        arrays: dict[str, Array] = {}
        for index, tensor in enumerate(tensors):
            name = tensor.name
            known = self._inputs.get(name)
            if known is None or name in arrays:
                raise self._unwanted(message, name)
            arrays[name] = known.read(tensor, raws[index]) if raws else known.read_typed(tensor)
        if len(arrays) != len(self._inputs):
            self._check_missing(message, arrays)
            return {name: arrays[name] for name in self._inputs if name in arrays}
        return arrays if len(arrays) == 1 else {name: arrays[name] for name in self._inputs}

    def _unwanted(self, message: pb.ModelInferRequest, name: str) -> InvalidRequest:
        if name in self._inputs:
            return InvalidRequest(f"input {name} is there twice")
        sent = {each.name for each in message.inputs}
        return InvalidRequest(f"there is no input {name}: {expected_inputs(self._model, sent)}")

    def _check_missing(self, message: pb.ModelInferRequest, arrays: Mapping[str, Array]) -> None:
        optional = self._model.optional_inputs
        missing = ", ".join(name for name in self._inputs if name not in arrays and name not in optional)
        if missing:
            sent = {each.name for each in message.inputs}
            raise InvalidRequest(f"input {missing} is missing: {expected_inputs(self._model, sent)}")


class _Input:
    """Reads one input of a model.

    A raw tensor of a shape that has passed all checks before is known by its size: name, datatype and shape
    account for all of its message, so nothing else can be in it.
    """

    __slots__ = ("_dtype", "_known", "_label", "_spec", "_values_matter")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._label = spec.datatype.label
        self._dtype = spec.datatype.dtype
        self._values_matter = spec.datatype in (DataType.BOOL, DataType.BYTES)
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def read(self, tensor: Tensor, raw: bytes) -> Array:
        """A tensor whose values came in raw_input_contents.

        Raises:
            InvalidRequest: it does not fit.
        """
        shape = tuple(tensor.shape[:])  # a slice is a list, quicker to walk
        sizes = self._known.get(shape)
        if sizes is not None and tensor.datatype == self._label and sizes == (len(raw), tensor.ByteSize()):
            return np.ndarray(shape, self._dtype, raw)
        self._check(tensor)
        if tensor.HasField("contents"):
            raise InvalidRequest(
                f"input {self._spec.name} came both in raw_input_contents and in contents; send one of them"
            )
        array = shaped(of_raw(self._spec, raw), shape, self._spec)
        plain = Tensor(name=self._spec.name, datatype=self._label, shape=shape).ByteSize()
        nothing_else = tensor.ByteSize() == plain  # not even fields that nobody knows
        if raw and shape and nothing_else and not self._values_matter and len(self._known) < REMEMBERED:
            self._known[shape] = (len(raw), plain)
        return array

    def read_typed(self, tensor: Tensor) -> Array:
        """A tensor whose values came in its `contents`.

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
            raise InvalidRequest(
                f"input {spec.name} came in {came}; {spec.datatype} is only taken in raw_input_contents"
            )
        name, dtype = LISTS[spec.datatype]
        if came != name:
            raise InvalidRequest(f"input {spec.name} came in {came}; {spec.datatype} is expected in {name}")
        return shaped(values.of_list(spec, lists[0][1], dtype), shape, spec)

    def _check(self, tensor: Tensor) -> None:
        spec = self._spec
        if not tensor.shape and spec.shape:  # the protocol has no way to leave it out
            raise InvalidRequest(f"input {spec.name} came with shape [], expected {spec}")
        if tensor.datatype and tensor.datatype != self._label:
            raise InvalidRequest(f"input {spec.name} came as {tensor.datatype}, expected {spec.datatype}")
        if SHARED_MEMORY in tensor.parameters:
            raise InvalidRequest(
                f"input {spec.name} is in shared memory, which this server does not read; "
                "send its values in raw_input_contents"
            )
