"""The requests of a stream: one by one, and in blocks of such as look alike.

A program that has many predictions to make writes many requests into a message, which differ in their values
and tags only. Reading, running and answering each of them by itself costs 8 µs, in blocks of 32 less than 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from penstock.errors import RequestError
from penstock.messages import Flush, InferRequest, InferResponse
from penstock.models.model import Model
from penstock.rpc import status, wire
from penstock.rpc.answers import Piece, weave, width
from penstock.rpc.codec import ModelCodec, codec_of
from penstock.rpc.door import Door
from penstock.rpc.pending import Pending
from penstock.rpc.steps import StepStream
from penstock.rpc.stream import Part, StreamItem
from penstock.rpc.templates import Template
from penstock.tensors import Array
from penstock.transport.call import ServerCall
from penstock_proto.v1 import prediction_pb2 as pb

RPC = "PredictStream"
TAG = wire.key(pb.PredictResult.TAG_FIELD_NUMBER, wire.VARINT)
ID = wire.key(pb.PredictResult.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RESPONSE = wire.key(pb.PredictResult.RESPONSE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RESULTS = wire.key(pb.PredictStreamResponse.RESULTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)
LARGEST_BLOCK = 1 << 20  # bytes of its answer; larger ones go out one by one


class Owner(StepStream, Protocol):
    """The stream that requests belong to, as they see it."""

    @property
    def sender(self) -> object:
        """Who it came from."""

    def done(self, item: StreamItem) -> Flush:
        """All results of an item are there."""


class Item(Pending):
    """One request of a stream.

    Attributes:
        parts: its result, once there is one.
    """

    __slots__ = ("_stream", "parts")

    def __init__(self, stream: Owner) -> None:
        super().__init__(RPC)
        self._stream = stream
        self.parts: Sequence[Part] | None = None

    @override
    def stream(self) -> StepStream:
        return self._stream

    @property
    @override
    def sender(self) -> object:
        return self._stream.sender

    @override
    def reply(self, result: InferResponse | RequestError) -> Flush:
        id = wire.field(ID, self._id.encode()) if self._id else b""
        self.parts = ((_result(wire.varint(self._tag), self.encoded(result), id), 1),)
        return self._stream.done(self)


class Block(InferRequest):
    """Requests that look alike, one after another in one message: run and answered as one.

    Args:
        stream: the stream they came on.
        template: what they look like.
        messages: their bytes, uint8 [count, bytes of each].

    Attributes:
        count: how many there are.
        parts: their results, once they are there.
    """

    __slots__ = (
        "_codec",
        "_each",
        "_left",
        "_model",
        "_stream",
        "_tags",
        "_template",
        "count",
        "parts",
        "size",
    )

    _codec: ModelCodec

    def __init__(self, stream: Owner, template: Template, messages: Array) -> None:
        self._stream = stream
        self._template = template
        self._tags = template.tags_of(messages)
        self._model: Model | None = None
        self.count, self.size = len(messages), messages.nbytes
        self.parts: Sequence[Part] | None = None
        self._each: list[bytes] = []  # results, where they come one by one
        self._left = self.count

    def submit(self, messages: Array, model: Model, call: ServerCall, door: Door) -> None:
        """Takes over the requests' values and hands itself to the engine."""
        template = self._template
        arrived = time.monotonic()
        self._codec = codec_of(model)
        InferRequest.__init__(
            self,
            template.all_inputs_of(messages),
            template.outputs,
            template.rows * self.count,
            template.shape_key,
            RPC,
            arrived,
            min(call.deadline, arrived + template.asked.timeout_seconds),
            template.priority,
        )
        self._model = model  # not before: from now on it can be cancelled
        door.engine.submit(model, self)

    def cancel(self, door: Door) -> None:
        """Drops the requests, since nobody waits for their answers."""
        if self._model is not None:
            door.engine.cancel(self._model, self)

    @property
    @override
    def sender(self) -> object:
        return self._stream.sender

    @override
    def apart(self) -> list[InferRequest]:
        return [_Member(self, place) for place in range(self.count)]

    @override
    def reply(self, result: InferResponse | RequestError) -> Flush | None:
        woven = self._woven(result) if isinstance(result, InferResponse) else None
        if woven is not None:
            self.parts = ((woven, self.count),)
            return self._stream.done(self)
        flush: Flush | None = None
        for place in range(len(self._each), self.count):  # not 0 where writing one of the answers has failed
            one = result if isinstance(result, RequestError) else self._share(result, place)
            flush = self.answered(place, one)
        return flush

    def answered(self, place: int, result: InferResponse | RequestError) -> Flush | None:
        """Takes the result of one of the requests; they come in order."""
        answer: bytes | RequestError
        tag = self._tags[place].tobytes()
        if isinstance(result, RequestError):
            answer = result
        else:
            number = wire.read_varint(tag, 0)[0] if tag else 0
            answer = self._codec.encoded(result, "", number, self._template.asked.form)
        self._each.append(_result(tag or b"\0", answer, b""))
        self._left -= 1
        if self._left:
            return None
        self.parts = [(part, 1) for part in self._each]
        return self._stream.done(self)

    def _share(self, response: InferResponse, place: int) -> InferResponse:
        rows = self._template.rows
        start = response.start + place * rows
        return InferResponse(response.run, response.names, response.queue_seconds, start, start + rows)

    def _woven(self, response: InferResponse) -> bytes | None:
        """All results as one message; None where they differ in length, or are many bytes."""
        answer = self._codec.answer_many(response, self._template.rows, self._tags, self._template.asked.form)
        if answer is None:
            return None
        tag: list[Piece] = [TAG, self._tags] if self._tags.size else []
        result: list[Piece] = [*tag, RESPONSE, wire.varint(width(answer)), *answer]
        if width(result) * self.count > LARGEST_BLOCK:
            return None
        return weave([RESULTS, wire.varint(width(result)), *result], self.count)


class _Member(InferRequest):
    """One request of a block, which is run apart from others after the block has failed."""

    __slots__ = ("_block", "_place")

    def __init__(self, block: Block, place: int) -> None:
        rows = block.rows // block.count
        self._block = block
        super().__init__(
            # As if it had come alone: see `Template.inputs_of` for where an input begins.
            {
                name: array[place * rows : (place + 1) * rows].copy() if array.ndim else array
                for name, array in block.inputs.items()
            },
            block.outputs,
            rows,
            block.shape_key,
            block.rpc,
            block.arrived,
            block.deadline,
            block.priority,
        )
        self._place = place

    @property
    def cancelled(self) -> bool:
        """As the block is now: its stream may end while it is run apart."""
        return self._block.cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        """Only the block is ever cancelled."""

    @override
    def reply(self, result: InferResponse | RequestError) -> Flush | None:
        return self._block.answered(self._place, result)


def _result(tag: bytes, answer: bytes | RequestError, id: bytes) -> bytes:
    """A PredictStreamResponse that holds one result."""
    if isinstance(answer, RequestError):
        data = pb.PredictResult(error=status.to_message(answer)).SerializeToString()
    else:
        data = wire.field(RESPONSE, answer)
    return wire.field(RESULTS, b"".join((TAG, tag, data, id)))
