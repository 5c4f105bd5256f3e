"""Decodes a PredictRequest: its tensors become arrays that fit the model's signature.

Values in `raw` are not copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from penstock.core import wire
from penstock.core.errors import InvalidRequest
from penstock.core.names import missing
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols import long_lists
from penstock.protocols import typed_lists as values
from penstock.protocols.codec import Contents, Decoded, SequenceStep, attached, parsed
from penstock.protocols.long_lists import NO_LISTS, Layout, Lists
from penstock.protocols.penstock_v1.encoder import NUMBERS
from penstock.protocols.tensors import expected_inputs, of_nothing, of_raw, shaped, wanted_outputs
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

BY_NUMBER: Mapping[int, DataType] = {number: each for each, number in NUMBERS.items()}
DATATYPE_FIELD = tensor_pb2.Tensor.DATATYPE_FIELD_NUMBER
SHAPE_FIELD = tensor_pb2.Tensor.SHAPE_FIELD_NUMBER
RAW_FIELD = tensor_pb2.Tensor.RAW_FIELD_NUMBER
RAW_KEY = wire.key(RAW_FIELD, wire.LENGTH_DELIMITED)
REMEMBERED = 256  # shapes, for each input of a model
INTEGERS = ("bool_values", "int_values", "uint_values")
LAYOUT = Layout(
    inputs=wire.key(pb.PredictRequest.INPUTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0],
    tensor=wire.key(2, wire.LENGTH_DELIMITED)[0],  # the value of an entry of a map
    lists={
        tensor_pb2.Tensor.DESCRIPTOR.fields_by_name[name].number: (name, values.LISTS[name])
        for name in INTEGERS
    },
)
"""Where the lists of integers are."""


def decode(data: bytes) -> Decoded:
    """The request in a message.

    Raises:
        InvalidRequest: the bytes are not a PredictRequest.
    """
    if len(data) < long_lists.MESSAGE_BYTES:
        return DecodedPredict(parsed(pb.PredictRequest, data), len(data))
    message, lists = long_lists.parsed_apart(pb.PredictRequest, data, LAYOUT)
    return DecodedPredict(message, len(data), lists)


class DecodedPredict(Decoded):
    """A PredictRequest.

    Args:
        message: the message.
        size: its size in bytes.
        lists: the lists that are not in the message.
    """

    __slots__ = ("_lists", "_message")
    learns_steps = True

    def __init__(self, message: pb.PredictRequest, size: int, lists: Lists = NO_LISTS) -> None:
        super().__init__(message.model, message.version, message.id, message.tag, size)
        self._message = message
        self._lists = lists

    @property
    @override
    def names_sequence(self) -> bool:
        return bool(self._message.sequence.id)

    @override
    def contents(self, model: Model) -> Contents:
        message = self._message
        sequence = None
        if message.HasField("sequence"):
            if model.sequence_state is None:
                raise InvalidRequest(f"the request names a sequence, but {model} has no state")
            said = message.sequence
            sequence = SequenceStep(said.id, said.start, said.end)
        arrays, any_raw = attached(model, Inputs).read(message, self._lists)
        outputs, encoding = message.outputs, message.output_encoding
        return Contents(
            arrays,
            wanted_outputs(model, outputs) if outputs else model.output_names,
            encoding == pb.TYPED or not (any_raw or encoding),
            _seconds(message) if message.HasField("timeout") else math.inf,
            message.priority,
            sequence,
        )

    @override
    def metadata(self) -> Mapping[str, str]:
        return self._message.metadata


def _seconds(message: pb.PredictRequest) -> float:
    """The timeout of a request in seconds; infinity if it is 0."""
    seconds = message.timeout.seconds + message.timeout.nanos / 1e9
    if seconds < 0:
        raise InvalidRequest(f"timeout is {seconds} s, expected 0 (no timeout) or a positive number")
    return seconds or math.inf


def label_of(number: int) -> str:
    """The name of a datatype by its number, which may be unknown."""
    return BY_NUMBER[number].label if number in BY_NUMBER else f"datatype {number}"


class Inputs:
    """Reads the inputs of requests for one model.

    Callers that send `raw` usually send the same few shapes again and again. The results of the checks are
    remembered for such tensors.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._inputs = {name: _Input(spec) for name, spec in model.signature.inputs.items()}

    def read(self, message: pb.PredictRequest, lists: Lists = NO_LISTS) -> tuple[dict[str, Array], bool]:
        """The request's inputs in the signature's order, and whether any of them was sent as `raw`.

        Optional inputs are included only if they were sent.

        Args:
            message: the request.
            lists: the lists that are not in the message.

        Raises:
            InvalidRequest: an input is missing, unknown or does not fit; the text names it, what was received
                and what was expected.
        """
        sent = message.inputs
        arrays, any_raw = {}, False
        for name, known in self._inputs.items():
            tensor = sent.get(name)
            if tensor is None:
                if name in self._model.optional_inputs:
                    continue
                raise InvalidRequest.of_form(f"{missing([name])}: {expected_inputs(self._model, sent)}")
            arrays[name], raw = known.read(tensor, lists)
            any_raw = any_raw or raw
        if len(sent) != len(arrays):
            unknown = ", ".join(sorted(set(sent) - set(arrays)))
            raise InvalidRequest.of_form(f"there is no input {unknown}: {expected_inputs(self._model, sent)}")
        return arrays, any_raw


