"""The calls of the portable transport: the contract's calls on those of grpc.aio.

Every call runs in the task that grpc made for it, on the loop's thread. Calls from other threads are passed
to the loop, so all else happens on one thread.
"""

from __future__ import annotations

import asyncio
import math
import time
import types
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
from typing_extensions import override

from penstock.core.large_bytes import forget
from penstock.transport.grpc.call import BROKEN, IGNORING, NO_MESSAGE, OK, CallHandler, ServerCall, Status

CANCELLATION_SECONDS = 0.001
"""A cancellation may become known this long after the end of the client's messages."""


class Events(Protocol):
    """What a call tells the transport."""

    unread: set[UnaryCall]
    """Unary calls whose message has not come."""

    def on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls `function` on the loop's thread."""

    def schedule_idle_work(self) -> None:
        """Lets idle work run after the callbacks that are ready now."""

    def stream_message(self, call: StreamCall, message: bytes) -> None:
        """Has a message of a stream handled, in its turn: then `take` is called with it."""

    copies: bool
    """Whether gRPC has a copy of a message once it has begun to send it, as far as is known."""

    def report(self, error: BaseException) -> None:
        """Passes on an exception that a handler raised."""

    def call_opened(self) -> None:
        """Counts a call that has begun."""

    def call_closed(self) -> None:
        """Counts a call that has ended."""


