"""Between protobuf tensors and numpy arrays, held against the model's signature.

What comes as `raw` is never copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.errors import InvalidRequest
from penstock.messages import InferResponse
from penstock.models.model import Model
from penstock.rpc import values
from penstock.tensors import Array, DataType, TensorSpec
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

NUMBERS: Mapping[DataType, int] = {each: tensor_pb2.DataType.Value(each.label) for each in DataType}
BY_NUMBER: Mapping[int, DataType] = {number: each for each, number in NUMBERS.items()}
DATATYPE_FIELD = tensor_pb2.Tensor.DATATYPE_FIELD_NUMBER
SHAPE_FIELD = tensor_pb2.Tensor.SHAPE_FIELD_NUMBER
RAW_FIELD = tensor_pb2.Tensor.RAW_FIELD_NUMBER
MAX_AXES = 64  # as many as numpy takes
LENGTH = struct.Struct("<I")


def label_of(number: int) -> str:
    """What to call a datatype that came by its number, which may be one that nobody knows."""
    return BY_NUMBER[number].label if number in BY_NUMBER else f"datatype {number}"


def inputs_of(message: pb.PredictRequest, model: Model) -> tuple[dict[str, Array], bool]:
    """The request's inputs, in the signature's order, and whether any of them came as `raw`.

    Raises:
        InvalidRequest: an input is missing, unknown or does not fit; names it, what came and what was
            expected.
    """
    sent, specs = message.inputs, model.signature.inputs
    arrays, any_raw = {}, False
    for name, spec in specs.items():
        if name not in sent:
            raise InvalidRequest(f"input {name} is missing: {_expected_names(sent, specs)}")
        arrays[name], raw = array_of(sent[name], spec)
        any_raw = any_raw or raw
    if len(sent) != len(specs):
        unknown = ", ".join(sorted(set(sent) - set(specs)))
        raise InvalidRequest(f"there is no input {unknown}: {_expected_names(sent, specs)}")
    return arrays, any_raw


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
            shape = tuple(value[:])  # a slice is a list, which is twice as quick to walk
        elif content is None:
            name, content = field.name, value
        else:
            raise InvalidRequest(f"input {spec.name} came both as {name} and {field.name}; send one of them")
    if content is None:
        return _shaped(_of_nothing(spec, shape), shape, spec), True
    if number != RAW_FIELD:
        return _shaped(values.read(spec, name, content), shape, spec), False
    return _shaped(_of_raw(spec, content), shape, spec), True


def outputs_of(message: pb.PredictRequest, model: Model) -> Sequence[str]:
    """The outputs wanted, in the signature's order.

    Raises:
        InvalidRequest: the model has no such output.
    """
    wanted = message.outputs
    if not wanted:
        return model.output_names
    unknown = [name for name in wanted if name not in model.signature.outputs]
    if unknown:
        raise InvalidRequest(
            f"there is no output {', '.join(unknown)}; {model} has {', '.join(model.output_names)}"
        )
    return tuple(name for name in model.output_names if name in wanted)


def rows_of(arrays: Mapping[str, Array], model: Model) -> int:
    """How many rows a request has: the length of the first axis, where the model is batched; else 1.

    Raises:
        InvalidRequest: the inputs differ in it.
    """
    if not model.batching.enabled:
        return 1
    rows = -1
    for array in arrays.values():
        length = array.shape[0]
        if rows < 0:
            rows = length
        elif rows != length:
            lengths = ", ".join(f"{name} has {each.shape[0]}" for name, each in arrays.items())
            raise InvalidRequest(f"all inputs need the same number of rows: {lengths}")
    return rows


def shape_key(arrays: Mapping[str, Array], model: Model) -> object:
    """What requests must have in common to share a batch: the lengths of the open inner axes."""
    return tuple([array.shape[1:] for array in arrays.values()]) if model.open_shapes else None


def fill_response(
    message: pb.PredictResponse, response: InferResponse, model: Model, arrived: float, typed: bool
) -> None:
    """Writes the model's answer to a request that came at `arrived` into `message`."""
    message.model = model.name
    message.version = model.version_text
    outputs, specs = message.outputs, model.signature.outputs
    for name, array in response.outputs.items():
        tensor, datatype = outputs[name], specs[name].datatype
        tensor.datatype = NUMBERS[datatype]  # type: ignore[assignment]
        tensor.shape.extend(array.shape)
        if typed:
            values.write(tensor, datatype, array)
        else:
            tensor.raw = pack_bytes(array) if datatype is DataType.BYTES else array.tobytes()
    run, timing = response.run, message.timing
    _set_duration(timing.queue, run.started - arrived)
    _set_duration(timing.compute, run.finished - run.started)
    timing.batch_rows = run.rows


def pack_bytes(array: Array) -> bytes:
    """The elements of a text array, each behind its length in 4 bytes, little-endian."""
    parts: list[bytes] = []
    for text in array.ravel():
        data = text.encode()
        parts += (LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _set_duration(duration: Any, seconds: float) -> None:
    nanos = int(seconds * 1e9)
    if nanos >= 1_000_000_000:
        duration.seconds, nanos = divmod(nanos, 1_000_000_000)
    duration.nanos = max(nanos, 0)


def _expected_names(sent: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> str:
    came = ", ".join(sorted(sent)) or "none"
    return f"expected {', '.join(map(str, specs.values())) or 'none'}; came {came}"


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
