"""One connection: uvicorn's, which also knows how long its client takes, and when its client goes."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Sized
from typing import Any

import httptools
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from penstock.transport.grpc.call import BROKEN, STOPPING, Status
from penstock.transport.http.call import REQUEST_ID, HttpCall
from penstock.transport.http.intake import Intake
from penstock.transport.http.lines import LineCall
from penstock.transport.http.lingering import LINGER_BYTES, UNTOLD_BYTES, CycleTransport, Lingering
from penstock.transport.http.status import (
    bad_request,
    headers_too_large,
    no_room,
    status_line,
    too_slow,
    whole_answer,
)
from penstock.transport.http.upgrade import AfterUpgrade
from penstock.transport.http.whole import END, Head, KnownHeads, WholeCall

WAIT_SECONDS = 30.0
"""How long a client may take for the headers of a request; to take `LEAST_TAKEN` bytes of an answer; and for
its body, with a second more for every `LEAST_RATE` bytes."""
LEAST_RATE = 16_384
KEEP_SECONDS = 75
"""How long a connection is kept without a request."""


MOST_PIPELINED = 256
"""Most requests that a client may send ahead; a connection with more is closed."""
LONGEST_WORDS = 100
FULL = no_room()
NO_LINGER = struct.pack("ii", 1, 0)
CLOSE = (b"connection", b"close")
FRAMING = (b"content-length", b"transfer-encoding")
"""The headers that say where a body ends."""
_ESCAPES = re.compile(rb"[%#]")
"""What makes a path that must be looked at more closely."""


class _Flow(FlowControl):
    """Reads no further while requests wait that were sent ahead, or a client could send as many as it likes.

    Args:
        transport: the connection's.
        waiting: these requests.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    @override
    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """A connection; see `HttpToolsProtocol`.

    Args:
        config: uvicorn's settings.
        state: what all connections share.
        header_bytes: the most bytes of a request's head.
        loop: the event loop.
        is_full: whether there is no room for another connection.
        at_once: answers a request that has come completely, or returns False; see `Application.at_once`.
        alone: the same for one that is all that has come; see `Turn`.
        heads: those that have come before.

    Attributes:
        call: the call that is being answered.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        config: Config,
        state: ServerState,
        header_bytes: int,
        loop: asyncio.AbstractEventLoop,
        is_full: Callable[[], bool],
        at_once: Callable[[Connection, Head, bytes], bool],
        alone: Callable[[Connection, Head, bytes], bool],
        heads: KnownHeads,
    ) -> None:
        super().__init__(config, state, {"connection": self}, loop)
        self.call: HttpCall | None = None
        self._header_bytes = header_bytes
        self._is_full = is_full
        self._at_once, self._alone = at_once, alone
        self._heads = heads
        self._is_between = self._began_between = True  # requests: now, and when what is parsed had come
        self._body: bytes | None = None  # of a request that may come completely at once; see `WholeCall`
        self._refusal: Status | None = None  # ends the connection once what came before is answered
        self._refused: Any = None  # the request that it is for, if it waits behind those
        self._lingering: Lingering | None = None
        self._idle: float | None = None  # since when no request has come, as far as `check` has seen
        self._in_head = True
        self._began: float | None = time.monotonic()  # the request that is being read; None between requests
        self._received = 0  # bytes of it
        self._aside = 0  # bytes since the last of its body: more of them are headers behind it
        self._data = b""  # what is being parsed

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._intake = Intake(transport)
        if self._is_full():
            self.transport.write(whole_answer(FULL))
            self.transport.close()  # at once: there is no room for what lingers

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.call is not None:
            self.call.gone()
        self._lingering = None  # it refers to the transport

    @override
    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering.received(len(data))
            return
        if self._refusal is not None:
            return
        if self._is_between and self._is_answered_known(data):
            return
        self._began_between = self._is_between
        most = max(self._aside, self._received if self._in_head else 0)
        self._received += len(data)
        self._aside += len(data)
        if most > self._header_bytes:
            self._refuse(headers_too_large(self._header_bytes))
            return
        self._data = data
        self._idle = None
        super().data_received(data)
        if self._body is not None and not self._is_over():  # the rest of it comes later
            self._begin_cycle()

    @override
    def on_message_begin(self) -> None:
        # Not uvicorn's: most requests need no scope of ASGI, which `_begin_cycle` makes for the others.
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_head = True
        self._is_between = False
        self._began = time.monotonic()
        self._received = self._aside = 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        # Behind the body, where proxies seldom look, one must replace nothing.
        if self._in_head:
            super().on_header(name, value)

    @override
    def on_body(self, body: bytes) -> None:
        self._aside = 0
        if self._body is None:
            if self.cycle.response_complete and self._received > LINGER_BYTES:
                self._reset()
                raise ValueError("the body of a request that has been answered goes on for too long")
            super().on_body(body)
        else:
            self._body += body

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # its clients take the first answer for the only one
        if len(self.pipeline) >= MOST_PIPELINED:
            self._reset()
            raise ValueError("too many requests were sent ahead")  # stops the parser
        is_next = self.cycle is None or self.cycle.response_complete
        is_plain = self.url.startswith(b"/") and self.url.isascii() and not _ESCAPES.search(self.url)
        if (
            is_next
            and is_plain
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
        ):
            self._body = b""
        else:
            self._begin_cycle()

    def _begin_cycle(self) -> None:
        """Starts what answers a request by uvicorn's means: a task of asyncio that calls the application."""
        body, self._body = self._body, None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        self.cycle.transport = CycleTransport(self.transport, self.close_after_answer)  # type: ignore[assignment]
        if body:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._began = None
        self._is_between = True
        self._received = self._aside = 0
        if self._body is None:
            super().on_message_complete()
        elif not self._answered_at_once(self._body):
            self._begin_cycle()
            super().on_message_complete()

    def _is_answered_known(self, data: bytes) -> bool:
        """Answers a request that has come completely and begins with a known head, without parsing it."""
        end = data.find(END) + len(END)
        head = self._heads.find(data[:end])
        if head is None or len(data) != end + head.length or self.flow.write_paused:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self._idle = self._began = None
        self._in_head = False
        return self._alone(self, head, data[end:])

    def _answered_at_once(self, body: bytes) -> bool:
        """Answers a request that has come completely, if it is one that needs no task."""
        parser = self.parser
        path, _, query = self.url.partition(b"?")
        version = parser.get_http_version()
        keep_alive = parser.should_keep_alive() and version != "1.0"
        method = parser.get_method().decode()
        head = Head(version, method, path, query, self.headers, keep_alive)
        if not self._at_once(self, head, body):
            return False
        self._body = None
        if self._began_between:
            self._heads.learn(self._data, head, body)
        return True

    @override
    def on_response_complete(self) -> None:
        # Without uvicorn's timer for each answer: `check` closes connections without requests.
        if self._is_over():
            return
        self.flow.resume_reading()
        cycle = self.pipeline.pop()[0] if self.pipeline else self._refused
        if self._refusal is not None and cycle is self._refused:
            self._end(self._refusal)
        elif cycle is not None:
            self._start_asgi_task(cycle, self.app)

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Answers a request that asks for another protocol in this one.

        The parser has stopped at the end of the request's head, and takes what follows for the other
        protocol: so a new parser reads the body, and the requests after it. Clients that ask for HTTP/2 in
        this way, as Java's does by default, are content with HTTP/1.1.
        """
        error = sys.exc_info()[1]
        assert isinstance(error, httptools.HttpParserUpgrade), "called for nothing else"
        rest = self._data[error.args[0] :]
        reader = AfterUpgrade(self)
        self.parser = httptools.HttpRequestParser(reader)
        lines = [b"%b: %b\r\n" % each for each in self.headers if each[0] in FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
        reader.is_muted = False
        self._is_between = reader.is_complete
        if not reader.is_complete:
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self._began = time.monotonic()
        if rest:
            self.data_received(rest)

    def answer_whole(
        self, request: WholeCall, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Sends the answer to a request; see `Connected`."""
        if request.disconnected or self.transport.is_closing():
            return
        lines = [b"%b: %b\r\n" % each for each in (*self.server_state.default_headers, *headers)]
        if CLOSE in headers:
            request.keep_alive = False
        elif not request.keep_alive:
            lines.append(b"connection: close\r\n")
        request.response_started = request.response_complete = True
        self.transport.write(b"".join((status_line(status), *lines, b"\r\n", body)))
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def go_on(self) -> None:
        """Goes on with the next request behind an answer, if there is one."""
        if self.pipeline or self._refusal is not None or self.flow.read_paused:
            self.on_response_complete()

    def check(self, now: float) -> None:
        """Cuts the client off if it takes too long.

        Args:
            now: the time, by `time.monotonic()`.
        """
        if self._intake.is_stuck(now, WAIT_SECONDS):
            self._reset()
            return
        if self._lingering is not None:
            if not self.transport.get_write_buffer_size():
                self._lingering.check(now)
            return
        if self._began is None and self.call is None and not self.pipeline:
            if self._idle is None:
                self._idle = now
            elif now - self._idle > KEEP_SECONDS:
                self.transport.close()
        if self._began is None or self.flow.read_paused or isinstance(self.call, LineCall):
            return  # a stream may wait between two lines for as long as it likes
        if now - self._began > WAIT_SECONDS + self._received / LEAST_RATE:
            self._refuse(too_slow(WAIT_SECONDS, LEAST_RATE))

    def end_unread(self) -> None:
        """Rejects the request that is being read, if its body is not complete; a stream ends by itself."""
        if self.call is None or self._began is None or isinstance(self.call, LineCall):
            return
        if not self._in_head and not self.pipeline:  # else it waits behind one that has been accepted
            self._refuse(STOPPING)

    def _reset(self) -> None:
        """Ends the connection at once; what the client has not taken is dropped by the kernel, too."""
        found = self.transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()

    @override
    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, httptools.HttpParserCallbackError) and not self._is_over():
            self.loop.call_exception_handler({"message": msg, "exception": error.__context__ or error})
            self._refuse(BROKEN)
            return
        words = str(error)[:LONGEST_WORDS]
        self._refuse(bad_request(f"what came is not a request of HTTP/1.1: {words}"))

    def _refuse(self, status: Status) -> None:
        """Ends the connection with an answer, where none has begun, after the answers to earlier requests."""
        if self._is_over():
            return
        cycle, is_between = self.cycle, self._in_head or self._began is None
        if cycle is not None and not cycle.response_complete and (self.pipeline or is_between):
            self._refusal, self._refused = status, None if is_between else cycle
        else:
            self._end(status)

    def _end(self, status: Status) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            is_known = not self._in_head and self._began is not None
            ids = [value for name, value in self.headers or () if name == REQUEST_ID.encode()]
            self.transport.write(whole_answer(status, ids[-1] if is_known and ids else b""))
        self._linger()

    def close_after_answer(self) -> None:
        """Closes the connection once its last answer has left, and its client has sent the rest."""
        if self._is_between:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Ends the connection but for reading what its client is still sending; see `Lingering`."""
        cycle, call = self.cycle, self.call
        is_told = not self._in_head and any(name == FRAMING[0] for name, _ in self.headers or ())
        self._lingering = Lingering(self.transport, LINGER_BYTES if is_told else UNTOLD_BYTES)
        self.pipeline.clear()  # else reading stays paused
        self.flow.resume_reading()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if call is not None:
            call.gone()

    def _is_over(self) -> bool:
        """Whether nothing more is sent."""
        return self._lingering is not None or self.transport.is_closing()
