"""The safe road: the transport contract on grpc's public asyncio API.

Slower than the reactor by the event loop's share of every call, and free of anything private. One thread
runs the loop; it is the polling thread of the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from penstock.transport.call import (
    IdleWork,
    Kind,
    Limits,
    Method,
    Methods,
    Status,
    Transport,
    channel_arguments,
    listening_failed,
)
from penstock.transport.portable_calls import StreamCall, UnaryCall, encodable

T = TypeVar("T")
STOP_SECONDS = 5.0


class Portable(Transport, grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """One event loop on one thread."""

    name = "portable"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._handlers = {name: self._rpc_handler(name, method) for name, method in methods.items()}
        self._idle_scheduled = self._stopping = False
        self._posted: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()  # by other threads
        self._will_look = False  # whether the loop has been woken for it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="penstock-portable", daemon=True)
        self._thread.start()
        self._server = self._wait_for(self._make_server())

    @override
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        try:
            port = self._wait_for(self._bind(address, credentials))
        except RuntimeError:
            port = 0
        if not port:
            raise listening_failed(address)
        return port

    @override
    def start(self) -> None:
        self._wait_for(self._server.start())

    @override
    def close(self) -> None:
        self.on_loop(self._begin_to_stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Says how the call that has arrived is to be handled; part of grpc's interface."""
        name = handler_call_details.method
        handler = self._handlers.get(name)
        refusal = self.why_not(handler, name)
        return handler if refusal is None else _refusing(refusal)

    def on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls `function` on the loop's thread: at once where that is the caller's, soon otherwise."""
        if threading.get_ident() == self._thread.ident:
            function(*arguments)
            return
        self._posted.append((function, arguments))
        if not self._will_look:
            self._will_look = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so are the calls
                self._loop.call_soon_threadsafe(self._do_posted)

    def _do_posted(self) -> None:
        self._will_look = False  # first: what is posted from here on wakes the loop again
        while self._posted:
            function, arguments = self._posted.popleft()
            function(*arguments)

    def schedule_idle_work(self) -> None:
        """Lets idle work run after the callbacks that are ready now."""
        if not self._idle_scheduled:
            self._idle_scheduled = True
            self._loop.call_soon(self._do_idle_work)

    def call_opened(self) -> None:
        """Counts a call that has begun."""
        self._in_flight += 1

    def call_closed(self) -> None:
        """Counts a call that is over."""
        self._in_flight -= 1

    def _rpc_handler(self, name: str, method: Method) -> grpc.RpcMethodHandler:
        """What runs the calls of a method.

        Grpc's own unary handlers would not tell of a call before its message has come, and never answer one
        that has none; in the other kind a call reads its message itself, at no further cost.
        """
        call = UnaryCall if method.kind is Kind.UNARY else StreamCall

        async def run(_: object, context: Any) -> bytes:
            return await call(name, context, self).run(method.handler)

        if method.kind is Kind.UNARY:
            return grpc.stream_unary_rpc_method_handler(run)
        return grpc.stream_stream_rpc_method_handler(run)

    async def _make_server(self) -> grpc.aio.Server:
        return grpc.aio.server(handlers=(self,), options=channel_arguments(self._limits))

    async def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, credentials))

    def _begin_to_stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stopped = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        await self._server.start()  # only a server that has run lets go of its ports; again does nothing
        # With no call in flight, the last statuses may still be on their way.
        await self._server.stop(None if self._in_flight else STOP_SECONDS / 2)
        self._loop.stop()

    def _serve(self) -> None:
        """Runs the loop until it is stopped."""
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_SECONDS))
        self._loop.close()

    def _do_idle_work(self) -> None:
        self._idle_scheduled = False
        try:
            more = self._idle()
        except Exception as error:
            self.report(error)
            return
        if more:
            self.schedule_idle_work()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _refusing(status: Status) -> grpc.RpcMethodHandler:
    async def refuse(_: object, context: Any) -> None:
        await context.abort(status.code, encodable(status.details), tuple(status.trailing))

    return grpc.stream_stream_rpc_method_handler(refuse)
