"""Between protobuf tensors and numpy arrays, held against the model's signature.

What comes as `raw` is never copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import EncodeError

from penstock.errors import InvalidRequest, ModelFailed, RequestError
from penstock.messages import InferResponse
from penstock.models.model import Model
from penstock.rpc import values
from penstock.rpc.answers import LENGTH, NUMBERS, Answers
from penstock.tensors import Array, DataType, TensorSpec
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

BY_NUMBER: Mapping[int, DataType] = {number: each for each, number in NUMBERS.items()}
DATATYPE_FIELD = tensor_pb2.Tensor.DATATYPE_FIELD_NUMBER
SHAPE_FIELD = tensor_pb2.Tensor.SHAPE_FIELD_NUMBER
RAW_FIELD = tensor_pb2.Tensor.RAW_FIELD_NUMBER
REMEMBERED = 256  # shapes, for each input of a model
MAX_AXES = 32  # as many as every numpy takes
MAX_EMPTY = 2**20  # the product of an empty tensor's other axes: it costs its sender nothing


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

        Raises:
            InvalidRequest: an input is missing, unknown or does not fit; names it, what came and what was
                expected.
        """
        sent = message.inputs
        arrays, any_raw = {}, False
        for name, known in self._inputs.items():
            tensor = sent.get(name)
            if tensor is None:
                raise InvalidRequest(f"input {name} is missing: {self._expected(sent)}")
            arrays[name], raw = known.read(tensor)
            any_raw = any_raw or raw
        if len(sent) != len(arrays):
            unknown = ", ".join(sorted(set(sent) - set(arrays)))
            raise InvalidRequest(f"there is no input {unknown}: {self._expected(sent)}")
        return arrays, any_raw

    def outputs(self, wanted: Collection[str]) -> Sequence[str]:
        """The outputs wanted, each once, in the signature's order.

        Raises:
            InvalidRequest: the model has no such output.
        """
        names = self._model.output_names
        unknown = [name for name in wanted if name not in names]
        if unknown:
            has = ", ".join(names)
            raise InvalidRequest(f"there is no output {', '.join(unknown)}; {self._model} has {has}")
        return tuple(name for name in names if name in wanted)

    def layout(self, arrays: Mapping[str, Array]) -> tuple[int, object]:
        """How many rows a request has, and what requests must have in common to share a batch with it.

        Returns:
            The length of the first axis where the model is batched, else 1; and the lengths of the inner
            axes where some are open, else None.

        Raises:
            InvalidRequest: the inputs differ in their number of rows.
        """
        model = self._model
        if not model.batching.enabled:
            return 1, None
        rows = -1
        for array in arrays.values():
            length: int = array.shape[0]
            if rows < 0:
                rows = length
            elif rows != length:
                lengths = ", ".join(f"{name} has {each.shape[0]}" for name, each in arrays.items())
                raise InvalidRequest(f"all inputs need the same number of rows: {lengths}")
        if not model.open_shapes:
            return rows, None
        return rows, tuple([array.shape[1:] for array in arrays.values()])

    def encoded(self, response: InferResponse, id: str, tag: int, typed: bool) -> bytes | RequestError:
        """As `answer`; an error where protobuf cannot carry it."""
        try:
            return self.answer(response, id, tag, typed)
        except (ValueError, EncodeError) as error:  # over 2 GiB, or text that is none
            return ModelFailed(f"the model's answer cannot be sent: {error}")

    def _expected(self, sent: Mapping[str, Any]) -> str:
        came = ", ".join(sorted(sent)) or "none"
        specs = self._model.signature.inputs.values()
        return f"expected {', '.join(map(str, specs)) or 'none'}; came {came}"


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
        if raw and tensor.datatype and shape and not values_matter and len(self._known) < REMEMBERED:
            self._known[shape] = (len(raw), tensor.ByteSize())
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
        return _shaped(_of_nothing(spec, shape), shape, spec), True
    if number != RAW_FIELD:
        return _shaped(values.read(spec, name, content), shape, spec), False
    return _shaped(_of_raw(spec, content), shape, spec), True


def _of_nothing(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The flat array of a tensor that came without values: fine where its shape holds none."""
    if 0 not in shape:
        raise InvalidRequest(f"input {spec.name} came without values, expected {spec}")
    return np.empty(0, spec.datatype.dtype)


def _of_raw(spec: TensorSpec, raw: bytes) -> Array:
    if spec.datatype is DataType.BYTES:
        return values.text_array(_unpacked(spec, raw))
    size = spec.datatype.dtype.itemsize
    if len(raw) % size:
        raise InvalidRequest(
            f"input {spec.name} came with {len(raw)} bytes, which is no multiple of "
            f"the {size} of {spec.datatype}"
        )
    flat = np.frombuffer(raw, spec.datatype.dtype)
    if spec.datatype is DataType.BOOL and flat.view(np.uint8).max(initial=0) > 1:
        raise InvalidRequest(f"input {spec.name} is BOOL: every byte must be 0 or 1")
    return flat


def _unpacked(spec: TensorSpec, raw: bytes) -> list[str]:
    texts: list[str] = []
    position = 0
    while position < len(raw):
        start = position + LENGTH.size
        length = LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else 0
        position = start + length
        if position > len(raw):
            raise InvalidRequest(
                f"input {spec.name}: element {len(texts)} reaches beyond the {len(raw)} bytes that came"
            )
        texts.append(values.decoded(spec, len(texts), raw[start:position]))
    return texts


def _shaped(flat: Array, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    """The flat array in its shape, which is inferred where none was sent."""
    count = len(flat)
    if not shape and spec.shape != () and count:
        shape = _inferred(count, spec)
    if not fits(shape, spec):
        raise InvalidRequest(f"input {spec.name} came with shape {list(shape)}, expected {spec}")
    holds = math.prod(shape)
    if holds != count:
        raise InvalidRequest(
            f"input {spec.name} came with {count} values for shape {list(shape)}, which holds {holds}"
        )
    if not count and math.prod(filter(None, shape)) > MAX_EMPTY:
        raise InvalidRequest(f"input {spec.name} came empty with shape {list(shape)}, which is too large")
    return flat.reshape(shape)


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether a shape is one that `spec` declares."""
    declared = spec.shape
    if declared is None:
        return len(shape) <= MAX_AXES and all(length >= 0 for length in shape)
    if len(shape) != len(declared):
        return False
    for length, expected in zip(shape, declared):  # noqa: B905 - equally long, and this is the hot path
        if length != expected and (length < 0 or isinstance(expected, int)):
            return False
    return True


def _inferred(count: int, spec: TensorSpec) -> tuple[int, ...]:
    """The one shape that `spec` allows for so many values.

    Raises:
        InvalidRequest: there is none, or more than one.
    """
    declared = spec.shape
    if declared is None:
        if count == 1:
            return ()
        raise InvalidRequest(f"input {spec.name} came without a shape, and the model declares none")
    open_axes = sum(isinstance(size, str) for size in declared)
    if open_axes > 1:
        raise InvalidRequest(
            f"input {spec.name} came without a shape, which {open_axes} open axes make unclear: {spec}"
        )
    fixed = math.prod(size for size in declared if isinstance(size, int))
    if not open_axes and count == fixed:
        return tuple(size for size in declared if isinstance(size, int))
    if not open_axes or not fixed or count % fixed:
        raise InvalidRequest(f"input {spec.name} came with {count} values, which do not fill {spec}")
    return tuple(size if isinstance(size, int) else count // fixed for size in declared)
