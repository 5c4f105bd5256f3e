"""Between protobuf tensors and numpy arrays, held against the model's signature.

What comes as `raw` is never copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf.message import EncodeError

from penstock.errors import InvalidRequest, ModelFailed, RequestError
from penstock.messages import InferResponse
from penstock.models.model import Model
from penstock.rpc import values, wire
from penstock.rpc.answers import NUMBERS, Answers
from penstock.rpc.arrays import expected_inputs, of_nothing, of_raw, shaped
from penstock.tensors import Array, DataType, TensorSpec
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

BY_NUMBER: Mapping[int, DataType] = {number: each for each, number in NUMBERS.items()}
DATATYPE_FIELD = tensor_pb2.Tensor.DATATYPE_FIELD_NUMBER
SHAPE_FIELD = tensor_pb2.Tensor.SHAPE_FIELD_NUMBER
RAW_FIELD = tensor_pb2.Tensor.RAW_FIELD_NUMBER
RAW_KEY = wire.key(RAW_FIELD, wire.LENGTH_DELIMITED)
REMEMBERED = 256  # shapes, for each input of a model


def label_of(number: int) -> str:
    """What to call a datatype that came by its number, which may be one that nobody knows."""
    return BY_NUMBER[number].label if number in BY_NUMBER else f"datatype {number}"


class ModelCodec:
    """Reads requests for one model and writes its answers.

    Callers that send `raw` send the same few shapes over and over. What has been checked once is remembered
    for such tensors.

    Args:
        model: the model.

    Attributes:
        answer: writes an answer; see `Answers.encode`.
        answer_many: writes several; see `Answers.encode_many`.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._inputs = {name: _Input(spec) for name, spec in model.signature.inputs.items()}
        answers = Answers(model)
        self.answer, self.answer_many = answers.encode, answers.encode_many

    def inputs(self, message: pb.PredictRequest) -> tuple[dict[str, Array], bool]:
        """The request's inputs, in the signature's order, and whether any of them came as `raw`.

        Inputs that may be left out are there only where they were sent.

        Raises:
            InvalidRequest: an input is missing, unknown or does not fit; names it, what came and what was
                expected.
        """
        sent = message.inputs
        arrays, any_raw = {}, False
        for name, known in self._inputs.items():
            tensor = sent.get(name)
            if tensor is None:
                if name in self._model.optional_inputs:
                    continue
                raise InvalidRequest(f"input {name} is missing: {expected_inputs(self._model, sent)}")
            arrays[name], raw = known.read(tensor)
            any_raw = any_raw or raw
        if len(sent) != len(arrays):
            unknown = ", ".join(sorted(set(sent) - set(arrays)))
            raise InvalidRequest(f"there is no input {unknown}: {expected_inputs(self._model, sent)}")
        return arrays, any_raw

    def encoded(self, response: InferResponse, id: str, tag: int, typed: bool) -> bytes | RequestError:
        """As `answer`; an error where protobuf cannot carry it."""
        try:
            return self.answer(response, id, tag, typed)
        except (ValueError, EncodeError) as error:  # over 2 GiB, or text that is none
            return ModelFailed(f"the model's answer cannot be sent: {error}")


class _Input:
    """Reads one input of a model.

    A raw tensor of a shape that has passed all checks before is known by its size: its datatype, its shape
    and as many bytes of values as last time account for all of the message, so nothing else can be in it.
    """

    __slots__ = ("_dtype", "_known", "_number", "_spec")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._number = NUMBERS[spec.datatype]
        self._dtype = spec.datatype.dtype
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def read(self, tensor: tensor_pb2.Tensor) -> tuple[Array, bool]:
        """The tensor as an array, and whether it came as `raw`.

        Raises:
            InvalidRequest: it does not fit.
        """
        raw, shape = tensor.raw, tuple(tensor.shape[:])  # a slice is a list, quicker to walk
        sizes = self._known.get(shape)
        if sizes is not None and tensor.datatype == self._number and sizes == (len(raw), tensor.ByteSize()):
            return np.ndarray(shape, self._dtype, raw), True
        array, is_raw = array_of(tensor, self._spec)
        values_matter = self._spec.datatype in (DataType.BOOL, DataType.BYTES)
        if raw and shape and not values_matter and len(self._known) < REMEMBERED:
            rest = tensor_pb2.Tensor(datatype=self._number, shape=shape).ByteSize()  # type: ignore[arg-type]
            plain = rest + len(RAW_KEY) + len(wire.varint(len(raw))) + len(raw)
            if tensor.ByteSize() == plain:  # so nothing else is in it, not even fields that nobody knows
                self._known[shape] = (len(raw), plain)
        return array, is_raw


def codec_of(model: Model) -> ModelCodec:
    """The model's codec, which lives as long as the model."""
    codec: ModelCodec | None = model.attachments.get(ModelCodec)
    if codec is None:
        codec = model.attachments[ModelCodec] = ModelCodec(model)
    return codec


def array_of(tensor: tensor_pb2.Tensor, spec: TensorSpec) -> tuple[Array, bool]:
    """One input as an array that fits `spec`, and whether it came as `raw`.

    Raises:
        InvalidRequest: it does not fit; says what came and what was expected.
    """
    shape: tuple[int, ...] = ()
    name, content = "", None
    # The fields that are set, in the order of their numbers: datatype, shape, then the values.
    for field, value in tensor.ListFields():
        number = field.number
        if number == DATATYPE_FIELD:
            if value != NUMBERS[spec.datatype]:
                raise InvalidRequest(f"input {spec.name} came as {label_of(value)}, expected {spec.datatype}")
        elif number == SHAPE_FIELD:
            shape = tuple(value)
        elif content is None:
            name, content = field.name, value
        else:
            raise InvalidRequest(f"input {spec.name} came both as {name} and {field.name}; send one of them")
    if content is None:
        return shaped(of_nothing(spec, shape), shape, spec), True
    if number != RAW_FIELD:
        return shaped(values.read(spec, name, content), shape, spec), False
    return shaped(of_raw(spec, content), shape, spec), True
