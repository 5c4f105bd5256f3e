"""Operations over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for the probes of an orchestrator.

Small on purpose: every connection carries one request and has its own thread, so that a client that hangs
does not delay the others. If there are too many connections, the oldest is closed. Further pages are given to
it, such as those of `penstock.page`.
"""

from __future__ import annotations

import errno
import gzip
import io
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any, TextIO, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse

from penstock.core.address import address
from penstock.core.listening import OPERATIONS, listening_failed

_MOST_CONNECTIONS = 64
_MOST_UNUSED_BYTES = 65_536
_PIECE_BYTES = 1 << 16
_MOST_BODY_BYTES = 4 << 20
_POLL_SECONDS = 0.1
_TEXT = "text/plain; charset=utf-8"
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LEAST_COMPRESSED_BYTES = 1024  # below that, the answer's headers are as large
_COMPRESSION_LEVEL = 1  # level 6 takes eight times as long (0.9 ms for 43 KB) and saves a fifth more
_CODING = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?", re.IGNORECASE)

_log = logging.getLogger(__name__)

RenderMetrics: TypeAlias = Callable[[str], tuple[str, bytes]]
Ready: TypeAlias = Callable[[], tuple[bool, str]]
_Answer: TypeAlias = tuple[HTTPStatus, str, bytes]


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a page.

    Attributes:
        query: the query string, without "?".
        headers: names in lower case.
        body: of a POST; else empty.
    """

    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to it.

    Attributes:
        status: the status code.
        content_type: of the body.
        body: bytes; or an iterable of parts, each sent at once, which is closed (`close`) at the end.
        headers: further headers.
    """

    status: int
    content_type: str
    body: bytes | Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is given to the server.

    Attributes:
        answer: makes the answer.
        method: "GET" (HEAD then works as well) or "POST".
        media_type: if not "", only for clients whose Accept header names it; others get what they would
            get without this page.
    """

    answer: Callable[[Question], Reply]
    method: str = "GET"
    media_type: str = ""


class OpsServer:
    """The HTTP server of operations.

    Args:
        host: the address to listen on.
        port: the port; 0 chooses a free one.
        render_metrics: takes the Accept header and returns the content type and the text.
        ready: whether requests can be served, and the text of the answer.
        alive: whether the process works, and the text of the answer; if not, it must be restarted.
        pages: further pages, by path.
        on_stop: called when the server stops: answers that go on for ever must end.
        timeout_seconds: how long a client may take to send data, or to receive a piece of an answer.
    """

    def __init__(  # noqa: PLR0913 - the address, and what to ask
        self,
        host: str,
        port: int,
        *,
        render_metrics: RenderMetrics,
        ready: Ready,
        alive: Ready = lambda: (True, "ok"),
        pages: Mapping[str, Page] | None = None,
        on_stop: Callable[[], None] = lambda: None,
        timeout_seconds: float = 10.0,
    ) -> None:
        self._host = host
        self._port = port
        self._application = _Application(render_metrics, ready, alive, pages or {})
        self._on_stop = on_stop
        self._timeout_seconds = timeout_seconds
        self._server: _Server | None = None

    def start(self) -> int:
        """Listens, and serves on its own thread.

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be listened on; names it.
        """
        try:
            server = _Server(self._host, self._port, self._timeout_seconds)
        except OSError as error:
            where = address(self._host, self._port)
            raise listening_failed(where, OPERATIONS, error.strerror or str(error)) from error
        server.set_app(self._application)
        self._server = server
        Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="ops", daemon=True).start()
        return int(server.server_address[1])

    def stop(self) -> None:
        """Stops listening and closes all connections. Does nothing if not started."""
        server, self._server = self._server, None
        self._on_stop()
        if server is not None:
            server.shutdown()
            server.server_close()
            server.close_connections()


class _Application:
    """The pages, as a WSGI application."""

    def __init__(
        self, render_metrics: RenderMetrics, ready: Ready, alive: Ready, given: Mapping[str, Page]
    ) -> None:
        self._given = given
        self._pages: dict[str, Callable[[str], _Answer]] = {
            "/": lambda _: _text(HTTPStatus.OK, "\n".join(path for path in self._paths if path != "/")),
            "/metrics": lambda accept: (HTTPStatus.OK, *render_metrics(accept)),
            "/livez": lambda _: _verdict(*alive()),
            "/readyz": lambda _: _verdict(*ready()),
        }
        self._paths = list(dict.fromkeys((*self._pages, *given)))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        page = self._given.get(path)
        if page is not None and page.media_type in environ.get("HTTP_ACCEPT", ""):
            if method == page.method or (method == "HEAD" and page.method == "GET"):
                return self._sent(self._asked(page, environ), environ, start_response)
            if path not in self._pages:
                _read_body(environ)
                allowed = "GET, HEAD" if page.method == "GET" else page.method
                return self._sent(_not_allowed(method, allowed), environ, start_response)
        return self._sent(self._answer(method, environ), environ, start_response)

    def _sent(self, reply: Reply, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Sends the head of an answer, and returns its body."""
        headers = [("Server", "penstock"), ("Content-Type", reply.content_type), *reply.headers.items()]
        body = reply.body
        if isinstance(body, bytes):
            if len(body) >= _LEAST_COMPRESSED_BYTES:
                headers.append(("Vary", "Accept-Encoding"))
                if _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
                    headers.append(("Content-Encoding", "gzip"))
                    body = gzip.compress(body, _COMPRESSION_LEVEL)
            headers.append(("Content-Length", str(len(body))))
        start_response(f"{reply.status} {_phrase(reply.status)}", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            if not isinstance(body, bytes):
                _end(body)
            return []
        return _pieces(body) if isinstance(body, bytes) else body

    def _asked(self, page: Page, environ: dict[str, Any]) -> Reply:
        """What a page that is given answers."""
        body = b""
        if page.method == "POST":
            length = environ.get("CONTENT_LENGTH") or "0"
            if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
                words = f"the body has {length[:20]} bytes, expected at most {_MOST_BODY_BYTES}"
                return _reply(_text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words))
            body = environ["wsgi.input"].read(int(length))
        else:
            _read_body(environ)
        headers = {
            key[5:].replace("_", "-").lower(): str(value)
            for key, value in environ.items()
            if key.startswith("HTTP_")
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        try:
            return page.answer(Question(environ.get("QUERY_STRING", ""), headers, body))
        except Exception:  # of any kind: the client gets an answer, and the reason is logged
            return _reply(_failed(environ["PATH_INFO"]))

    def _answer(self, method: str, environ: dict[str, Any]) -> Reply:
        _read_body(environ)
        path = environ["PATH_INFO"]
        page = self._pages.get(path)
        if page is None:
            return _reply(_text(HTTPStatus.NOT_FOUND, f"no page {path}; available: {', '.join(self._paths)}"))
        if method not in ("GET", "HEAD"):
            return _not_allowed(method, "GET, HEAD")
        try:
            return _reply(page(environ.get("HTTP_ACCEPT", "")))
        except Exception:  # of any kind: the client gets an answer, and the reason is logged
            return _reply(_failed(path))


def _reply(answer: _Answer) -> Reply:
    status, content_type, body = answer
    return Reply(status.value, content_type, body)


def _not_allowed(method: str, allowed: str) -> Reply:
    words = f"{method} is not allowed, only {allowed.replace(', ', ' and ')}\n"
    return Reply(HTTPStatus.METHOD_NOT_ALLOWED.value, _TEXT, words.encode(), {"Allow": allowed})


def _failed(path: str) -> _Answer:
    """The answer when a page raises; logs the exception."""
    _log.exception("%s failed", path)
    return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "failed; see the server's log")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # such as 499
        return "Unknown"


