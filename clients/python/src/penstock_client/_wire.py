"""Requests and answers as bytes, for what is done millions of times: no protobuf object where none is needed.

Serialized protobuf messages may be put one behind another, and fields come in any order, so that a request is
a few pieces that do not change, the bytes of its tensors between them, and its tag. An answer like one that
was read before is read by its layout; every other one by protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from penstock_client._errors import PenstockError
from penstock_client._tensors import DTYPES, decode
from penstock_client._types import Array, Prediction, Sequence, sequence_of
from penstock_proto.v1 import prediction_pb2, tensor_pb2

LENGTH_DELIMITED = 2
_INPUTS = prediction_pb2.PredictRequest.INPUTS_FIELD_NUMBER
_REQUESTS = prediction_pb2.PredictStreamRequest.REQUESTS_FIELD_NUMBER
_RAW = tensor_pb2.Tensor.RAW_FIELD_NUMBER
_OUTPUTS = prediction_pb2.PredictResponse.OUTPUTS_FIELD_NUMBER
_TIMING = prediction_pb2.PredictResponse.TIMING_FIELD_NUMBER
_MODEL = prediction_pb2.PredictResponse.MODEL_FIELD_NUMBER
_VERSION = prediction_pb2.PredictResponse.VERSION_FIELD_NUMBER
_MAP_KEY, _MAP_VALUE = 1, 2  # of an entry of any protobuf map

_ID = prediction_pb2.PredictResponse.ID_FIELD_NUMBER
_TAG = prediction_pb2.PredictResponse.TAG_FIELD_NUMBER
_TAG_KEY = _TAG << 3
_TIMING_KEY = _TIMING << 3 | LENGTH_DELIMITED
_SHORT_KEYS = {_TIMING_KEY, _ID << 3 | LENGTH_DELIMITED}
_OUTPUTS_KEY = _OUTPUTS << 3 | LENGTH_DELIMITED
_REMEMBERED = 64  # layouts of one template


def varint(number: int) -> bytes:
    """A number that is not negative, as protobuf writes it: 7 bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends.

    Raises:
        IndexError: it is cut off.
    """
    number = shift = 0
    while (byte := data[at]) > 0x7F:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return number | byte << shift, at + 1


def opened(field: int, size: int) -> bytes:
    """What comes before the `size` bytes of a length-delimited field."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(size)


@lru_cache(4096)
def request_opened(size: int) -> bytes:
    """What comes before a request of `size` bytes in a PredictStreamRequest."""
    return opened(_REQUESTS, size)


@lru_cache(4096)
def input_opened(name: str, datatype: int, shape: tuple[int, ...], size: int) -> bytes:
    """All of an input in a request that comes before its raw bytes, which come last.

    Args:
        name: the input's.
        datatype: as the protocol numbers it.
        shape: of the tensor.
        size: how many raw bytes there are.
    """
    tensor = tensor_pb2.Tensor(datatype=datatype, shape=shape)  # type: ignore[arg-type]  # the enum's number
    head = tensor.SerializeToString() + opened(_RAW, size)
    key = name.encode()
    entry = opened(_MAP_KEY, len(key)) + key + opened(_MAP_VALUE, len(head) + size)
    return opened(_INPUTS, len(entry) + len(head) + size) + entry + head


def input_of(head: bytes) -> tuple[str, int, tuple[int, ...]]:
    """The name, the datatype's number and the shape that `input_opened` wrote."""
    _, at = read_varint(head, 1)
    length, at = read_varint(head, at + 1)
    name = head[at : at + length].decode()
    size, at = read_varint(head, at + length + 1)
    fields = head[at:]
    raw = opened(_RAW, size - len(fields))
    tensor = tensor_pb2.Tensor.FromString(fields[: -len(raw)])
    return name, tensor.datatype, tuple(tensor.shape)