class PortableCall(ServerCall):
    """A call of grpc.aio: what both kinds share.

    Args:
        method: the full method.
        context: grpc's own view of the call.
        transport: carries it.
    """

    __slots__ = ("_context", "_end", "_handler", "_own", "_transport", "_waiter")

    def __init__(self, method: str, context: Any, transport: Events) -> None:
        remaining = context.time_remaining()
        deadline = math.inf if remaining is None else time.monotonic() + remaining
        super().__init__(method, context.invocation_metadata() or (), deadline)
        self._context = context
        self._transport = transport
        self._handler: CallHandler = IGNORING
        self._end: tuple[Status, bytes | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._own: bytes | None = None  # what is to be sent, if nobody else reads it

    @override
    def peer(self) -> str:
        context = self._context
        return "" if context is None else str(context.peer())

    @override
    def identities(self) -> Sequence[bytes]:
        context = self._context
        return () if context is None else context.peer_identities() or ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        context = self._context
        return {} if context is None else context.auth_context()

    @override
    def receive(self) -> None: ...

    @override
    def send(self, message: bytes) -> None: ...

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        self._transport.on_loop(self._finish, status, message)

    @override
    def finish_own(self, status: Status, message: bytes) -> None:
        self._transport.on_loop(self._finish_own, status, message)

    async def run(self, make_handler: Callable[[ServerCall], CallHandler]) -> bytes:
        """Runs the call to its end; returns the answer to a unary call."""
        self._transport.call_opened()
        try:
            self._open(make_handler)
            await self._converse()
            return await self._send_end()
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError as error:  # the client went away while something was sent to it
            raise asyncio.CancelledError from error
        finally:
            self._close()

    @abstractmethod
    async def _converse(self) -> None:
        """Passes messages to the handler and sends its answers, until it has finished the call."""

    @abstractmethod
    async def _send_good_end(self, message: bytes | None) -> bytes:
        """Sends the last message, or returns it if grpc sends it along with the status."""

    def _open(self, make_handler: Callable[[ServerCall], CallHandler]) -> None:
        try:
            self._handler = make_handler(self)
        except Exception as error:
            self.fail(error)

    def _close(self) -> None:
        # Core keeps the connection while its call is referenced, as a late answer may still do.
        self._context = None
        cancelled = self._end is None
        self._end = self._end or (BROKEN, None)
        # The handler refers to its call: a reference cycle, which would wait for the garbage collector.
        handler, self._handler = self._handler, IGNORING
        self._tell(handler.closed, cancelled)
        self._transport.call_closed()

    def _finish(self, status: Status, message: bytes | None) -> None:
        if self._end is None:
            self._end = status, message
            self._wake()

    def _finish_own(self, status: Status, message: bytes) -> None:
        if self._end is None:
            self._own = message
            self._finish(status, message)

    def _may_forget(self, message: bytes) -> bool:
        """Whether nobody needs a message once grpc has begun to send it: it keeps the bytes all the same."""
        own, self._own = self._own, None
        return own is message and self._transport.copies

    def fail(self, error: Exception) -> None:
        """Ends the call because its handler raised an exception."""
        self._transport.report(error)
        self._finish(BROKEN, None)

    def _tell(self, told: Callable[..., None], *arguments: object) -> None:
        """Tells the handler of an event."""
        try:
            told(*arguments)
        except Exception as error:
            self.fail(error)
        self._transport.schedule_idle_work()

    async def _wait(self) -> None:
        """Waits for something to send."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _send_end(self) -> bytes:
        assert self._end is not None  # waited for
        status, message = self._end
        if status.code is not grpc.StatusCode.OK:
            if message is not None:
                await self._context.write(message)
            await self._context.abort(status.code, encodable(status.details), tuple(status.trailing))
        if status is not OK:
            self._context.set_details(encodable(status.details))
            self._context.set_trailing_metadata(tuple(status.trailing))
        return await self._send_good_end(message)


class UnaryCall(PortableCall):
    """A call with one message and one answer."""

    __slots__ = ("_task",)

    def end_unread(self, status: Status) -> None:
        """Ends the call, whose message has not come; on the loop's thread."""
        if self._end is None:
            self._finish(status, None)
            self._task.cancel()  # it waits for the message

    @override
    async def _converse(self) -> None:
        if self._end is not None:  # the handler has ended the call already
            return
        message = await self._first_message()
        if message is None:
            return
        if message is grpc.aio.EOF:
            await asyncio.sleep(CANCELLATION_SECONDS)
            self._finish(NO_MESSAGE, None)
        elif self._end is None:
            self._tell(self._handler.received, message)
        if self._end is None:
            await self._wait()

    async def _first_message(self) -> Any:
        """The message, or EOF; None if the call was ended before it came."""
        task = asyncio.current_task()
        assert task is not None, "grpc runs each call in a task"
        self._task, unread = task, self._transport.unread
        unread.add(self)
        try:
            return await self._context.read()
        except asyncio.CancelledError:
            if self._end is None:  # the client went away
                raise
            task.uncancel()
            return None
        finally:
            unread.discard(self)

    @override
    async def _send_good_end(self, message: bytes | None) -> bytes:
        if message is not None and self._may_forget(message):
            # grpc begins to send it in this step of the task.
            asyncio.get_running_loop().call_soon(forget, message)
        return message or b""


class StreamCall(PortableCall):
    """A call with any number of messages in both directions."""

    __slots__ = ("_outgoing", "_wanted")

    def __init__(self, method: str, context: Any, transport: Events) -> None:
        super().__init__(method, context, transport)
        self._outgoing: bytes | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()  # the first message is asked for by itself

    @override
    def receive(self) -> None:
        self._transport.on_loop(self._wanted.set)

    @override
    def send(self, message: bytes) -> None:
        self._transport.on_loop(self._send, message)

    @override
    def send_own(self, message: bytes) -> None:
        self._transport.on_loop(self._send_own, message)

    def _send_own(self, message: bytes) -> None:
        self._own = message
        self._send(message)

    def _send(self, message: bytes) -> None:
        if self._end is not None:
            return
        if self._outgoing is None:
            self._outgoing = message
            self._wake()
        else:
            self.fail(RuntimeError("a message was sent before the last one had left"))

    @override
    async def _converse(self) -> None:
        reader = asyncio.create_task(self._read())
        try:
            # Some clients send nothing before they have seen headers. A stream that its handler has already
            # ended gets none: clients try a call again only if no headers came.
            if self._end is None and self._outgoing is None:
                await self._context.send_initial_metadata(())
            await self._write()
        finally:
            reader.cancel()

    async def _read(self) -> None:
        while self._end is None:
            await self._wanted.wait()
            self._wanted.clear()
            message = await self._context.read()
            if message is grpc.aio.EOF:
                # This is also read if the client has disconnected; then the task is cancelled meanwhile.
                await asyncio.sleep(CANCELLATION_SECONDS)
                self._tell(self._handler.half_closed)
                return
            self._transport.stream_message(self, message)

    def take(self, message: bytes) -> None:
        """Handles a message."""
        if self._end is None:
            self._tell(self._handler.received, message)

    async def _write(self) -> None:
        """Sends what is to be sent until the call is finished."""
        while True:
            if self._outgoing is not None:
                message, self._outgoing = self._outgoing, None
                await self._written(message)
                del message  # else it stays until the next one
                if self._end is None:
                    self._tell(self._handler.sent)
            elif self._end is not None:
                return
            else:
                await self._wait()

    @override
    async def _send_good_end(self, message: bytes | None) -> bytes:
        if message is not None:
            await self._written(message)
        return b""

    def _written(self, message: bytes) -> Awaitable[None]:
        """Sends a message; the memory of one that nobody else reads is given back once grpc has its copy."""
        writing: Awaitable[None] = self._context.write(message)
        return _then_forgotten(writing, message) if self._may_forget(message) else writing


@types.coroutine
def _then_forgotten(writing: Awaitable[None], message: bytes) -> Generator[Any, Any, None]:
    """Awaits `writing`, and gives the memory of the message back at its first wait, since it has begun then.

    Were that done in the next pass of the loop, the messages that begin in one pass would all be there twice.
    """
    steps = writing.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:  # it has ended already
        return
    forget(message)
    try:
        yield waits_for
    except BaseException as error:  # such as a cancellation
        steps.throw(error)
        raise
    yield from steps


def encodable(text: str) -> str:
    """The text, with question marks in place of what cannot be encoded."""
    return text.encode(errors="replace").decode()
