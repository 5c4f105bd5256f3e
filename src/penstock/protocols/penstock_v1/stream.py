"""PredictStream: many requests over one call, answered in order or as they finish."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Set
from itertools import chain
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
from penstock.protocols.penstock_v1.message_parts import CANCEL, LEAST, REQUESTS, all_alike, requests_in
from penstock.protocols.penstock_v1.micro_batches import LARGEST_ANSWER, MicroBatch
from penstock.protocols.penstock_v1.results import HEADS, result_of
from penstock.protocols.penstock_v1.work import WORK
from penstock.protocols.send_buffer import SendBuffer
from penstock.protocols.sequence_ids import has_own_sequence
from penstock.protocols.service import Service
from penstock.protocols.stream import Stream
from penstock.protocols.stream_items import Result
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
ONE_TURN, ONE_TURN_BYTES = 32, 32 * 512
"""A message of at most this many requests and bytes takes one turn, however long: it is little work. If the
thread is interrupted, its first requests would otherwise run before the others are read, and those of many
models each run alone."""
LEAST_BYTES = 16  # of a message that may be one known request; fewer are too few for a length and a model
LEAST_SIZE = 2  # bytes of a request in its message, at least
LOOKED_AT = 16  # fields of a message by which it seems to have too many requests, or not
MANY = 1024
"""Results that are known are sent after every 1,024 requests of a message: those of 16,384 took 20 ms
together. Those of fewer requests are sent in one message, which costs less."""
TIMED = 64  # the clock is read once in this number of fields
COUNTED = {REQUESTS, CANCEL}  # the keys of fields that are, or have, at least one of what is limited
NO_TAG = {0}  # what requests without a tag have: `cancel` names none of them

NAMES = {REQUESTS: WORK.names}
"""What counts as names in a PredictStreamRequest; see `penstock.core.wire.count_names`."""

_Read: TypeAlias = tuple[bytes | Alike | None, Found | Decoded | InvalidRequest]
"""A request's bytes, if available, and its known request, form when decoded, or error; or several alike."""

_Reads: TypeAlias = deque[_Read]
"""The requests of a message that are left. Each is taken out when it is begun, and so freed in the same turn:
to free 16,384 at once takes 7 ms."""

