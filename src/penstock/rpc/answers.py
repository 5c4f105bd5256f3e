"""From a run's outputs to serialized answers.

The answers of one run differ in little: the rows, the time in the queue, the id and the tag. All else is
serialized once for each run, or once for each shape. Where outputs go as `raw`, the values of the whole batch
are copied once, and each answer takes its slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from penstock.messages import InferResponse, Run
from penstock.models.model import Model
from penstock.rpc import values, wire
from penstock.rpc.arrays import pack_bytes
from penstock.tensors import Array, DataType
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

NUMBERS: Mapping[DataType, int] = {each: tensor_pb2.DataType.Value(each.label) for each in DataType}
REMEMBERED = 256  # shapes, for all outputs of a model
MICROS = 1_000_000
ID = wire.key(pb.PredictResponse.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
TAG = wire.key(pb.PredictResponse.TAG_FIELD_NUMBER, wire.VARINT)

Piece: TypeAlias = bytes | Array
"""A part of several messages: the same bytes in each, or as many other ones, uint8 [count, bytes]."""

_Heads: TypeAlias = dict[int, bytes]  # by the number of rows; see `_length`
_Values: TypeAlias = tuple[bytes, int, _Heads]


class _Encoded:
    """What all answers of a run have in common.

    Attributes:
        common: fields that are in each of them.
        values: for each output that can be raw: all its values, the bytes of a row, and the known heads of
            its rows.
    """

    __slots__ = ("common", "values")

    def __init__(self, common: bytes, values: dict[str, _Values]) -> None:
        self.common = common
        self.values = values


class Answers:
    """Writes the answers of one model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names = pb.PredictResponse(model=model.name, version=model.version_text).SerializeToString()
        self._heads: dict[tuple[str, tuple[int, ...]], _Heads] = {}  # by what comes after the rows
        self._room = REMEMBERED

    def encode(self, response: InferResponse, id: str, tag: int, typed: bool) -> bytes:
        """The serialized PredictResponse to a request with this id and tag.

        Raises:
            ValueError: protobuf cannot carry it.
        """
        shared = self._shared(response.run)
        parts = [shared.common, _queue_field(int(response.queue_seconds * MICROS))]
        if id:
            parts.append(wire.field(ID, id.encode()))
        if tag:
            parts += (TAG, wire.varint(tag))
        start, stop, known = response.start, response.stop, shared.values
        for name in response.names:
            found = known.get(name)
            if typed or found is None or stop == start:
                parts.append(self._output(name, response.outputs[name], typed))
                continue
            data, row_bytes, heads = found
            rows = _length(response.run.outputs[name]) if stop is None else stop - start
            parts.append(heads.get(rows) or self._head(name, response.outputs[name], heads, rows))
            parts.append(data if stop is None else data[start * row_bytes : stop * row_bytes])
        return b"".join(parts)

    def encode_many(
        self, response: InferResponse, rows: int, tags: Array, typed: bool
    ) -> Sequence[Piece] | None:
        """The serialized PredictResponses to several requests that share a response.

        Args:
            response: the response to all of them.
            rows: the rows of each.
            tags: their encoded tags, uint8 [count, bytes of each].
            typed: whether the answers are typed.

        Returns:
            The answers in pieces, for `weave`; None where they may differ in length.
        """
        shared, start, stop = self._shared(response.run), response.start, response.stop
        if (
            typed
            or stop is None
            or stop == start
            or any(each not in shared.values for each in response.names)
        ):
            return None
        pieces: list[Piece] = [shared.common + _queue_field(int(response.queue_seconds * MICROS))]
        if tags.size:
            pieces += (TAG, tags)
        for name in response.names:
            data, row_bytes, heads = shared.values[name]
            values = np.frombuffer(data, np.uint8, (stop - start) * row_bytes, start * row_bytes)
            head = heads.get(rows) or self._head(name, response.run.outputs[name][:rows], heads, rows)
            pieces += (head, values.reshape(-1, rows * row_bytes))
        return pieces

    def _shared(self, run: Run) -> _Encoded:
        shared = run.encoded
        if not isinstance(shared, _Encoded):
            shared = run.encoded = self._encode(run)
        return shared

    def _encode(self, run: Run) -> _Encoded:
        compute = _compute_field(int((run.finished - run.started) * MICROS), run.rows)
        known = {
            name: (array.tobytes(), array.nbytes // _length(array), self._heads_of(name, array))
            for name, array in run.outputs.items()
            if array.nbytes and not array.dtype.hasobject
        }
        return _Encoded(self._names + compute, known)

    def _heads_of(self, name: str, array: Array) -> _Heads:
        inner = array.shape[1:]
        heads = self._heads.get((name, inner))
        if heads is None:
            heads = {}
            if len(self._heads) < REMEMBERED:
                self._heads[name, inner] = heads
        return heads

    def _head(self, name: str, array: Array, heads: _Heads, rows: int) -> bytes:
        """All of a serialized raw output that comes before its values, which come last."""
        head = self._output(name, array, typed=False)[: -array.nbytes]
        if self._room:
            self._room -= 1
            heads[rows] = head
        return head

    def _output(self, name: str, array: Array, typed: bool) -> bytes:
        """A PredictResponse that holds one output and nothing else."""
        datatype = self._model.signature.outputs[name].datatype
        message = pb.PredictResponse()
        tensor = message.outputs[name]
        tensor.datatype = NUMBERS[datatype]  # type: ignore[assignment]
        tensor.shape.extend(array.shape)
        if typed:
            values.write(tensor, datatype, array)
        else:
            tensor.raw = pack_bytes(array) if datatype is DataType.BYTES else array.tobytes()
        return message.SerializeToString()


def _length(array: Array) -> int:
    """The length of the first axis; -1 where there is none."""
    return len(array) if array.ndim else -1


def width(pieces: Sequence[Piece]) -> int:
    """How long each of the messages is that `weave` makes of pieces."""
    return sum(len(each) if isinstance(each, bytes) else each.shape[1] for each in pieces)


def weave(pieces: Sequence[Piece], count: int) -> bytes:
    """Several messages of equal length, one behind another, from what they are made of."""
    woven = np.empty((count, width(pieces)), np.uint8)
    start = 0
    for each in pieces:
        values = np.frombuffer(each, np.uint8) if isinstance(each, bytes) else each
        woven[:, start : start + values.shape[-1]] = values
        start += values.shape[-1]
    return woven.tobytes()


@lru_cache(4096)
def _compute_field(micros: int, rows: int) -> bytes:
    """The field that says how long a run took, in whole microseconds, and of how many rows it was."""
    message = pb.PredictResponse()
    message.timing.compute.FromMicroseconds(micros)
    message.timing.batch_rows = rows
    return message.SerializeToString()


@lru_cache(4096)
def _queue_field(micros: int) -> bytes:
    """The field that says how long a request waited, in whole microseconds."""
    message = pb.PredictResponse()
    message.timing.queue.FromMicroseconds(micros)
    return message.SerializeToString()
