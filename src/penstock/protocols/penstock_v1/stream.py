"""PredictStream: many requests over one call, answered in order or as they finish."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence, Set
from typing import TypeAlias

import grpc
from typing_extensions import override

from penstock.core import wire
from penstock.core.errors import InvalidRequest, RequestError
from penstock.models.model import Model
from penstock.protocols.answer_sizes import sizes_of
from penstock.protocols.codec import Decoded, parsed
from penstock.protocols.fast_path.alike import Alike
from penstock.protocols.fast_path.known_requests import Found
from penstock.protocols.penstock_v1.decoder import DecodedPredict
from penstock.protocols.penstock_v1.message_parts import LEAST, REQUESTS, requests_in
from penstock.protocols.penstock_v1.micro_batches import LARGEST_ANSWER, MicroBatch
from penstock.protocols.penstock_v1.results import result_of
from penstock.protocols.penstock_v1.work import WORK
from penstock.protocols.send_buffer import SendBuffer
from penstock.protocols.sequence_ids import has_own_sequence
from penstock.protocols.service import Service
from penstock.protocols.stream import Result, Stream
from penstock.protocols.turns import Clock
from penstock.protocols.work import LIGHT_BYTES
from penstock.scheduling.execution.failures import gone
from penstock.transport.grpc.call import ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb

RPC = "PredictStream"
ORDER_KEY = "penstock-order"
ORDERS = ("request", "completion")
PARTS = 4
"""Requests with a deadline are divided into at least as many parts as can run in time one after another."""
FEW = 8
"""So many requests begin in one turn, and the results that are known then leave in one message. A thread that
was interrupted among them would otherwise take its turn for over, and run the first of them alone."""
NO_TAG = {0}  # what requests without a tag have: `cancel` names none of them

NAMES = {REQUESTS: WORK.names}
"""What counts as names in a PredictStreamRequest; see `penstock.core.wire.count_names`."""

_Read: TypeAlias = tuple[bytes | Alike | None, Found | Decoded | InvalidRequest]
"""A request's bytes, if available, and its known request, form when decoded, or error; or several alike."""

_Message: TypeAlias = tuple[Sequence[_Read], Set[int]]
"""The requests of a message, and the tags that it cancels."""


