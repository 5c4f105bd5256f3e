"""Encodes a run's outputs as serialized PredictResponses.

The answers of one run differ only in the rows, the time in the queue, the id and the tag. Everything else is
serialized once per run, or once per shape. The values of the whole batch are copied once, and each answer
gets its slice: for `raw` outputs, and for typed ones whose values all have the same width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import EncodeError

from penstock.core import wire
from penstock.core.errors import ModelFailed, RequestError
from penstock.core.large_bytes import joined
from penstock.core.request import Response, Run
from penstock.core.tensors import Array, DataType
from penstock.models.model import Model
from penstock.protocols import typed_lists as values
from penstock.protocols.codec import AnswerTo, attached
from penstock.protocols.tensors import COPIED_BYTES, bytes_of, pack_bytes
from penstock.transport.grpc.call import UNLIMITED
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

NUMBERS: Mapping[DataType, int] = {each: tensor_pb2.DataType.Value(each.label) for each in DataType}
REMEMBERED = 256  # shapes, for all outputs of a model
MICROS = 1_000_000
ID = wire.key(pb.PredictResponse.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
TAG = wire.key(pb.PredictResponse.TAG_FIELD_NUMBER, wire.VARINT)
TIMING = wire.key(pb.PredictResponse.TIMING_FIELD_NUMBER, wire.LENGTH_DELIMITED)
COMPUTE = wire.key(pb.Timing.COMPUTE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
ROWS = wire.key(pb.Timing.BATCH_ROWS_FIELD_NUMBER, wire.VARINT)
QUEUE = wire.key(pb.Timing.QUEUE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
NANOS = wire.key(Duration.NANOS_FIELD_NUMBER, wire.VARINT)
OUTPUTS = wire.key(pb.PredictResponse.OUTPUTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RAW = wire.key(tensor_pb2.Tensor.RAW_FIELD_NUMBER, wire.LENGTH_DELIMITED)
NAME, TENSOR = wire.key(1, wire.LENGTH_DELIMITED), wire.key(2, wire.LENGTH_DELIMITED)
"""The key and the value of an entry of a map, as the specification of protobuf has them."""

Piece: TypeAlias = tuple[bytes, Array]
"""A part of several messages: bytes that are equal in all of them, and then others, uint8 [count, bytes].
"""

_Heads: TypeAlias = dict[int, bytes]  # by the number of rows; see `_length`
_Values: TypeAlias = tuple[bytes | memoryview, int, _Heads]
_Sliced: TypeAlias = Mapping[str, _Values]


class Outputs:
    """Writes the answers of one model.

    Args:
        model: the model.

    Attributes:
        names: the fields that name the model and its version.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.names = pb.PredictResponse(model=model.name, version=model.version_text).SerializeToString()
        # By what comes after the rows, and whether they are typed.
        self._heads: dict[tuple[str, tuple[int, ...], bool], _Heads] = {}
        self._room = REMEMBERED
        outputs = model.signature.outputs
        self._same_as_raw = {name for name, spec in outputs.items() if spec.datatype in values.SAME_AS_RAW}

    def heads_of(self, name: str, array: Array, typed: bool = False) -> _Heads:
        """The known heads of an output's rows of one shape; see `head`."""
        key = name, array.shape[1:], typed
        heads = self._heads.get(key)
        if heads is None:
            heads = {}
            if len(self._heads) < REMEMBERED:
                self._heads[key] = heads
        return heads

    def head(self, name: str, array: Array, typed: bool, found: _Values, rows: int) -> bytes:
        """The part of a serialized output before its values, which are last. Made without the values."""
        _, row_bytes, heads = found
        head = self._head(name, array, typed, abs(rows * row_bytes))
        if self._room:
            self._room -= 1
            heads[rows] = head
        return head

    def _head(self, name: str, array: Array, typed: bool, length: int) -> bytes:
        """The same, given how many bytes the values have."""
        datatype = self._model.signature.outputs[name].datatype
        tensor = tensor_pb2.Tensor(datatype=NUMBERS[datatype], shape=array.shape).SerializeToString()  # type: ignore[arg-type]
        tensor += (values.list_key(datatype) if typed else RAW) + wire.varint(length)
        entry = wire.field(NAME, name.encode()) + TENSOR + wire.varint(len(tensor) + length) + tensor
        return OUTPUTS + wire.varint(len(entry) + length) + entry

    def typed_of(self, arrays: Mapping[str, Array]) -> _Sliced:
        """The outputs of a run whose typed values all have the same width."""
        found: dict[str, _Values] = {}
        for name, array in arrays.items():
            if name in self._same_as_raw:
                data: bytes | memoryview | None = (
                    array.tobytes() if array.nbytes <= COPIED_BYTES else bytes_of(array)
                )
            else:
                data = values.of_one_width(self._model.signature.outputs[name].datatype, array)
            if data:
                row_bytes = len(data) // len(array) if array.ndim else -len(data)
                found[name] = data, row_bytes, self.heads_of(name, array, typed=True)
        return found

    def output(self, name: str, array: Array, typed: bool) -> Sequence[bytes]:
        """A PredictResponse that holds one output and nothing else, in parts."""
        datatype = self._model.signature.outputs[name].datatype
        if typed and array.size > values.FEW_WRITTEN and datatype is not DataType.BYTES:
            parts = values.packed(datatype, array)
            return [self._head(name, array, typed, sum(map(len, parts))), *parts]
        message = pb.PredictResponse()
        tensor = message.outputs[name]
        tensor.datatype = NUMBERS[datatype]  # type: ignore[assignment]
        tensor.shape.extend(array.shape)
        if typed:
            values.write(tensor, datatype, array)
        else:
            tensor.raw = pack_bytes(array) if datatype is DataType.BYTES else array.tobytes()
        return [message.SerializeToString()]