_Message: TypeAlias = tuple[_Reads, Set[int], int]
"""The requests of a message, the tags that it cancels, and how many requests there are."""


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
        if len(data) > LEAST_BYTES and data[0] == REQUESTS and not self._closed:
            try:
                length, first = wire.read_varint(data, 1)
            except ValueError:  # no number: it is rejected below
                length = first = 0
            stop = first + length
            if stop == len(data):
                message = data[first:]
                known = self.service.known_requests.find(message)
                if known is not None:
                    self._take_one(message, known)
                    return
            elif stop and len(data) <= ONE_TURN_BYTES:
                most = min(ONE_TURN, self.service.bounds.requests)
                many = all_alike(data, first, stop, self.service.known_requests, most)
                if many is not None:
                    self._take_alike(many)
                    return
        turns = self._turns(data)
        for is_much in turns:  # seldom: most messages take one turn, which needs nothing that counts turns
            self.service.in_turns(self.call, chain((is_much,), turns))
            return

    def _take_alike(self, many: Alike) -> None:
        """As `_take` in one turn, for a message whose requests are all alike: without what counts turns."""
        self._coming(many.count)
        self._gathers = many.count <= FEW
        for _ in self._begin_many(many):
            pass
        self._took()

    @override
    def _result(self, answer: bytes | RequestError, id: str, tag: int) -> Result:
        if not tag and not id and type(answer) is bytes and len(answer) < len(HEADS):
            return ((HEADS[len(answer)] + answer, 1),)
        return ((result_of(wire.varint(tag), answer, id), 1),)

    def _turns(self, data: bytes) -> Iterator[bool]:
        """Handles a message in turns; see `penstock.protocols.turns`. It is read before a request begins."""
        clock = Clock()
        requests: _Reads = deque()
        try:
            yield from self._count(data, clock)
            requests, cancelled, count = yield from self._read(data, clock, requests)
        except InvalidRequest as error:
            self._cannot_read(error)
            yield from _freed(requests, clock)
            return
        is_little = count <= ONE_TURN and len(data) <= ONE_TURN_BYTES
        yield from self._take(requests, cancelled, count, None if is_little or count <= FEW else clock)
        self._took()

    def _count(self, data: bytes, clock: Clock) -> Iterator[bool]:
        """Counts the requests of a message that seems to have too many, before any of them is parsed.

        Raises:
            InvalidRequest: it has too many.
        """
        most = self.service.bounds.requests
        if len(data) <= LEAST_SIZE * most:
            return
        try:
            for count, (key, _, end) in enumerate(wire.fields(data, 0, len(data)), 1):
                if key not in COUNTED or (count == LOOKED_AT and count * len(data) <= most * end):
                    return
                if count > most:
                    raise self._too_many()
                if not count % TIMED and clock.is_over():
                    yield False
        except ValueError:  # it is rejected where it is read
            return

    def _read(self, data: bytes, clock: Clock, requests: _Reads) -> Generator[bool, None, _Message]:
        """Parses a message.

        Args:
            data: the message.
            clock: says when a turn is over.
            requests: empty; gets its requests, of which some are left if it cannot be parsed.

        Returns:
            The message; its requests are others than the given ones if it has an unusual encoding.

        Raises:
            InvalidRequest: the message cannot be parsed, or has too many requests.
        """
        known_requests, most = self.service.known_requests, self.service.bounds.requests
        least = ONE_TURN if len(data) <= ONE_TURN_BYTES else 1
        cancelled: set[int] = set()
        fields = count = 0  # what is counted against the bound, and the requests among it
        try:
            for found in requests_in(data, known_requests, cancelled):
                if fields >= least and clock.is_over():
                    yield False
                if found is None:
                    fields += 1
                else:
                    part, known = found
                    more = part.count if isinstance(part, Alike) else 1
                    fields += more
                    count += more
                if fields > most:
                    raise self._too_many()
                if found is not None:
                    requests.append((part, known or (yield from self._decoded(part))))
        except ValueError:
            if len(data) > LIGHT_BYTES:
                yield True
            yield from _freed(requests, clock)
            return (yield from self._parse(data, clock))
        return requests, cancelled, count

    def _decoded(self, part: bytes | Alike) -> Generator[bool, None, Decoded | InvalidRequest]:
        """A request that no known request matches: its form when decoded, or its error."""
        assert isinstance(part, bytes), "requests that are alike match a known request"
        service = self.service
        error = service.too_many_names(part)
        if error is not None:
            return error
        if service.is_much_work(part):
            yield True
        return service.codec.decode(part)

    def _parse(self, data: bytes, clock: Clock) -> Generator[bool, None, _Message]:
        """Parses a message with an unusual encoding: protobuf parses all of it, or rejects it."""
        most = self.service.bounds.requests
        _, fields = wire.count_names(data, NAMES, 4 * most, 4 * most)
        if fields > 4 * most:
            raise InvalidRequest(f"the message ({len(data)} bytes) has more fields than {most} requests need")
        message = parsed(pb.PredictStreamRequest, data)
        if len(message.requests) + len(message.cancel) > most:
            raise self._too_many()
        requests: _Reads = deque()
        for each in message.requests:
            requests.append((None, DecodedPredict(each, each.ByteSize())))
            if clock.is_over():
                yield False
        return requests, set(message.cancel), len(requests)

    def _too_many(self) -> InvalidRequest:
        return InvalidRequest(
            f"the message has more than {self.service.bounds.requests} requests and cancelled tags, the most "
            "that are allowed (server.max_message_requests)"
        )

    def _take(self, requests: _Reads, cancelled: Set[int], count: int, clock: Clock | None) -> Iterator[bool]:
        """Begins the requests, `count` in all; once the call is over, the others are only counted.

        Args:
            requests: those of a message.
            cancelled: the tags that it cancels.
            count: how many requests there are.
            clock: says when a turn is over; None if all are begun in one.
        """
        self._coming(count)
        self._gathers = count <= FEW
        if cancelled:
            self._cancel_tags(cancelled - NO_TAG)
        if self._closed:
            yield from self._skip(requests, count)
            return
        begun = flushed = 0
        for more in self._begin_all(requests):
            begun += more
            if clock is not None and begun < count and clock.is_over():
                if begun - flushed >= MANY:
                    flushed = begun
                    self.flush()
                yield False
                if self._closed:
                    self._drop_submitted()
                    yield from self._skip(requests, count - begun)
                    return

    def _begin_all(self, requests: _Reads) -> Iterator[int]:
        """Begins the requests one after another, as many at a time as it says."""
        while requests:
            data, read = requests[0]
            if isinstance(data, Alike):
                yield from self._begin_many(data)
                requests.popleft()  # not before: the call may end while they are begun
                continue
            requests.popleft()
            if type(read) is tuple:
                assert data is not None, "a known request is found by its bytes"
                if not self.begin_known(data, read):
                    self.begin_decoded(self.service.codec.decode(data), data)
            elif isinstance(read, Decoded):
                self.begin_decoded(read, data)
            elif isinstance(read, InvalidRequest):
                self._refuse(read, data or b"")
            yield 1

    def _skip(self, requests: _Reads, left: int) -> Iterator[bool]:
        """Counts the requests that are not begun, because the call is over: each ends once.

        Args:
            requests: those of a message.
            left: how many of them, the last ones, have not been begun.
        """
        clock = Clock()
        skipped: Counter[Model | None] = Counter()
        while left:
            data, read = requests.pop()
            count = min(_count(data), left)
            left -= count
            skipped[self._model_of(read)] += count
            if clock.is_over():
                yield False
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
        while start < many.count:
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


def _freed(requests: _Reads, clock: Clock) -> Iterator[bool]:
    """Frees requests in turns."""
    while requests:
        requests.popleft()
        if clock.is_over():
            yield False


def _count(data: bytes | Alike | None) -> int:
    """How many requests it is."""
    return data.count if isinstance(data, Alike) else 1


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
    if many.seconds < math.inf or deadline < math.inf:
        seconds = min(many.seconds, deadline - time.monotonic())
        rows = min(rows, batcher.costs.of(asked.shape_key).rows_within(seconds / PARTS))
    size = sizes_of(model).expected(asked.outputs, asked.rows, asked.shape_key)
    return min(int(rows) // asked.rows, LARGEST_ANSWER // size) if size else int(rows) // asked.rows