class PredictStream(Stream):
    """One stream of `PredictStreamRequest` messages, each with any number of requests.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    def __init__(self, call: ServerCall, service: Service) -> None:
        metadata = dict(call.metadata)
        order = metadata.get(ORDER_KEY, ORDERS[0])
        super().__init__(call, service, RPC, SendBuffer(call.send), ordered=order == ORDERS[0])
        self.has_sequence = has_own_sequence(call.metadata)
        if order not in ORDERS:
            words = f"metadata {ORDER_KEY} is {order!r}, expected one of {', '.join(ORDERS)}"
            call.finish(Status(grpc.StatusCode.INVALID_ARGUMENT, words))

    @override
    def _handle(self, data: bytes) -> None:
        self.service.in_turns(self.call, self._turns(data))

    @override
    def _result(self, answer: bytes | RequestError, id: str, tag: int) -> Result:
        return ((result_of(wire.varint(tag), answer, id), 1),)

    def _turns(self, data: bytes) -> Iterator[bool]:
        """Handles a message in turns; see `penstock.protocols.turns`. It is read before a request begins."""
        try:
            requests, cancelled = yield from self._read(data)
        except InvalidRequest as error:
            self._cannot_read(error)
            return
        yield from self._take(requests, cancelled)
        self._took()

    def _read(self, data: bytes) -> Generator[bool, None, _Message]:
        """Parses a message: its requests, and the tags that it cancels.

        Raises:
            InvalidRequest: the message cannot be parsed, or has too many requests.
        """
        service, clock = self.service, Clock()
        requests: list[_Read] = []
        cancelled: set[int] = set()
        count = 0
        try:
            for found in requests_in(data, service.known_requests, cancelled):
                count += len(found[0]) if found and isinstance(found[0], Alike) else 1
                self._check_count(count)
                if found is not None:
                    part, known = found
                    read: Found | Decoded | InvalidRequest | None = known
                    if read is None:
                        assert isinstance(part, bytes), "requests that are alike match a known request"
                        read = service.too_many_names(part)
                        if read is None:
                            if service.is_much_work(part):
                                yield True
                            read = service.codec.decode(part)
                    requests.append((part, read))
                if clock.is_over():
                    yield False
        except ValueError:
            if len(data) > LIGHT_BYTES:
                yield True
            return (yield from self._parse(data))
        return requests, cancelled

    def _parse(self, data: bytes) -> Generator[bool, None, _Message]:
        """Parses a message with an unusual encoding: protobuf parses all of it, or rejects it."""
        most, clock = self.service.bounds.requests, Clock()
        _, fields = wire.count_names(data, NAMES, 4 * most, 4 * most)
        if fields > 4 * most:
            raise InvalidRequest(f"the message ({len(data)} bytes) has more fields than {most} requests need")
        message = parsed(pb.PredictStreamRequest, data)
        self._check_count(len(message.requests) + len(message.cancel))
        requests: list[_Read] = []
        for each in message.requests:
            requests.append((None, DecodedPredict(each, each.ByteSize())))
            if clock.is_over():
                yield False
        return requests, set(message.cancel)

    def _check_count(self, count: int) -> None:
        most = self.service.bounds.requests
        if count > most:
            raise InvalidRequest(
                f"the message has more than {most} requests and cancelled tags, the most that are allowed "
                "(server.max_message_requests)"
            )

    def _take(self, requests: Sequence[_Read], cancelled: Set[int]) -> Iterator[bool]:
        """Begins the requests; once the call is over, the others are only counted."""
        count = sum([_count(data) for data, _ in requests])
        self._coming(count)
        self._gathers = count <= FEW
        if cancelled:
            self._cancel_tags(cancelled - NO_TAG)
        if self._closed:
            yield from self._skip(requests, 0)
            return
        clock, begun = Clock(), 0
        for count in self._begin_all(requests):
            begun += count
            if clock.is_over() and not self._gathers:
                yield False
                if self._closed:
                    self._drop_submitted()
                    yield from self._skip(requests, begun)
                    return

    def _begin_all(self, requests: Sequence[_Read]) -> Iterator[int]:
        """Begins the requests one after another, as many at a time as it says."""
        for data, read in requests:
            if isinstance(data, Alike):
                yield from self._begin_many(data)
                continue
            if isinstance(read, Decoded):
                self.begin_decoded(read, data)
            elif isinstance(read, InvalidRequest):
                self._refuse(read, data or b"")
            elif data is not None:
                self._begin(data, read)
            yield 1

    def _skip(self, requests: Sequence[_Read], begun: int) -> Iterator[bool]:
        """Counts the requests that are not begun, because the call is over: each ends once.

        Args:
            requests: those of a message.
            begun: how many of them, from the first one on, have been begun.
        """
        clock = Clock()
        skipped: Counter[Model | None] = Counter()
        for data, read in requests:
            count = _count(data)
            if begun < count:
                skipped[self._model_of(read)] += count - begun
                if clock.is_over():
                    yield False
            begun = max(begun - count, 0)
        error = gone(self.call)
        for model, count in skipped.items():
            if model is not None:
                model.observer.failed(self.rpc, error, count)
                continue
            for _ in range(count):
                self.service.telemetry.failed(self.rpc, error)

    def _model_of(self, read: Found | Decoded | InvalidRequest) -> Model | None:
        """The model of a request; None if it is not known."""
        if isinstance(read, InvalidRequest):
            return None
        if not isinstance(read, Decoded):
            return read[0].model_now(self.service.router.targets)
        try:
            return self.service.engine.route(read.model, read.version)
        except RequestError:
            return None

    def _begin(self, data: bytes, found: Found | None) -> None:
        if found is None or not self.begin_known(data, found):
            self.begin_decoded(self.service.codec.decode(data), data)

    def _begin_many(self, many: Alike) -> Iterator[int]:
        """Begins requests that are alike, as many together as fit into a batch; says how many at a time."""
        known, start = many.known, 0
        while start < len(many):
            model = known.model_now(self.service.router.targets)
            together = _together(model, many, self.call.deadline)
            if known.texts and self.service.reads:  # each has metadata of its own
                together = 0
            if model is None or together < LEAST:
                one = many.messages[start].tobytes()
                self._begin(one, known.matches(one))
                start += 1
                yield 1
                continue
            batch = MicroBatch(self, many.part(start, start + together), model)
            start += together
            self.begun(batch)
            batch.submit()
            yield batch.count


def _count(data: bytes | Alike | None) -> int:
    """How many requests it is."""
    return len(data) if isinstance(data, Alike) else 1


def _together(model: Model | None, many: Alike, deadline: float) -> int:
    """How many matching requests form one micro-batch, which goes into a batch as a whole."""
    asked = many.known.asked
    if model is None or not asked.rows:
        return 0
    batcher = model.batcher
    rows: float = batcher.policy.max_rows
    room = batcher.policy.queue_rows - batcher.waiting_rows
    if 0 < room < rows:
        rows = room
    seconds = min(many.seconds, deadline - time.monotonic())
    if seconds < math.inf:
        rows = min(rows, batcher.costs.of(asked.shape_key).rows_within(seconds / PARTS))
    size = sizes_of(model).expected(asked.outputs, asked.rows, asked.shape_key)
    return min(int(rows) // asked.rows, LARGEST_ANSWER // size) if size else int(rows) // asked.rows