def _pieces(body: bytes) -> list[bytes]:
    """A body in pieces, each of which a client has `timeout_seconds` to take: a slow one takes them all."""
    return [body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES)] or [b""]


def _end(body: Iterable[bytes]) -> None:
    """Closes a body that is not sent."""
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _verdict(good: bool, reason: str) -> _Answer:
    return _text(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether a client prefers gzip to no encoding, by its Accept-Encoding header (RFC 9110, 12.5.3)."""
    found = filter(None, map(_CODING.fullmatch, accept_encoding.split(",")))
    weights = {each[1].lower(): float(each[2] or 1) for each in found}
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return weight > 0 and weight >= weights.get("identity", 0.0)


def _text(status: HTTPStatus, text: str) -> _Answer:
    return status, _TEXT, f"{text}\n".encode()


def _read_body(environ: dict[str, Any]) -> None:
    """Reads the unused body of a request: closing a connection with unread bytes cuts off the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal():
        environ["wsgi.input"].read(min(int(length), _MOST_UNUSED_BYTES))


class _Handler(WSGIRequestHandler):
    """One connection. It logs nothing, as probes would fill the log."""

    def setup(self) -> None:
        """Limits how long the client may take."""
        self.request.settimeout(self.server.timeout_seconds)  # type: ignore[attr-defined]
        super().setup()

    def address_string(self) -> str:
        """The client's address as numbers: the base class may look up its name, which takes time."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def get_stderr(self) -> TextIO:
        """A stream that is thrown away: wsgiref writes the errors of broken connections to it."""
        return io.StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    """An HTTP server that knows its connections, so that they can be limited and closed."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # at the default of 5, a burst of clients waits for seconds

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._connections: dict[socket.socket, None] = {}  # oldest first
        self._lock = Lock()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Binds. The base class would look the host's name up, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        """Accepts a connection. If the system has no room, waits a moment: it is called again at once."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _NO_ROOM:
                time.sleep(_POLL_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives the connection a thread; closes the oldest one if there are too many."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > _MOST_CONNECTIONS:
                oldest = next(iter(self._connections))
                _close(oldest)
                del self._connections[oldest]
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection that has been answered."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnected or took too long is not logged."""
        _log.debug("connection of %s ended", client_address, exc_info=True)

    def close_connections(self) -> None:
        """Closes all connections, and so ends their threads."""
        with self._lock:
            for connection in self._connections:
                _close(connection)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was quicker
        connection.shutdown(socket.SHUT_RDWR)
