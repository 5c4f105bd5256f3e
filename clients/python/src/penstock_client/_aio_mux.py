"""The stream that the calls of an asyncio client share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Any

from penstock_client._aio_stream import Ending, answer
from penstock_client._errors import CLOSED, Cancelled, DeadlineExceeded, PenstockError
from penstock_client._merge import Member
from penstock_client._messages import Deadline
from penstock_client._mux import OPENINGS, TOO_LATE, Multiplexer, Settled, Unsupported, backoff, lost

Future = asyncio.Future[Any]


class SharedStream:
    """One stream at a time, opened when it is first needed and again after it was lost.

    Args:
        open_call: begins a call of PredictStream; gives gRPC's call.
        probe: makes a small unary call, so that a stream is opened only where there is a server: what
            is handed to a stream may have reached the server, whatever becomes of it.
        limit: the most requests that are pending.
        merging: whether requests that fit together are merged.
    """

    def __init__(
        self, open_call: Callable[[], Any], probe: Callable[[], Awaitable[None]], limit: int, merging: bool
    ) -> None:
        self._open = open_call
        self._probe = probe
        self._mux = Multiplexer(limit, merging)
        self._call: Any = None
        self._running: asyncio.Task[None] | None = None
        self._idle: Future | None = None  # what the writer waits for
        self._line: deque[Future] = deque()  # callers that wait for room
        self._deadlines: dict[int, tuple[float, Future]] = {}
        self._sweep_at = inf
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def has_room(self) -> bool:
        """Whether a request may be sent at once."""
        return not self._line and self._mux.has_room

    async def room(self, deadline: Deadline) -> None:
        """Waits for room, in turn.

        Raises:
            DeadlineExceeded: the deadline passed first.
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
                    put = self._line.appendleft  # somebody was quicker: the next turn is ours
        except TimeoutError:
            raise DeadlineExceeded(f"{TOO_LATE}: too many requests are pending") from None
        finally:
            if turn in self._line:
                self._line.remove(turn)
            else:
                self._admit()

    def send(self, parts: list[bytes], deadline: Deadline) -> Future:
        """Sends a request; the future gets the serialized answer, or the error."""
        future = self._loop.create_future()
        slot = self._mux.add(future, parts)
        if deadline.at is not None:
            self._watch(slot, deadline.at, future)
        idle = self._idle
        if idle is not None:
            self._idle = None
            idle.set_result(None)
        elif self._running is None:
            self._start()
        return future

    def send_member(self, member: Member) -> Future:
        """Sends a request that may be merged with others; the future gets the prediction, or the answer."""
        member.waiter = future = self._loop.create_future()
        slot = self._mux.add_member(member)
        if member.deadline is not None:
            self._watch(slot, member.deadline, future)
        self._kick()
        return future

    def abandon(self) -> None:
        """Somebody no longer waits for an answer: what was not sent need not be."""
        self._mux.abandoned = True

    async def close(self) -> None:
        """Ends the stream; whoever waits gets `Cancelled`."""
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
        if error is not None:  # such as a channel that is closed
            closed = task.cancelled() or "closed" in str(error)
            self._fail(self._mux.give_up(), Cancelled(CLOSED) if closed else PenstockError(str(error)))
            self._admit()
        elif self._mux.has_queued:
            self._start()

    async def _run(self) -> None:
        """Keeps a stream open as long as there is anything to send."""
        failures = 0
        while self._mux.has_queued:
            error = await self._connect()
            if error is None:
                failures = 0
                self._drop(await self._serve())
                continue
            failures += 1
            if failures >= OPENINGS:
                self._fail(self._mux.give_up(), error)
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
        """Writes and reads until the stream ends, and says what it ended with."""
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
            writer.cancel()  # what it would write from now on could only be lost
            return await ending.failure(error) or PenstockError("the server ended the stream")
        finally:
            self._idle = None
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, responses.aclose(), return_exceptions=True)

    async def _write(self, call: Any) -> None:
        """The writer's task: it sends what has gathered while the message before was written."""
        take, write = self._mux.take, call.write
        try:
            while True:
                message = take()
                if message is not None:
                    await write(message)
                    if self._line:
                        self._admit()
                else:
                    self._idle = self._loop.create_future()
                    await self._idle
        except Exception:  # nothing more would be sent: the stream has to end, too
            call.cancel()
            raise

    def _receive(self, data: bytes) -> None:
        settled: Settled = []
        try:
            self._mux.receive(data, settled)
        finally:  # what came before anything that is wrong is answered
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
        """The stream is lost, and with it what was sent."""
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
        """Lets the first in the line in, while there is room; each lets the next one in."""
        room = self._mux.room
        while self._line and room > 0:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def _watch(self, slot: int, at: float, future: Future) -> None:
        self._deadlines[slot] = (at, future)
        if at < self._sweep_at:
            self._sweep_later(at)

    def _sweep_later(self, at: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = at
        # The event loop's clock is the monotonic one, but it need not be.
        self._sweep = self._loop.call_later(max(0.0, at - monotonic()), self._expire)

    def _expire(self) -> None:
        """Ends what has waited too long. One timer for all: it looks again at the next deadline."""
        now, earliest = monotonic(), inf
        for slot, (at, future) in list(self._deadlines.items()):
            if future.done():
                del self._deadlines[slot]
            elif at <= now:
                del self._deadlines[slot]
                future.set_exception(DeadlineExceeded(TOO_LATE))
                self._mux.abandoned = True
            else:
                earliest = min(earliest, at)
        self._sweep, self._sweep_at = None, inf
        if earliest < inf:
            self._sweep_later(earliest)


async def pause(attempt: int, deadline: Deadline) -> None:
    """Waits before a request is sent once more; no longer than the deadline allows."""
    remaining = deadline.remaining()
    seconds = backoff(attempt)
    await asyncio.sleep(seconds if remaining is None else min(seconds, remaining))
    if remaining is not None and seconds >= remaining:
        raise DeadlineExceeded(TOO_LATE)
