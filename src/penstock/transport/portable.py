"""The safe road: the transport contract on grpc's public asyncio API.

Slower than the reactor by the event loop's share of every call, and free of anything private. One thread
runs the loop; it is the polling thread of the contract.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from typing_extensions import override

from penstock.transport.call import (
    BROKEN,
    OK,
    CallHandler,
    IdleWork,
    Kind,
    Limits,
    Method,
    Methods,
    ServerCall,
    Status,
    Transport,
    channel_arguments,
    listening_failed,
)

CLOSE_SECONDS = 5.0


class _Call(ServerCall):
    """A call of grpc.aio. What other threads tell it hops onto the loop's thread."""

    __slots__ = ("_context", "_done", "_loop", "_loop_thread", "_once", "_outgoing", "_wanted")

    def __init__(self, method: str, context: Any, loop: asyncio.AbstractEventLoop) -> None:
        remaining = context.time_remaining()
        deadline = math.inf if remaining is None else time.monotonic() + remaining
        super().__init__(method, context.invocation_metadata() or (), deadline)
        self._context = context
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._once = threading.Lock()
        self._done: asyncio.Future[tuple[Status, bytes | None]] = loop.create_future()
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._wanted = asyncio.Event()
        self._wanted.set()  # the first message is asked for by itself

    @override
    def peer(self) -> str:
        return str(self._context.peer())

    @override
    def identities(self) -> Sequence[bytes]:
        return self._context.peer_identities() or ()

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {
            key.decode() if isinstance(key, bytes) else key: values
            for key, values in self._context.auth_context().items()
        }

    @override
    def receive(self) -> None:
        self._on_loop(self._wanted.set)

    @override
    def send(self, message: bytes) -> None:
        self._on_loop(self._outgoing.put_nowait, message)

    @override
    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        if self._once.acquire(blocking=False):
            self._on_loop(self._finish, status, message)

    def _finish(self, status: Status, message: bytes | None) -> None:
        if not self._done.done():  # a cancelled call has nobody to tell
            self._done.set_result((status, message))
        self._outgoing.put_nowait(None)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        if threading.get_ident() == self._loop_thread:
            function(*arguments)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    async def answer(self, handler: CallHandler, message: bytes) -> bytes:
        """Runs a unary call to its end."""
        handler.received(message)
        status, last = await self._done
        await self._end(status)
        return last or b""

    async def exchange(self, handler: CallHandler) -> None:
        """Runs a stream to its end."""
        reader = asyncio.ensure_future(self._read(handler))
        try:
            while (message := await self._outgoing.get()) is not None:
                await self._context.write(message)
                handler.sent()
        finally:
            reader.cancel()
        status, last = await self._done
        if last is not None:
            await self._context.write(last)
        await self._end(status)

    async def _read(self, handler: CallHandler) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                message = await self._context.read()
                if message is grpc.aio.EOF:
                    handler.half_closed()
                    return
                handler.received(message)
        except Exception as error:
            if not self._done.done():
                self._done.set_exception(error)
            self._outgoing.put_nowait(None)

    async def _end(self, status: Status) -> None:
        if status.code is grpc.StatusCode.OK:
            self._context.set_trailing_metadata(tuple(status.trailing))
        else:
            await self._context.abort(status.code, status.details, tuple(status.trailing))


class Portable(Transport, grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """One event loop on one thread."""

    name = "portable"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._idle_scheduled = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-portable", daemon=True)
        self._thread.start()
        self._server = self._on_loop(self._make_server())

    async def _make_server(self) -> grpc.aio.Server:
        return grpc.aio.server(handlers=(self,), options=channel_arguments(self._limits))

    @override
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        try:
            port = int(self._on_loop(self._bind(address, credentials)))
        except RuntimeError:
            port = 0
        if not port:
            raise listening_failed(address)
        return port

    async def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, credentials))

    @override
    def start(self) -> None:
        self._on_loop(self._server.start())

    @override
    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._on_loop(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Says how the call that has arrived is to be handled; part of grpc's interface."""
        name = handler_call_details.method
        method = self._methods.get(name)
        refusal = self.why_not(method, name)
        if method is None or refusal is not None:
            return grpc.stream_stream_rpc_method_handler(_refusing(refusal or BROKEN))
        if method.kind is Kind.UNARY:
            return grpc.unary_unary_rpc_method_handler(self._unary(name, method))
        return grpc.stream_stream_rpc_method_handler(self._stream(name, method))

    def _unary(self, name: str, method: Method) -> Callable[[bytes, Any], Awaitable[Any]]:
        async def handle(message: bytes, context: Any) -> Any:
            call = _Call(name, context, self._loop)
            handler = method.handler(call)
            return await self._attend(
                context, handler, call.answer(_Idling(handler, self._schedule_idle), message)
            )

        return handle

    def _stream(self, name: str, method: Method) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        async def handle(_: AsyncIterator[bytes], context: Any) -> None:
            call = _Call(name, context, self._loop)
            handler = method.handler(call)
            await self._attend(context, handler, call.exchange(_Idling(handler, self._schedule_idle)))

        return handle

    async def _attend(self, context: Any, handler: CallHandler, work: Awaitable[Any]) -> Any:
        """Counts the call while it lasts, and tells its handler how it ended."""
        self._in_flight += 1
        cancelled = False
        try:
            return await work
        except asyncio.CancelledError:
            cancelled = True
            raise
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError:  # the connection went away under a write
            cancelled = True
            raise
        except Exception as error:
            self._failed(error)
            await context.abort(BROKEN.code, BROKEN.details)
        finally:
            self._in_flight -= 1
            handler.closed(cancelled)

    def _schedule_idle(self) -> None:
        """Lets idle work run after the callbacks that are ready now."""
        if not self._idle_scheduled:
            self._idle_scheduled = True
            self._loop.call_soon(self._do_idle_work)

    def _do_idle_work(self) -> None:
        self._idle_scheduled = False
        try:
            more = self._idle()
        except Exception as error:
            self._failed(error)
            return
        if more:
            self._schedule_idle()

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Idling:
    """A handler whose every event is followed by idle work."""

    __slots__ = ("_after", "_handler")

    def __init__(self, handler: CallHandler, after: Callable[[], None]) -> None:
        self._handler = handler
        self._after = after

    def received(self, message: bytes) -> None:
        self._handler.received(message)
        self._after()

    def half_closed(self) -> None:
        self._handler.half_closed()
        self._after()

    def sent(self) -> None:
        self._handler.sent()
        self._after()

    def closed(self, cancelled: bool) -> None:
        self._handler.closed(cancelled)


def _refusing(status: Status) -> Callable[[Any, Any], Awaitable[None]]:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(status.code, status.details, tuple(status.trailing))

    return refuse