class _Input:
    """Reads one input of a model.

    A raw tensor whose shape has passed all checks before is recognised by the size of its message: if
    datatype, shape and the same number of value bytes account for all of it, it has no other fields.
    """

    __slots__ = ("_dtype", "_known", "_number", "_spec")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._number = NUMBERS[spec.datatype]
        self._dtype = spec.datatype.dtype
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def read(self, tensor: tensor_pb2.Tensor, lists: Lists) -> tuple[Array, bool]:
        """The tensor as an array, and whether it was sent as `raw`.

        Raises:
            InvalidRequest: it does not fit.
        """
        raw, shape = tensor.raw, tuple(tensor.shape[:])  # a slice is a list, which is faster to iterate
        sizes = self._known.get(shape)
        if sizes is not None and tensor.datatype == self._number and sizes == (len(raw), tensor.ByteSize()):
            return np.ndarray(shape, self._dtype, raw), True
        array, is_raw = array_of(tensor, self._spec, lists)
        values_matter = self._spec.datatype in (DataType.BOOL, DataType.BYTES)
        if raw and shape and not values_matter and len(self._known) < REMEMBERED:
            rest = tensor_pb2.Tensor(datatype=self._number, shape=shape).ByteSize()  # type: ignore[arg-type]
            plain = rest + len(RAW_KEY) + len(wire.varint(len(raw))) + len(raw)
            if tensor.ByteSize() == plain:  # so it has no other fields, not even unknown ones
                self._known[shape] = (len(raw), plain)
        return array, is_raw


def array_of(tensor: tensor_pb2.Tensor, spec: TensorSpec, lists: Lists = NO_LISTS) -> tuple[Array, bool]:
    """One input as an array that fits `spec`, and whether it was sent as `raw`.

    Args:
        tensor: the input.
        spec: its spec.
        lists: the lists that are not in the message.

    Raises:
        InvalidRequest: it does not fit; the text says what was received and what was expected.
    """
    shape: tuple[int, ...] = ()
    name, content = "", None
    # The fields that are set, in the order of their numbers: datatype, shape, then the values.
    for field, value in tensor.ListFields():
        number = field.number
        if number == DATATYPE_FIELD:
            if value != NUMBERS[spec.datatype]:
                raise InvalidRequest.of_form(
                    f"input {spec.name} has datatype {label_of(value)}, expected {spec.datatype}"
                )
        elif number == SHAPE_FIELD:
            shape = tuple(value)
        elif content is None:
            name, content = field.name, lists.get((spec.name, field.name), value) if lists else value
        else:
            raise InvalidRequest(
                f"input {spec.name} has values both in {name} and in {field.name}; send one of them"
            )
    if content is None:
        return shaped(of_nothing(spec, shape), shape, spec), True
    if number != RAW_FIELD:
        return shaped(values.read(spec, name, content), shape, spec), False
    return shaped(of_raw(spec, content), shape, spec), True
