"""`predict_stream` of the asyncio client: one call of PredictStream.

It uses three tasks: the reader takes items from the iterable and encodes them; the writer sends them; the
consumer waits for answers. Their shared state is in a `StreamState`.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from time import monotonic
from typing import Any, cast

import grpc
import grpc.aio

from penstock_client._errors import InvalidInput, PenstockError, from_call, from_parts
from penstock_client._messages import Signature
from penstock_client._stream import StreamState
from penstock_client._types import Item

_TURN_SECONDS = 0.0002
"""How long a plain iterable is read before other tasks of the event loop get their turn."""

_WRITE_FAILED = "Internal error from Core"
_STATUS_SECONDS = 1.0


async def answer(call: Any, waiting: Awaitable[Any]) -> Any:
    """Awaits a step of a call, and turns gRPC's errors into the client's.

    Args:
        call: the call.
        waiting: what to await.

    Raises:
        PenstockError: the call failed.
        asyncio.CancelledError: the task that runs this is being cancelled.
    """
    try:
        return await waiting
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from error
    except asyncio.CancelledError:
        # gRPC also raises this for the status CANCELLED; only a cancellation of this task is passed on.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        call.cancel()  # so that it has a status in every case
        raise await _ended_with(call) from None


async def _ended_with(call: Any) -> PenstockError:
    return from_parts(await call.code(), await call.details(), await call.trailing_metadata())


def _result_now(coroutine: Coroutine[Any, Any, PenstockError]) -> PenstockError:
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast(PenstockError, finished.value)
    coroutine.close()
    return PenstockError(_WRITE_FAILED)


class Ending:
    """Finds the status that ended a call. If it ends during a write, gRPC first reports INTERNAL.

    Args:
        call: gRPC's call of a stream, which has just begun.
    """

    def __init__(self, call: Any) -> None:
        self._said: list[PenstockError] = []
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        # Read at once, because the next status may be gRPC's own.
        self._said.append(_result_now(_ended_with(call)))

    async def failure(self, error: PenstockError) -> PenstockError | None:
        """The real status of a call in which a step failed with `error`; None for OK."""
        deadline = monotonic() + _STATUS_SECONDS
        while error.message == _WRITE_FAILED and monotonic() < deadline:
            error = next((said for said in self._said if said.message != _WRITE_FAILED), error)
            await asyncio.sleep(0.001)
        return None if error.status is grpc.StatusCode.OK else error


def each(inputs: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    """An asynchronous iterator over the inputs, from a plain or an asynchronous iterable.

    Raises:
        TypeError: the inputs are not iterable.
    """
    return aiter(inputs) if isinstance(inputs, AsyncIterable) else _Each(inputs)


class _Each:
    """A plain iterable, read asynchronously. A class, since a generator would have to be closed."""

    def __init__(self, inputs: Iterable[Item]) -> None:
        self._items = iter(inputs)
        self._since = monotonic()

    def __aiter__(self) -> _Each:
        return self

    async def __anext__(self) -> Item:
        if monotonic() - self._since > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._since = monotonic()
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


class Stream:
    """One call of PredictStream.

    Args:
        state: what was read, sent and answered.
        items: the inputs, with or without their sequences and ids.
        prepare: encodes an item.
    """

    def __init__(
        self,
        state: StreamState,
        items: AsyncIterator[Item],
        prepare: Callable[[Item], Awaitable[tuple[Signature, list[bytes]]]],
    ) -> None:
        self._state = state
        self._items = items
        self._prepare = prepare
        self._over = False
        self._call: Any = None
        self._responses: Any = None
        self._ending: Any = None
        # One event for each waiting task, set at every change; the task checks what changed.
        self._events = [asyncio.Event() for _ in range(3)]
        self._for_consumer, self._for_writer, self._for_reader = self._events

    async def results(
        self, method: Any, metadata: object, start: Callable[[], Awaitable[None]], raising: bool
    ) -> AsyncGenerator[Any, None]:
        """Runs the stream and yields the results.

        Args:
            method: gRPC's PredictStream, which takes messages as bytes.
            metadata: of the call.
            start: awaited first; an exception from it ends the stream.
            raising: whether the error of an item is raised instead of yielded.
        """
        await start()
        self._call = method(metadata=metadata)
        self._ending = Ending(self._call)
        self._call.add_done_callback(self._stop)
        # Not `read()`: after a failed write it returns no further answers, even if they have arrived.
        self._responses = aiter(self._call)
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            more = True
            while more:
                more = await self._step()
                for result in self._collect():
                    if raising and isinstance(result, PenstockError):
                        raise result
                    yield result
            if self._state.failure is not None:
                raise self._state.failure
        finally:
            await self._finish(tasks)

    def cancel(self) -> None:
        """Cancels the call, if it has begun: the consumer gets `Cancelled`."""
        if self._call is not None:
            self._call.cancel()

    async def _step(self) -> bool:
        """Waits until there is something to collect; False once the call is over."""
        # Do not wait for a message at once: if every item so far was rejected, none comes.
        await _until(self._for_consumer, lambda: self._state.has_news or self._over)
        if self._state.has_ready:
            return True
        failure = None
        try:
            self._state.receive(await answer(self._call, anext(self._responses)))
            return True
        except StopAsyncIteration:
            pass
        except PenstockError as error:
            failure = await self._ending.failure(error)
        self._state.close(failure)
        return False

    def _collect(self) -> list[Any]:
        results = self._state.collect()
        self._wake()
        return results

    async def _write(self) -> None:
        """The writer's task."""
        try:
            while True:
                message = self._state.take()
                if message is not None:
                    await self._call.write(message)
                elif self._state.ended:
                    await self._call.done_writing()
                    return
                else:
                    await _until(self._for_writer, lambda: self._state.has_outgoing or self._state.ended)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the call has ended; the consumer gets the reason when it reads

    async def _read(self) -> None:
        """The reader's task."""
        try:
            while True:
                await _until(self._for_reader, lambda: self._state.has_room)
                await self._take_item()
        except StopAsyncIteration:
            self._end(None)
        except BaseException as error:  # the consumer gets whatever the iterable raises
            self._end(error)
            if not isinstance(error, Exception):
                raise

    async def _take_item(self) -> None:
        item = await anext(self._items)
        try:
            signature, written = await self._prepare(item)
        except InvalidInput as error:
            self._state.refuse(error, item)
        else:
            self._state.add(signature, written)
        self._wake()

    def _end(self, failure: BaseException | None) -> None:
        self._state.end(failure)
        self._wake()

    def _wake(self) -> None:
        for event in self._events:
            event.set()

    def _stop(self, call: Any) -> None:
        self._over = True
        self._wake()

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        """Ends all tasks."""
        self._call.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._responses.aclose(), return_exceptions=True)


async def _until(event: asyncio.Event, holds: Callable[[], bool]) -> None:
    while not holds():
        event.clear()
        await event.wait()
