"""Encodes requests and decodes answers without protobuf objects, since this is done for every request.

Serialized protobuf messages can be concatenated, with fields in any order. So a request consists of a few
constant pieces, the bytes of its tensors between them, and its tag. An answer with a known layout is read by
that layout; every other one is parsed by protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from penstock_client._errors import PenstockError, no_utf8
from penstock_client._tensors import DTYPES, decode
from penstock_client._types import Array, Prediction, Sequence, sequence_of
from penstock_proto.v1 import prediction_pb2, tensor_pb2

LENGTH_DELIMITED = 2
_INPUTS = prediction_pb2.PredictRequest.INPUTS_FIELD_NUMBER
_REQUESTS = prediction_pb2.PredictStreamRequest.REQUESTS_FIELD_NUMBER
_REQUEST_TAG = prediction_pb2.PredictRequest.TAG_FIELD_NUMBER
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
_ID_KEY = _ID << 3 | LENGTH_DELIMITED
_SHORT_KEYS = {_TIMING_KEY, _ID_KEY}
_NONE = (0, 0)  # the span of what is not there
_OUTPUTS_KEY = _OUTPUTS << 3 | LENGTH_DELIMITED
_REMEMBERED = 64  # layouts of one known request


def varint(number: int) -> bytes:
    """A non-negative number as a protobuf varint: 7 bits per byte, lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint that starts at `at`, and its end.

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
    """The key and the length of a field with `size` bytes."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(size)


_REQUEST_ID = varint(prediction_pb2.PredictRequest.ID_FIELD_NUMBER << 3 | LENGTH_DELIMITED)
_TIMEOUT = varint(prediction_pb2.PredictRequest.TIMEOUT_FIELD_NUMBER << 3 | LENGTH_DELIMITED)
_METADATA = prediction_pb2.PredictRequest.METADATA_FIELD_NUMBER
_WIDE = [bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(2**14)]  # 14 bits, and more follow
_SECONDS, _NANOS = varint(1 << 3), varint(2 << 3)  # of a Duration
_LONGEST_SECONDS = 315_576_000_000  # of a Duration: 10,000 years


@lru_cache(4096)
def request_opened(size: int) -> bytes:
    """The key and the length of a request of `size` bytes in a PredictStreamRequest."""
    return opened(_REQUESTS, size)


@lru_cache(4096)
def input_opened(name: str, datatype: int, shape: tuple[int, ...], size: int) -> bytes:
    """The part of an encoded input before its raw bytes, which are last.

    Args:
        name: of the input.
        datatype: the protocol's number.
        shape: of the tensor.
        size: the number of raw bytes.
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
    """One output in a known layout: the part before its bytes, and how to read them."""

    name: str
    head: bytes
    size: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class LayoutSpans(NamedTuple):
    """Where answers with the same layout may differ; starts and ends are equal for what is not there.

    Attributes:
        tag: the start of the tag's number; None if there is no tag.
        timing: the start and the end of the serialized timing.
        id: the start and the end of the id.
        values: the start of the bytes of each output.
    """

    tag: int | None
    timing: tuple[int, int]
    id: tuple[int, int]
    values: list[int]


class Layout(NamedTuple):
    """The layout of an answer: `names`, optionally timing, id and tag, then the outputs, then the rest."""

    names: bytes
    model: str
    version: str
    outputs: tuple[_Output, ...]

    def read(self, data: bytes) -> dict[str, Array] | None:
        """The outputs of an answer with this layout; None if it has another one."""
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
        # The rest may contain another output. If a byte only looks like one, protobuf parses the answer.
        return None if at < len(data) and _OUTPUTS_KEY in data[at:] else arrays

    def spans(self, data: bytes, at: int, stop: int) -> LayoutSpans | None:
        """The spans in which answers with this layout differ, in the answer at `data[at:stop]`.

        Returns:
            None if the answer has another layout, a field twice, or anything after the outputs.

        Raises:
            IndexError: it is cut off.
        """
        if not data.startswith(self.names, at):
            return None
        at += len(self.names)
        tag, short = None, {_TIMING_KEY: _NONE, _ID_KEY: _NONE}
        while (key := data[at]) != _OUTPUTS_KEY:
            if key == _TAG_KEY and tag is None:
                tag = at + 1
                _, at = read_varint(data, tag)
            elif short.get(key) is _NONE and data[at + 1] < 0x80:
                short[key] = (at + 2, at + 2 + data[at + 1])
                at = short[key][1]
            else:
                return None
        values = []
        for output in self.outputs:
            if not data.startswith(output.head, at):
                return None
            values.append(at + len(output.head))
            at = values[-1] + output.size
        return LayoutSpans(tag, short[_TIMING_KEY], short[_ID_KEY], values) if at == stop else None


