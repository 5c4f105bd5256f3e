"""The base class of the streams of all protocols: flow control, order of the results, and end."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from functools import cached_property

import grpc
from typing_extensions import override

from penstock.core.caller import Caller
from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.large_bytes import HUGE_BYTES
from penstock.core.request import Flush, Step
from penstock.protocols.answers import Account
from penstock.protocols.fast_path.known_requests import Found
from penstock.protocols.request import Origin, ProtocolRequest
from penstock.protocols.send_buffer import SMALL_BYTES, SMALL_OF_MANY_BYTES, SendBuffer
from penstock.protocols.sequence_ids import StepStream, caller_of
from penstock.protocols.service import Service, read_from
from penstock.protocols.stream_items import Result, Settled, StreamItem
from penstock.transport.grpc.call import OK, ServerCall, Status

STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping; all accepted requests are answered")


class Stream(Origin):
    """One stream: reads requests up to its limits, and sends their results.

    The polling thread, runners and workers all call it. They share three things: state behind the lock; the
    set of waiting items, whose single operations are atomic; and the send buffer, which has its own lock.

    Args:
        call: the call.
        service: the service it belongs to.
        rpc: the name of the RPC.
        send_buffer: sends the results.
        ordered: whether results are sent in the order of the requests, or as they become ready.

    Attributes:
        has_sequence: whether steps without an id belong to the stream's own sequence.
    """

    has_sequence = True

    def __init__(
        self, call: ServerCall, service: Service, rpc: str, send_buffer: SendBuffer, ordered: bool
    ) -> None:
        self.call = call
        self.service = service
        self.rpc = rpc
        self._send_buffer = send_buffer
        self._ordered = ordered
        self._in_order: deque[StreamItem] = deque()  # not in the send buffer yet, in request order
        self._waiting: set[StreamItem] = set()  # items without a result
        self._in_flight = 0  # requests whose results have not left, and messages being decoded
        self._lock = threading.Lock()
        self._taking = self._closed = False
        self._gathers = False  # a message of a few requests is being handled: their results leave together
        self._exchanges = False  # the next message is asked for together with the result that comes next
        self._end: Status | None = None  # the status to end with once nothing is in flight
        self._ended = False  # the call has been told to end: no message is handled any more
        self._cut = False  # a result has ended the stream: later results are dropped
        self._paused = False
        self.account: Account = Account(call.peer(), service.answers.limits.stream, self._resume)

    @property
    @override
    def stream(self) -> StepStream:
        return self

    @cached_property
    @override
    def step_caller(self) -> Caller:
        return caller_of(self.call)

    @cached_property
    def plain_step(self) -> Step:
        """A step of the stream's own sequence that neither begins nor ends it."""
        return Step(self, False, False, self, None, self.step_caller)

    @override
    def open_account(self) -> Account:
        return self.account

    @abstractmethod
    def _handle(self, data: bytes) -> None:
        """Handles a message; calls `_took` or `_end_with` at its end."""

    @abstractmethod
    def _result(self, answer: bytes | RequestError, id: str, tag: int) -> Result:
        """The encoded result of a request with this id and tag."""

    def received(self, message: bytes) -> None:
        """The next message has come.

        It is dropped if the stream has been told to end; the lock decides between the two. The status says
        that nothing was run without an answer, so that clients send it again.
        """
        with self._lock:
            if self._ended:
                return
            self._taking = True
            self.is_accepted = not self.service.is_draining
            self._in_flight += 1  # the message itself, so that the stream does not end while it is decoded
        if len(message) > self.service.offload_bytes:
            self.service.offload(self.call, message, self._handle)
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """The client has finished sending."""
        self._end = self._end or OK
        self._finish_if_done()

    def sent(self) -> None:
        """The last message has left."""
        self._count_sent()
        self.flush()
        if self._paused:
            self._resume()

    def closed(self, cancelled: bool) -> None:
        """The call is over."""
        self._closed = True
        self.service.gone(self)
        self._drop_all()
        self.__dict__.pop("plain_step", None)  # it refers to this: a reference cycle
        self.service.answers.close(self.account)

    def stop(self) -> None:
        """Stops reading, and ends with UNAVAILABLE once all accepted requests are answered."""
        self._end = self._end or STOPPING
        self._finish_if_done()

    @override
    def begun(self, request: StreamItem) -> None:
        self._waiting.add(request)
        if self._ordered:
            self._in_order.append(request)

    @override
    def answered(self, request: ProtocolRequest, answer: bytes | RequestError) -> Flush | None:
        return self.done(request, self._result(answer, request.id, request.tag))

    @override
    def refused(self, error: RequestError, id: str, tag: int) -> None:
        result = self._result(error, id, tag)
        if self._ordered:
            self._in_order.append(Settled(result))
        else:
            self._put(result)

    @override
    def carried(self, metadata: Mapping[str, str]) -> tuple[str | None, str | None]:
        return read_from(metadata, self.service)

    def done(self, item: StreamItem, result: Result) -> Flush | None:
        """Receives the result of an item.

        Only the first result counts: a request may be cancelled while its answer is being encoded.
        """
        try:
            self._waiting.remove(item)
        except KeyError:
            return None
        large = 0
        if not isinstance(result, Status):
            for part, count in result:  # as `large_bytes`, but without a call
                if len(part) > SMALL_BYTES and len(part) > SMALL_OF_MANY_BYTES * count:
                    large += len(part)
        if large or self.account.expected:
            self.service.answers.answered(self.account, item, large)
            self.service.answers.take_back(item.learn(large))
        if self._ordered:
            item.parts = result
        else:
            self._put(result)
        return self.flush

    def flush(self) -> None:
        """Sends what is ready; during a message of a few requests, its end does so."""
        if self._closed or self._gathers or (self._exchanges and self._exchanged()):
            return
        if self._ordered and self._in_order:
            self._move_in_order()
        if self._send_buffer.is_waiting() and (message := self._send_buffer.take()) is not None:
            self._send(message)
        if self._end is not None:
            self._finish_if_done()

    def _exchanged(self) -> bool:
        """Sends the one result of a stream that exchanges messages, past the send buffer; says if it has.

        The status of the call must not be sent between counting the result and sending it.
        """
        with self._lock:
            line = self._in_order
            result = line[0].parts if self._exchanges and len(line) == 1 and self._end is None else None
            if type(result) is not tuple or len(result) != 1 or len(result[0][0]) > SMALL_BYTES:
                return False
            line.clear()
            self._exchanges = False
            self._in_flight -= 1
            self.service.telemetry.stream_sent(1, 1)
            self.call.exchange(result[0][0])
        if self._end is not None:
            self._finish_if_done()
        return True

    def _send(self, message: bytes) -> None:
        """Sends a message of results, and asks for the next message if that was put off: see `_take_one`."""
        send = self.call.send if len(message) < HUGE_BYTES else self.call.send_own  # made for this stream
        send(message)
        if self._exchanges:
            self._exchanges = False
            self._receive()

    def _count_sent(self) -> None:
        large = self._send_buffer.large_bytes
        count = self._send_buffer.sent()
        self.service.telemetry.stream_sent(1, count)
        with self._lock:
            self._in_flight -= count
        if large:
            self.service.answers.left(self.account, large)

    def _take_one(self, data: bytes, found: Found) -> None:
        """Handles a message of one request, in which something was found.

        If nothing else is in flight and the request is a step of the stream's own sequence, its result is
        sent and the next message asked for in one step, which halves the work of gRPC: the step after it
        could not run earlier. If it has a tag, the next message could cancel it: it is asked for at once.
        """
        known, _, tag, _, _ = found
        exchanges = known.is_own_step and self._ordered and self._in_flight == 1
        exchanges = exchanges and not tag and self.has_sequence and self.call.can_exchange
        self.service.telemetry.stream_received(1, 1)
        self._gathers, self._exchanges = True, exchanges
        if not self.begin_known(data, found):
            self.begin_decoded(self.service.codec.decode(data), data)
        if exchanges and not self._closed:
            self._taking = self._gathers = False
            if not self._waiting:  # its result was there before this
                self.flush()
            return
        self._took(0)

    def _cancel_tags(self, tags: Set[int]) -> None:
        """Answers the waiting requests of these tags with CANCELLED, and drops them."""
        for item in tuple(self._waiting):
            item.cancel_tags(tags)

    def _cannot_read(self, error: InvalidRequest) -> None:
        """Ends the stream, because a message cannot be parsed, after the answers to earlier requests."""
        self._taking = False
        self.service.telemetry.failed(self.rpc, error)
        self._end = self.service.codec.error(error)
        with self._lock:
            self._in_flight -= 1
        self._finish_if_done()

    def _refuse(self, error: InvalidRequest, data: bytes) -> None:
        """Rejects a request that is not parsed."""
        self.service.telemetry.failed(self.rpc, error)
        self.refused(error, *self.service.codec.work.labels(data))

    def _coming(self, count: int) -> None:
        """Counts a message with this number of requests."""
        self.service.telemetry.stream_received(1, count)
        with self._lock:
            self._in_flight += count

    def _took(self, counted: int = 1) -> None:
        """A message has been handled completely; the next may be read. `counted`: 1 if it still counts."""
        self._taking = self._gathers = False
        if self._closed:  # during decoding on a worker
            self._drop_all()
            return
        with self._lock:
            self._in_flight -= counted
            self._paused = paused = self._is_full()
        self.flush()
        if not paused:
            self._receive()

    def _is_full(self) -> bool:
        """Whether reading pauses because of the limits on requests and answers in flight."""
        return self._in_flight >= self.service.max_stream_requests or self.account.is_full

    def _resume(self) -> None:
        """Reads on if reading has paused, and the limits are not reached any more."""
        with self._lock:
            resume = self._paused and not self._is_full()
            self._paused = self._paused and not resume
        if resume:
            self._receive()

    def _put(self, result: Result) -> None:
        if isinstance(result, Status):  # only if results are sent in order; the lock is held
            self._cut, self._end = True, result
            self._in_flight -= 1
            return
        for part, count in result:
            self._send_buffer.put(part, count)

    def _receive(self) -> None:
        if self._end is None:
            self.call.receive()

    def _move_in_order(self) -> None:
        """Moves the finished results at the head into the send buffer; one of them may end the stream."""
        line = self._in_order
        try:  # without the lock, since code that sets a result flushes afterwards
            if line[0].parts is None and not self._cut:
                return
        except IndexError:
            return
        dropped: Sequence[StreamItem] = ()
        with self._lock:
            while line and not self._cut:
                result = line[0].parts
                if result is None:
                    return
                line.popleft()
                self._put(result)
            if self._cut:
                dropped = tuple(line)
                line.clear()
                self._in_flight -= sum(each.count for each in dropped)
        for item in dropped:
            item.cancel()

    def _drop_all(self) -> None:
        """Drops all items without a result, because the call is over."""
        self._drop_begun()
        self.service.engine.release(self)
        if self._taking:  # the requests that a worker is decoding are dropped after their submit
            return
        # Running items are not answered any more. Free their inputs now, without the garbage collector.
        with self._lock:
            self._waiting.clear()
            self._in_order.clear()

    def _drop_begun(self) -> None:
        for item in tuple(self._waiting):
            item.cancel()

    def _drop_submitted(self) -> None:
        """Drops what has been begun so far, each once; called by the thread that begins requests."""
        while self._waiting:
            with suppress(KeyError):  # it was answered meanwhile
                self._waiting.pop().cancel()

    def _finish_if_done(self) -> None:
        end = self._end
        if end is None:
            return
        with self._lock:
            if self._in_flight:
                return
            self._ended = True
        self.call.finish(end)