class _Output(NamedTuple):
    """One output in a known answer: what comes before its bytes, and how to read them."""

    name: str
    head: bytes
    size: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Layout(NamedTuple):
    """Where things are in an answer: `names`, perhaps timing, id and tag, then the outputs, then the rest."""

    names: bytes
    model: str
    version: str
    outputs: tuple[_Output, ...]

    def read(self, data: bytes) -> dict[str, Array] | None:
        """The outputs of an answer with this layout; None where it has another one."""
        if not data.startswith(self.names):
            return None
        at = len(self.names)
        while (key := data[at]) != _OUTPUTS_KEY:
            if key in _SHORT_KEYS:
                at += 2 + data[at + 1]
            elif key == _TAG_KEY:
                _, at = read_varint(data, at + 1)
            else:
                return None
        arrays = {}
        for name, head, size, shape, dtype in self.outputs:
            if not data.startswith(head, at):
                return None
            at += len(head)
            arrays[name] = np.ndarray(shape, dtype, data[at : at + size])
            at += size
        # What follows may hold one more output; where a byte only looks so, protobuf reads the answer.
        return None if at < len(data) and _OUTPUTS_KEY in data[at:] else arrays

    def places(self, data: bytes, at: int, stop: int) -> tuple[int | None, list[int]] | None:
        """Where the tag's number and the bytes of every output begin in the answer at `data[at:stop]`.

        Returns:
            None where the answer has another layout, an id, or anything after the outputs.

        Raises:
            IndexError: it is cut off.
        """
        if not data.startswith(self.names, at):
            return None
        at += len(self.names)
        tag = None
        while (key := data[at]) != _OUTPUTS_KEY:
            if key == _TIMING_KEY and data[at + 1] < 0x80:
                at += 2 + data[at + 1]
            elif key == _TAG_KEY and tag is None:
                tag = at + 1
                _, at = read_varint(data, tag)
            else:
                return None
        values = []
        for output in self.outputs:
            if not data.startswith(output.head, at):
                return None
            values.append(at + len(output.head))
            at = values[-1] + output.size
        return (tag, values) if at == stop else None


class Template:
    """All of a request that stays the same from call to call, and what its answers look like.

    Args:
        model: the model's name.
        version: a version number, a label, or "" for the default.
        outputs: the outputs wanted; None for all.
        priority: of the request.

    Attributes:
        key: the model and the version asked for.
        fields: the serialized fields of the request that are not its inputs.
        alone: whether it is never merged with others.
    """

    __slots__ = ("_layouts", "alone", "fields", "key")

    def __init__(self, model: str, version: str, outputs: tuple[str, ...] | None, priority: int) -> None:
        self.key = (model, version)
        self.fields = prediction_pb2.PredictRequest(
            model=model,
            version=version,
            outputs=outputs or (),
            priority=priority,
            output_encoding=prediction_pb2.RAW,
        ).SerializeToString()
        self.alone = False
        self._layouts: dict[bytes, Layout] = {}

    def of_step(self, said: Sequence | str) -> Template:
        """The same for one request only, which is a step of a sequence; what answers look like is shared.

        Raises:
            TypeError: this is no sequence.
            ValueError: it has no id.
        """
        sequence = sequence_of(said)
        if not sequence.id:  # the stream that `predict` may use is shared, and has no sequence
            raise ValueError(
                "the id of a sequence is not empty here: only predict_stream has a sequence of its own"
            )
        step = copy(self)
        written = prediction_pb2.Sequence(id=sequence.id, start=sequence.start, end=sequence.end)
        step.fields += prediction_pb2.PredictRequest(sequence=written).SerializeToString()
        step.alone = True
        return step

    def read(self, data: bytes, head: bytes, id: str) -> Prediction:
        """The prediction in a serialized PredictResponse.

        Args:
            data: the answer.
            head: what came before the bytes of the request's first input: a request of the same shape is
                most likely answered in the same layout.
            id: the request's.

        Raises:
            PenstockError: UNKNOWN, when it cannot be read.
        """
        layout = self._layouts.get(head)
        if layout is not None:
            try:
                arrays = layout.read(data)
            except (IndexError, TypeError):  # cut off
                arrays = None
            if arrays is not None:
                return Prediction(layout.model, layout.version, id, arrays, data)
        return self._learn(data, head)

    def _learn(self, data: bytes, head: bytes) -> Prediction:
        response = parsed(data)
        # By name: the order of a protobuf map differs from process to process.
        arrays = {name: decode(name, response.outputs[name]) for name in sorted(response.outputs)}
        layout = layout_of(data, response)
        if layout is not None and (head in self._layouts or len(self._layouts) < _REMEMBERED):
            self._layouts[head] = layout
        return Prediction(response.model, response.version, response.id, arrays, data)