class _EncodedRun:
    """The parts that all answers of a run share.

    An answer begins with the names of model and version: by these, clients recognise the layout of answers
    that they have read before. Then comes `timing`, which begins with the request's own time in the queue.

    Attributes:
        names: the fields with the names of model and version.
        begin: returns the beginning of `timing` for a time in the queue in microseconds.
        compute: the rest of `timing`.
        join: puts the parts of an answer together.
        raw: for each output that can be raw: all its values, the bytes per row, and the known heads of its
            rows; None until an answer needs it.
        typed: the same, for outputs that can be sliced as typed lists.
        outputs: writes the model's answers.
    """

    __slots__ = ("begin", "compute", "join", "names", "outputs", "raw", "typed")

    def __init__(self, run: Run, outputs: Outputs, typed: bool) -> None:
        self.names = outputs.names
        self.compute = _compute(int((run.finished - run.started) * MICROS), run.rows)
        self.begin = _beginnings(len(self.compute))
        self.outputs = outputs
        self.join: Callable[[Sequence[bytes | memoryview]], bytes] = b"".join
        self.raw: _Sliced | None = None
        self.typed: _Sliced | None = None
        if typed:
            self.typed = outputs.typed_of(run.outputs)
            for values_of_all, _, _ in self.typed.values():
                if type(values_of_all) is memoryview:
                    self.join = joined
            return
        self.raw = raw = {}
        for name, array in run.outputs.items():
            if array.nbytes and not array.dtype.hasobject:
                row_bytes = array.nbytes // len(array) if array.ndim else -array.nbytes
                if array.nbytes <= COPIED_BYTES:
                    data: bytes | memoryview = array.tobytes()
                else:
                    data, self.join = bytes_of(array), joined
                raw[name] = (data, row_bytes, outputs.heads_of(name, array))

    def sliced(self, run: Run, typed: bool) -> _Sliced:
        """The outputs in the form of an answer, if the answers before were in the other form."""
        other = _EncodedRun(run, self.outputs, typed)
        if other.join is joined:
            self.join = joined
        self.raw = other.raw or self.raw
        self.typed = other.typed or self.typed
        return (self.typed if typed else self.raw) or {}


def encode(response: Response, asked: AnswerTo) -> bytes | RequestError:
    """The serialized PredictResponse to a request; an error if protobuf cannot carry it."""
    run = response.run
    shared = run.encoded
    if not isinstance(shared, _EncodedRun):
        outputs = asked.model.attachments.get(Outputs) or attached(asked.model, Outputs)
        shared = run.encoded = _EncodedRun(run, outputs, asked.form)
    parts: list[bytes | memoryview] = [
        shared.names,
        shared.begin(int(response.queue_seconds * MICROS)),
        shared.compute,
    ]
    if asked.id:
        parts.append(wire.field(ID, asked.id.encode()))
    if asked.tag:
        parts += (TAG, wire.varint(asked.tag))
    start, stop, typed = response.start, response.stop, asked.form
    try:
        known = shared.typed if typed else shared.raw
        if known is None:
            known = shared.sliced(run, typed)
        join = shared.join
        for name in response.names:
            found = known.get(name)
            if found is None or stop == start:
                made = shared.outputs.output(name, response.outputs[name], typed)
                parts += made
                join = join if len(made) == 1 else joined
                continue
            data, row_bytes, heads = found
            rows = _length(run.outputs[name]) if stop is None else stop - start
            head = heads.get(rows)
            parts.append(head or shared.outputs.head(name, response.outputs[name], typed, found, rows))
            parts.append(data if stop is None else data[start * row_bytes : stop * row_bytes])
        answer = join(parts)
        if len(answer) > UNLIMITED:  # typed integers take up to ten bytes each
            raise ValueError(f"it has {len(answer)} bytes, above protobuf's limit of {UNLIMITED}")
        return answer
    except (ValueError, EncodeError) as error:  # over 2 GiB, or text that cannot be encoded
        return ModelFailed(f"the model's answer cannot be sent: {error}")


