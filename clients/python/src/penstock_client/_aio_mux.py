"""The shared stream of an asyncio client: many `predict` calls over one PredictStream call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import grpc

from penstock_client import _health
from penstock_client._aio_calls import reach
from penstock_client._aio_stream import Ending, answer
from penstock_client._deadline import FULL, UNOPENED, Deadline
from penstock_client._errors import (
    CLOSED,
    Cancelled,
    PenstockError,
    not_run,
    without_stream,
)
from penstock_client._local import Local
from penstock_client._merge import Member
from penstock_client._messages import BY_ID, COMPLETION_ORDER
from penstock_client._mux import OPENINGS, Multiplexer, Settled, Unsupported, backoff, lost
from penstock_client._requests import PREDICT_STREAM

Future = asyncio.Future[Any]


class SharedStream(Local):
    """The shared stream: one at a time, opened when it is first needed, and again after it was lost.

    Args:
        open_call: begins a call of PredictStream; returns gRPC's call.
        probe: makes a small unary call first, so that a stream is opened only if there is a server: a
            request passed to a failed stream may have reached the server.
        state: tells the state of the channel.
        limit: most pending requests.
        merging: whether compatible requests are merged.
    """

    def __init__(
        self,
        open_call: Callable[[], Any],
        probe: Callable[[], Awaitable[None]],
        state: Callable[[], grpc.ChannelConnectivity],
        limit: int,
        merging: bool,
    ) -> None:
        super().__init__()
        self._open = open_call
        self._probe = probe
        self._state = state
        self._mux = Multiplexer(limit, merging)
        self._open_now = False  # a stream is open
        self._failed: PenstockError | None = None  # the error of the last attempt to open one
        self._running: asyncio.Task[None] | None = None
        self._idle: Future | None = None  # what the writer waits for
        self._line: deque[Future] = deque()  # callers that wait for a free slot
        self._sweep_at = inf  # when callers are next told that they are late
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def has_room(self) -> bool:
        """Whether a request may be sent at once."""
        return not self._line and self._mux.has_room

    async def room(self, deadline: Deadline) -> None:
        """Waits for a free slot, in turn.

        Raises:
            DeadlineExceeded: the deadline passed first.
            Unavailable: the deadline passed while there was no connection.
            Cancelled: the client was closed.
        """
        put = self._line.append
        try:
            async with asyncio.timeout(deadline.remaining()):
                while True:
                    turn: Future = self._loop.create_future()
                    put(turn)
                    await turn
                    if self._mux.has_room:
                        return
                    put = self._line.appendleft  # another caller was faster: this one is next
        except TimeoutError:
            raise self._too_late(deadline, FULL) from None
        finally:
            if turn in self._line:
                self._line.remove(turn)
            else:
                self._admit()

    def send(self, parts: list[bytes], deadline: Deadline) -> Future:
        """Sends a request; the future receives the serialized answer, or the error."""
        future = self._loop.create_future()
        self._mux.add(future, parts, deadline)
        if deadline.at is not None and deadline.at < self._sweep_at:
            self._sweep_later(deadline.at)
        idle = self._idle
        if idle is not None:
            self._idle = None
            idle.set_result(None)
        elif self._running is None:
            self._start()
        return future

    def send_member(self, member: Member, deadline: Deadline) -> Future:
        """Sends a request that may be merged; the future receives the prediction, or the answer."""
        member.waiter = future = self._loop.create_future()
        self._mux.add_member(member, deadline)
        if deadline.at is not None and deadline.at < self._sweep_at:
            self._sweep_later(deadline.at)
        self._kick()
        return future

    def abandon(self) -> None:
        """A caller has stopped waiting: unsent requests are dropped, sent ones are cancelled."""
        self._mux.abandoned = True
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    async def close(self) -> None:
        """Ends the stream; callers that wait get `Cancelled`."""
        self._closed = True
        self._fail(self._mux.give_up(), Cancelled(CLOSED))
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_exception(Cancelled(CLOSED))
        if self._sweep is not None:
            self._sweep.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _start(self) -> None:
        if self._closed:
            self._fail(self._mux.give_up(), Cancelled(CLOSED))
            return
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._running = None
        error = Cancelled(CLOSED) if task.cancelled() else task.exception()
        if error is not None:  # for example, the channel is closed
            closed = task.cancelled() or "closed" in str(error)
            self._fail(self._mux.give_up(), Cancelled(CLOSED) if closed else PenstockError(str(error)))
            self._admit()
        elif self._mux.has_queued:
            self._start()

    async def _run(self) -> None:
        """Keeps a stream open while there is something to send."""
        failures = 0
        while self._mux.has_queued:
            error = await self._connect()
            self._failed = error
            if error is None:
                failures = 0
                self._open_now = True
                try:
                    self._drop(await self._serve())
                finally:
                    self._open_now = False
                continue
            failures += 1
            if failures >= OPENINGS:
                self._fail(self._mux.give_up(), not_run(error))
                self._admit()
                return
            await asyncio.sleep(backoff(failures))

    async def _connect(self) -> PenstockError | None:
        try:
            await self._probe()
        except PenstockError as error:
            return error
        return None

    async def _serve(self) -> PenstockError:
        """Writes and reads until the stream ends, and returns its error."""
        call = self._open()
        ending = Ending(call)
        responses = aiter(call)
        writer = asyncio.create_task(self._write(call))
        try:
            while True:
                self._receive(await answer(call, anext(responses)))
        except StopAsyncIteration:
            return PenstockError("the server ended the stream")
        except PenstockError as error:
            self._idle = None
            writer.cancel()  # all further writes would be lost
            return await ending.failure(error) or PenstockError("the server ended the stream")
        finally:
            self._idle = None
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, responses.aclose(), return_exceptions=True)

    async def _write(self, call: Any) -> None:
        """The writer's task: sends requests that were added while the last message was being written."""
        take, write = self._mux.take, call.write
        try:
            while True:
                message = take()
                if message is not None:
                    await write(message)
                if self._line:
                    self._admit()
                if message is None:
                    self._idle = self._loop.create_future()
                    await self._idle
        except Exception:  # nothing more would be sent, so the stream must end
            call.cancel()
            raise

    def _receive(self, data: bytes) -> None:
        settled: Settled = []
        try:
            self._mux.receive(data, settled)
        finally:  # delivers the answers before a broken part
            self._deliver(settled)

    def _deliver(self, settled: Settled) -> None:
        for future, outcome in settled:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if self._line:
            self._admit()
        if self._mux.has_queued:
            self._kick()

    def _drop(self, ended: PenstockError) -> None:
        """The stream is lost, with the requests that were sent on it."""
        self._fail(self._mux.broken(), lost(ended))
        self._admit()

    def _fail(self, waiters: list[Any], error: PenstockError | Unsupported) -> None:
        for future in waiters:
            if not future.done():
                future.set_exception(error.again())

    def _kick(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            if not idle.done():
                idle.set_result(None)
        elif self._running is None:
            self._start()

    def _admit(self) -> None:
        """Wakes callers that wait for a free slot, in turn, while there are any; each wakes the next one."""
        room = self._mux.room
        while self._line and room > 0:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def _too_late(self, deadline: Deadline, why: str = "") -> PenstockError:
        """The error of a request whose deadline has passed; without a stream, nothing pending was sent."""
        if self._open_now:
            return deadline.passed(why)
        return without_stream(deadline.passed(why or UNOPENED), self._failed, self._state())

    def _sweep_later(self, at: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = at
        # The event loop's clock is the monotonic one, but it need not be.
        self._sweep = self._loop.call_later(max(0.0, at - monotonic()), self._expire)

    def _expire(self) -> None:
        """Ends requests whose deadline has passed. One timer serves all, set to the next deadline."""
        late, earliest = self._mux.late(monotonic())
        for future, deadline in late:
            future.set_exception(self._too_late(deadline))
            self.abandon()
        self._sweep, self._sweep_at = None, inf
        if earliest < inf:
            self._sweep_later(earliest)


def share(client: Any, channel: Any, metadata: tuple[Any, ...], limit: int, merging: bool) -> SharedStream:
    """Makes the shared stream of a client.

    Args:
        client: the client, whose `_shared` it becomes.
        channel: of the client.
        metadata: of every call.
        limit: most pending requests.
        merging: whether compatible requests are merged.
    """
    method = channel.stream_stream(PREDICT_STREAM)
    check = channel.unary_unary(_health.METHOD, _health.encode, _health.decode)
    stream = client._shared = SharedStream(
        lambda: method(metadata=(*metadata, COMPLETION_ORDER, BY_ID)),
        partial(reach, channel, check, client._get_model, metadata),
        channel.get_state,
        limit,
        merging,
    )
    return stream