class KnownRequest:
    """The part of a request that stays the same between calls, and the layouts of its answers.

    Args:
        model: the model's name.
        version: a version number, a label, or "" for the default.
        outputs: the outputs to return; None for all.
        priority: of the request.

    Attributes:
        key: the model and the version asked for.
        fields: the serialized fields of the request, without its inputs.
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

    def of_step(self, said: Sequence | str) -> KnownRequest:
        """A copy for one request that is a step of a sequence; it shares the layouts of answers.

        Raises:
            InvalidInput: its id cannot be written as UTF-8.
            TypeError: this is not a sequence.
            ValueError: it has no id.
        """
        sequence = sequence_of(said)
        if not sequence.id:  # the shared stream of `predict` has no sequence of its own
            raise ValueError(
                "the id of a sequence must not be empty: only predict_stream has its own sequence"
            )
        of_step = copy(self)
        of_step.fields += step(sequence)
        of_step.alone = True
        return of_step

    def read(self, data: bytes, head: bytes, id: str) -> Prediction:
        """The prediction in a serialized PredictResponse.

        Args:
            data: the answer.
            head: the part of the request before the bytes of its first input: requests of the same shape
                usually get answers with the same layout.
            id: of the request.

        Raises:
            PenstockError: UNKNOWN, if it cannot be parsed.
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
        PenstockError: UNKNOWN, if it cannot be parsed.
    """
    try:
        return prediction_pb2.PredictResponse.FromString(data)
    except DecodeError:
        raise PenstockError(f"the server's answer ({len(data)} bytes) cannot be parsed") from None


def extras(id: str, timeout: float | None, metadata: Mapping[str, str] | None) -> bytes:
    """The serialized fields of a request that may differ from call to call; `timeout` is in seconds.

    They are written in the order of the numbers of the fields, and the timeout always in the same width: so
    requests of one caller have the same layout, and the server reads many of them together.
    """
    written = b""
    if id:
        text = id.encode()
        written = _REQUEST_ID + varint(len(text)) + text
    if timeout is not None:
        written += _timeout(timeout)
    for key, value in (metadata or {}).items():
        text = value.encode()
        written += _metadata_opened(key, len(text)) + text
    return written


@lru_cache(256)
def _timeout(timeout: float) -> bytes:
    # At least a nanosecond: 0 would mean no limit.
    whole, nanos = divmod(max(1, round(timeout * 1e9)), 10**9)
    seconds = varint(min(whole, _LONGEST_SECONDS)) if whole else b"\0"
    return b"%b%c%b%b%b%b" % (_TIMEOUT, 7 + len(seconds), _SECONDS, seconds, _NANOS, _wide(nanos))


@lru_cache(1024)
def _metadata_opened(key: str, size: int) -> bytes:
    """The part of an entry of the metadata before its value of `size` bytes, which is last."""
    name = key.encode()
    entry = opened(_MAP_KEY, len(name)) + name + opened(_MAP_VALUE, size)
    return opened(_METADATA, len(entry) + size) + entry


def _wide(number: int) -> bytes:
    """A number below 2**35 as a varint of 5 bytes, however small it is."""
    low, high = number & 0x3FFF, number >> 14
    return b"%b%b%c" % (_WIDE[low], _WIDE[high & 0x3FFF], high >> 14)


def step(sequence: Sequence) -> bytes:
    """The serialized sequence field of a request; an `InvalidInput` if its id has no UTF-8."""
    try:
        written = prediction_pb2.Sequence(id=sequence.id, start=sequence.start, end=sequence.end)
    except UnicodeEncodeError as error:
        raise no_utf8("sequence", error) from None
    return prediction_pb2.PredictRequest(sequence=written).SerializeToString()


def tagged(parts: list[bytes], tag: int) -> bytes:
    """A request with these serialized fields and this tag, as a field of a PredictStreamRequest."""
    body = b"".join((*parts, varint(_REQUEST_TAG << 3), varint(tag)))
    return request_opened(len(body)) + body


def layout_of(data: bytes, response: prediction_pb2.PredictResponse) -> Layout | None:
    """The layout of a valid answer, if it is simple enough to be recognized again; else None.

    It must begin with the names of model and version, then optionally timing, id and tag, then all outputs,
    which are neither empty nor text, with their raw bytes last.
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
    """How to read one output again; None if it has no fixed size, or its raw bytes are not last."""
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
