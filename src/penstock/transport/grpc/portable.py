"""The portable transport: the contract of `call` on grpc's public asyncio API.

It uses nothing private, and is slower than the reactor, as every call passes through an event loop. One
thread runs the loop; it is the polling thread of the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from penstock.transport.grpc.call import (
    HELD_UP_SECONDS,
    STOPPING,
    IdleWork,
    Kind,
    Limits,
    Method,
    Methods,
    Status,
    listening_failed,
)
from penstock.transport.grpc.channel_arguments import channel_arguments
from penstock.transport.grpc.portable_calls import StreamCall, UnaryCall, encodable
from penstock.transport.grpc.portable_copies import copies
from penstock.transport.grpc.portable_turns import PortableTurns

T = TypeVar("T")
STOP_SECONDS = 5.0
WATCH_SECONDS = 0.2


class Portable(PortableTurns, grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """One event loop on one thread."""

    name = "portable"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_logging)
        self._handlers = {name: self._rpc_handler(name, method) for name, method in methods.items()}
        self._stopping = self.copies = False
        self.unread: set[UnaryCall] = set()
        self._posted: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()  # by other threads
        self._woken = False  # whether the loop has been woken for these
        self._loop.set_exception_handler(self._loop_failed)
        self._thread = threading.Thread(target=self._serve, name="penstock-portable", daemon=True)
        self._thread.start()
        self._bound: list[tuple[str, grpc.ServerCredentials | None]] = []
        self._servers = [self._wait_for(self._make_server())]  # the last one serves; see `_keep_serving`
        self._watch: asyncio.Task[None] | None = None

    @override
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        port = self._wait_for(self._bind(self._servers[-1], address, credentials))
        if not port:
            raise listening_failed(address)
        self._bound.append((f"{address.rpartition(':')[0]}:{port}", credentials))
        return port

    @override
    def start(self) -> None:
        self._wait_for(self._servers[-1].start())
        self.on_loop(self._begin_to_watch)

    @override
    def close(self) -> None:
        self.on_loop(self._begin_to_stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    @override
    def end_unread(self) -> None:
        self.on_loop(self._end_unread)

    def _end_unread(self) -> None:
        for each in tuple(self.unread):
            each.end_unread(STOPPING)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    @override
    def is_responsive(self, seconds: float = HELD_UP_SECONDS) -> bool:
        reached = threading.Event()
        self.on_loop(reached.set)
        return reached.wait(seconds) or not self._thread.is_alive()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a call that has arrived; part of grpc's interface."""
        name = handler_call_details.method
        handler = self._handlers.get(name)
        refusal = self.why_not(handler, name)
        return handler if refusal is None else _refusing(refusal)

    def on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls `function` on the loop's thread: at once if that is the caller's, else soon."""
        if threading.get_ident() == self._thread.ident:
            function(*arguments)
            return
        self._posted.append((function, arguments))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so are the calls
                self._loop.call_soon_threadsafe(self._do_posted)

    def _do_posted(self) -> None:
        self._woken = False  # first: what is posted from here on wakes the loop again
        while self._posted:
            function, arguments = self._posted.popleft()
            function(*arguments)

    def call_opened(self) -> None:
        """Counts a call that has begun."""
        self.in_flight += 1

    def call_closed(self) -> None:
        """Counts a call that has ended."""
        self.in_flight -= 1

    def _rpc_handler(self, name: str, method: Method) -> grpc.RpcMethodHandler:
        """What runs the calls of a method.

        Grpc starts a unary handler only when the message has come, so a call without a message would never be
        answered. A streaming handler reads the message itself, at no further cost.
        """
        call = UnaryCall if method.kind is Kind.UNARY else StreamCall

        async def run(_: object, context: Any) -> bytes:
            return await call(name, context, self).run(method.handler)

        if method.kind is Kind.UNARY:
            return grpc.stream_unary_rpc_method_handler(run)
        return grpc.stream_stream_rpc_method_handler(run)

    async def _make_server(self) -> grpc.aio.Server:
        return grpc.aio.server(handlers=(self,), options=channel_arguments(self._limits))

    async def _bind(
        self, server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
    ) -> int:
        """Listens; returns the port, or 0 if the address cannot be listened on."""
        try:
            if credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, credentials))
        except RuntimeError:
            return 0

    async def _keep_serving(self) -> None:
        """Replaces a server that no longer takes calls.

        Grpc.aio's server stops taking calls for good after some errors of its own. The calls that it has
        taken go on.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._servers[-1].start()  # does nothing to a server that serves
            except grpc.aio.UsageError as error:
                self.report(error)
                await self._start_another()

    async def _start_another(self) -> None:
        server = await self._make_server()
        ports = [await self._bind(server, address, credentials) for address, credentials in self._bound]
        if all(ports):  # else the old one still holds a port
            self._servers.append(server)
            await server.start()

    def _begin_to_watch(self) -> None:
        if not self._stopping:
            self._watch = self._loop.create_task(self._keep_serving())
            self._finding_out = self._loop.create_task(self._find_out())

    async def _find_out(self) -> None:
        self.copies = await copies()

    def _begin_to_stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stopped = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        try:
            if self._watch is not None:  # it would take a server that stops for one to be replaced
                self._watch.cancel()
                await asyncio.wait((self._watch, self._finding_out), timeout=STOP_SECONDS / 2)
            with contextlib.suppress(grpc.aio.UsageError):  # it no longer takes calls
                await self._servers[-1].start()  # only a server that has run releases its ports
            # With no call in flight, the last statuses may still be on their way.
            grace = None if self.in_flight else STOP_SECONDS / 2
            stops = [self._loop.create_task(server.stop(grace)) for server in self._servers]
            await asyncio.wait(stops, timeout=STOP_SECONDS)
            # Grpc's tasks end with the calls that they wait for. What core still has to tell a task that was
            # cancelled comes when the loop is closed, and fails in another loop of this process.
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=STOP_SECONDS / 2)
        finally:
            self._loop.stop()

    def _serve(self) -> None:
        """Runs the loop until it is stopped."""
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_SECONDS))
        self._loop.set_exception_handler(None)  # grpc keeps its loops for ever, and with it this transport
        self._loop.close()

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Reports exceptions that nothing else handles: grpc's own tasks may fail, too."""
        error = context.get("exception") or RuntimeError(context["message"])
        if not _is_of_another_loop(error):
            self.report(error)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _is_of_another_loop(error: BaseException) -> bool:
    """Whether an exception comes from sharing grpc's events with other loops of this process.

    Grpc wakes all loops through one socket. The second loop finds nothing to read, and a loop that finds an
    event for one that is closed cannot pass it on.
    """
    return isinstance(error, BlockingIOError) or (
        isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    )


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record of grpc's should be logged.

    It logs a traceback if a client disconnects while its answer is sent, or rejects an answer that is too
    large for it. The client knows of both, and nothing has gone wrong here.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError)


def _refusing(status: Status) -> grpc.RpcMethodHandler:
    async def refuse(_: object, context: Any) -> None:
        await context.abort(status.code, encodable(status.details), tuple(status.trailing))

    return grpc.stream_stream_rpc_method_handler(refuse)
