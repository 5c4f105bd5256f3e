"""The HTTP transport: listens, and serves on a thread of its own with one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, NamedTuple

from penstock.core.address import address
from penstock.core.listening import HTTP, listening_failed
from penstock.transport.grpc.call import LAST_WRITES_SECONDS, Limits, Method, Status
from penstock.transport.http.routes import Route, Routes
from penstock.transport.http.status import too_many

BACKLOG = 1024
NO_FILES = (errno.EMFILE, errno.ENFILE)
CLOSE_SECONDS = 5.0
"""How long to wait for the thread, which a model whose run hangs may hold up."""
CHECK_SECONDS = 1.0
"""How often slow clients are looked for."""


class Work(NamedTuple):
    """What the thread does besides calls: runs of models, once it has taken every event that is ready.

    Attributes:
        join: called on the thread as it begins, with what has it work soon; returns what does the work, which
            returns whether there is more.
        leave: called on the thread as it ends.
    """

    join: Callable[[Callable[[], None]], Callable[[], bool]]
    leave: Callable[[], None]


NO_WORK = Work(lambda _: lambda: False, lambda: None)


class HttpTransport:
    """Serves calls over HTTP/1.1. Life: `bind`, `start`, `refuse`, `drain`, `close`.

    Args:
        routes: the paths.
        methods: what can be called, by full name.
        limits: what is rejected; its `message_bytes` is for bodies.
        failed: called with an exception that a handler raised; its call is ended.
        json_bytes: the largest JSON in a body.
        is_full: whether there is no room for another connection; such a one is closed.
        allow_origins: the origins of pages that may call from a browser; see `Origins`.
        work: the work of the thread besides calls.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        routes: Sequence[Route],
        methods: Mapping[str, Method],
        limits: Limits,
        failed: Callable[[BaseException], None],
        json_bytes: int,
        is_full: Callable[[], bool] = lambda: False,
        allow_origins: Collection[str] = (),
        work: Work = NO_WORK,
    ) -> None:
        self._routes = Routes(routes)
        self._methods = methods
        self._limits = limits
        self._failed = failed
        self._json_bytes = json_bytes
        self._is_full = is_full
        self._allow_origins = allow_origins
        self._work = work
        self._do_work: Callable[[], bool] = lambda: False
        self._work_soon: Callable[[], None] = lambda: None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections: Callable[[], Collection[Any]] = tuple  # each a Connection
        self._refusal: Status | None = None
        self._spared: Collection[str] = ()
        self._in_flight = 0  # changed by the loop's thread only
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="penstock-http", daemon=True)
        self.keeps_connections = True

    def bind(self, host: str, port: int) -> int:
        """Listens; connections wait until `start`.

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be listened on; names the settings.
        """
        try:
            self._sockets = _listening(host, port, self._limits.shares_port)
        except OSError as error:
            raise listening_failed(address(host, port), HTTP, error.strerror or str(error)) from error
        return int(self._sockets[0].getsockname()[1])

    def start(self) -> None:
        """Begins to take calls."""
        self._thread.start()

    def refuse(self, status: Status, spared: Collection[str] = ()) -> None:
        """From now on new calls end at once with `status`, and connections end with their next answer.

        Args:
            status: how they end.
            spared: the full names of methods that may still be called.
        """
        self._spared = spared
        self._refusal = status
        self.keeps_connections = False

    def leave(self) -> None:
        """From now on connections end with their next answer."""
        self.keeps_connections = False

    def let_go(self) -> None:
        """Closes the listening sockets, on the loop's thread, and waits for that; connections go on."""
        done = threading.Event()

        def close() -> None:
            for server in self._servers:
                server.close()
            done.set()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(close)
                done.wait(CLOSE_SECONDS)

    def drain(self, seconds: float) -> bool:
        """Waits up to `seconds` for the calls in flight to end, and for their answers to leave.

        Returns:
            Whether all did.
        """
        end = time.monotonic() + seconds
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._end_unread)
        while (self._in_flight or self._unsent()) and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(LAST_WRITES_SECONDS)
        return not self._in_flight

    def close(self) -> None:
        """Closes all connections and stops the thread. May be called at any time, and again."""
        self._closed = True
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        for each in self._sockets:
            each.close()

    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections())

    def calls_in_flight(self) -> int:
        """How many calls have arrived and not ended."""
        return self._in_flight

    # What the application asks.

    def why_not(self, method: object, name: str) -> Status | None:
        """Why a call that has just arrived is rejected; None if it is accepted."""
        if self._refusal is not None and name not in self._spared:
            return self._refusal
        if self._in_flight >= self._limits.calls:
            return too_many(self._limits.calls)
        return None

    def began(self) -> None:
        """A call has been accepted."""
        self._in_flight += 1

    def ended(self) -> None:
        """It is over."""
        self._in_flight -= 1

    def report(self, error: BaseException) -> None:
        """Passes an exception to `failed`; an exception that `failed` raises must not end the thread."""
        with contextlib.suppress(Exception):
            self._failed(error)

    # The thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self.report(error)

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stop = stop = asyncio.Event()
        loop.set_exception_handler(self._loop_failed)
        state, connection = self._prepared(loop)
        self._connections = lambda: tuple(state.connections)
        self._do_work = self._work.join(self._work_soon)
        try:
            await self._accept(loop, stop, state, connection)
        finally:
            self._work.leave()

    async def _accept(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: asyncio.Event,
        state: Any,
        connection: Callable[[], asyncio.Protocol],
    ) -> None:
        _set_date(state)
        for each in self._sockets:
            self._servers.append(await loop.create_server(connection, sock=each, backlog=BACKLOG))
        while not (stop.is_set() or self._closed):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CHECK_SECONDS)
            _set_date(state)
            self._check_connections()
        for server in self._servers:
            server.close()
        for each in self._connections():
            each.transport.abort()

    def _work_now(self) -> None:
        more = True  # if this fails: what is left would not wake the thread again
        try:
            more = self._do_work()
        except Exception as error:
            self.report(error)
        if more:
            self._work_soon()

    def _end_unread(self) -> None:
        """Ends the requests that have not come completely: none of them has been accepted."""
        for each in self._connections():
            each.end_unread()

    def _check_connections(self) -> None:
        """Cuts off the clients that take too long."""
        now = time.monotonic()
        for each in self._connections():
            try:
                each.check(now)
            except Exception as error:  # the others must still be checked
                self.report(error)

    def _prepared(self, loop: asyncio.AbstractEventLoop) -> tuple[Any, Callable[[], asyncio.Protocol]]:
        """What all connections share, and what makes a connection."""
        # Imported here, on this thread, so that the start of the server does not wait for it.
        from uvicorn.config import Config
        from uvicorn.server import ServerState

        from penstock.transport.http.application import Application
        from penstock.transport.http.call import Mailbox
        from penstock.transport.http.connection import KEEP_SECONDS, Connection
        from penstock.transport.http.origins import Origins
        from penstock.transport.http.turn import Turn
        from penstock.transport.http.whole import KnownHeads

        limits = self._limits
        sizes = (limits.message_bytes, self._json_bytes)
        origins = Origins(self._allow_origins)
        application = Application(self._routes, self._methods, self, Mailbox(loop), *sizes, origins)
        config = Config(
            application,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_SECONDS,
        )
        config.load()
        state = ServerState()
        turn = Turn(loop, application.at_once, self._work_now)
        self._work_soon = turn.work_soon
        settings = (config, state, limits.metadata_bytes, loop, self._is_full)
        return state, partial(Connection, *settings, application.at_once, turn.answer, KnownHeads())

    def _unsent(self) -> bool:
        return any(each.transport.get_write_buffer_size() for each in self._connections())

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        if isinstance(error, OSError) and error.errno in NO_FILES:
            self._is_full()  # notes it; the loop accepts again after a second
        else:
            self.report(error)


def _set_date(state: Any) -> None:
    date = formatdate(usegmt=True).encode()
    state.default_headers = [(b"date", date)]
    state.begin = b"HTTP/1.1 200 OK\r\ndate: %b\r\n" % date  # of an answer that ends well


def _listening(host: str, port: int, shares_port: bool) -> list[socket.socket]:
    """A listening socket at each address of the host that this machine has, all on one port."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, where in dict.fromkeys((family, where) for family, *_, where in found):
            try:
                made.append(_socket(family, (where[0], port, *where[2:]), shares_port))
            except OSError as error:
                if not made and family == socket.AF_INET6 and len(found) > 1:
                    missing = error  # without IPv6, IPv4 may do
                    continue
                raise
            port = made[0].getsockname()[1]
    except OSError:
        for each in made:
            each.close()
        raise
    if not made:
        raise missing or OSError(f"{host} has no address")
    return made


def _socket(family: int, where: Any, shares_port: bool) -> socket.socket:
    # With the protocol said, asyncio switches Nagle off: an answer is written in two parts.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if os.name == "posix" and sys.platform != "cygwin":
            # Connections of an earlier server that still linger do not count as taking the port.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