def encode_many(  # noqa: PLR0913 - what the answers consist of
    response: Response, model: Model, rows: int, ids: Array, tags: Array, typed: bool
) -> Sequence[Piece] | None:
    """The serialized PredictResponses to several requests that were run as one.

    Args:
        response: the response to all of them.
        model: the model that answers.
        rows: the number of rows of each.
        ids: the bytes of their ids, uint8 [count, bytes of each].
        tags: their encoded tags, uint8 [count, bytes of each].
        typed: whether the answers are typed.

    Returns:
        The answers in pieces, for `weave`; None if they may differ in length, or have no outputs.
    """
    run, start, stop = response.run, response.start, response.stop
    shared = run.encoded
    if not isinstance(shared, _EncodedRun):
        shared = run.encoded = _EncodedRun(run, attached(model, Outputs), typed)
    known = shared.typed if typed else shared.raw
    if known is None:
        known = shared.sliced(run, typed)
    if stop is None or stop == start or any(each not in known for each in response.names):
        return None
    same = shared.names + shared.begin(int(response.queue_seconds * MICROS)) + shared.compute
    pieces: list[Piece] = []
    if ids.size:
        pieces.append((same + ID + wire.varint(ids.shape[1]), ids))
        same = b""
    if tags.size:
        pieces.append((same + TAG, tags))
        same = b""
    for name in response.names:
        found = data, row_bytes, heads = known[name]
        values = np.frombuffer(data, np.uint8, (stop - start) * row_bytes, start * row_bytes)
        head = heads.get(rows) or shared.outputs.head(name, run.outputs[name][:rows], typed, found, rows)
        pieces.append((same + head, values.reshape(-1, rows * row_bytes)))
        same = b""
    return pieces


def _length(array: Array) -> int:
    """The length of the first axis; -1 for a scalar."""
    return len(array) if array.ndim else -1


def width(pieces: Sequence[Piece]) -> int:
    """The length of each message that `weave` makes from pieces."""
    return sum([len(same) + varied.shape[1] for same, varied in pieces])


def weave(pieces: Sequence[Piece], count: int) -> bytes:
    """Joins pieces into several messages of equal length, one after another."""
    # All that is the same is written at once, with gaps: a step of numpy costs as much as 30 of Python.
    first = b"".join([same + bytes(varied.shape[1]) for same, varied in pieces])
    woven = np.empty((count, len(first)), np.uint8)
    woven[:] = np.frombuffer(first, np.uint8)
    end = 0
    for same, varied in pieces:
        start = end + len(same)
        end = start + varied.shape[1]
        woven[:, start:end] = varied
    return woven.tobytes()


@lru_cache(4096)
def _compute(micros: int, rows: int) -> bytes:
    """The part of `timing` with the time of a run in microseconds and its number of rows."""
    nanos = micros * 1000
    if not 0 < nanos < 1_000_000_000 or not 0 < rows <= wire.LAST_BYTE:
        message = pb.Timing(batch_rows=rows)
        message.compute.FromMicroseconds(micros)
        return message.SerializeToString()
    written = bytearray()
    while nanos > wire.LAST_BYTE:
        written.append(nanos & 0x7F | 0x80)
        nanos >>= 7
    written.append(nanos)
    return b"%b%c%b%b%b%c" % (COMPUTE, len(written) + 1, NANOS, bytes(written), ROWS, rows)


@lru_cache(32)
def _beginnings(more: int) -> Callable[[int], bytes]:
    """Returns the function for the beginning of a `timing` that has this many further bytes."""
    # `timing`, its length, `queue` and its length, and then the nanoseconds, in so many bytes.
    heads = [b"%b%c%b%c%b" % (TIMING, size + 3 + more, QUEUE, size + 1, NANOS) for size in range(6)]

    def beginning(micros: int) -> bytes:
        """The field `timing` up to and including the time in the queue, in whole microseconds."""
        nanos = micros * 1000
        if not 1 << 14 <= nanos < 1_000_000_000:
            return _long_beginning(micros, more)
        # As protobuf encodes it, which has 20 times as much to do for it.
        one, two = nanos & 0x7F | 0x80, nanos >> 7 & 0x7F | 0x80
        if nanos < 1 << 21:
            return heads[3] + bytes((one, two, nanos >> 14))
        three = nanos >> 14 & 0x7F | 0x80
        if nanos < 1 << 28:
            return heads[4] + bytes((one, two, three, nanos >> 21))
        return heads[5] + bytes((one, two, three, nanos >> 21 & 0x7F | 0x80, nanos >> 28))

    return beginning


@lru_cache(4096)
def _long_beginning(micros: int, more: int) -> bytes:
    """The same for a time that is very short or over a second."""
    message = pb.Timing()
    message.queue.FromMicroseconds(micros)
    queue = message.SerializeToString()
    return b"%b%c%b" % (TIMING, len(queue) + more, queue)  # the length is far below 128