def parsed(data: bytes) -> prediction_pb2.PredictResponse:
    """The PredictResponse in `data`.

    Raises:
        PenstockError: UNKNOWN, when there is none.
    """
    try:
        return prediction_pb2.PredictResponse.FromString(data)
    except DecodeError:
        raise PenstockError(f"the {len(data)} bytes that the server answered are no prediction") from None


def extras(id: str, timeout: float | None, metadata: Mapping[str, str] | None) -> bytes:
    """The serialized fields of a request that may differ from call to call; `timeout` is in seconds."""
    if not id and timeout is None and not metadata:
        return b""
    request = prediction_pb2.PredictRequest(id=id, metadata=metadata or {})
    if timeout is not None:
        # At least a nanosecond: 0 would mean no limit.
        whole, nanos = divmod(max(1, round(timeout * 1e9)), 10**9)
        request.timeout.seconds, request.timeout.nanos = whole, nanos
    return request.SerializeToString()


def layout_of(data: bytes, response: prediction_pb2.PredictResponse) -> Layout | None:
    """The layout of an answer whose outputs can be decoded, where it is one that can be recognized again.

    It is where the names of model and version come first, then perhaps timing, id and tag, then all outputs,
    none of them empty or text, with their raw bytes last.
    """
    spans, size = _fields(data), len(response.outputs)
    numbers = [field for field, _, _ in spans]
    count = sum(number in (_MODEL, _VERSION) for number in numbers)
    first = numbers.index(_OUTPUTS) if _OUTPUTS in numbers else count
    last = first + size
    between = {*numbers[count:first]} <= {_TIMING, _ID, _TAG}
    if {*numbers[:count]} != {_MODEL, _VERSION} or not between or numbers.count(_OUTPUTS) != size:
        return None
    if numbers[first:last] != [_OUTPUTS] * size or size == 0:
        return None
    outputs = []
    for _, start, stop in spans[first:last]:
        found = _output(data[start:stop], response)
        if found is None:
            return None
        outputs.append(found)
    return Layout(data[: spans[count - 1][2]], response.model, response.version, tuple(outputs))


def _output(field: bytes, response: prediction_pb2.PredictResponse) -> _Output | None:
    """How to read one output again; None where it has no fixed size, or its raw bytes do not come last."""
    [name] = prediction_pb2.PredictResponse.FromString(field).outputs
    tensor = response.outputs[name]
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None or not tensor.raw or not field.endswith(tensor.raw):
        return None
    head = field[: -len(tensor.raw)]
    if not head.endswith(opened(_RAW, len(tensor.raw))):
        return None
    return _Output(name, head, len(tensor.raw), tuple(tensor.shape), dtype)


def _fields(data: bytes) -> list[tuple[int, int, int]]:
    """The top-level fields of a PredictResponse that protobuf could read: number, start and end."""
    at, spans = 0, []
    while at < len(data):
        start = at
        key, at = read_varint(data, at)
        if key & 7 == LENGTH_DELIMITED:
            size, at = read_varint(data, at)
            at += size
        else:
            _, at = read_varint(data, at)
        spans.append((key >> 3, start, at))
    return spans
