"""Operations over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever runs the server.

Small on purpose: every connection carries one request and has a thread of its own, so that a client that
is stuck holds up nobody. Where there are too many of these, the oldest makes room.
"""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any, TextIO, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse

from penstock.errors import StartupError

_MOST_CONNECTIONS = 64
_MOST_BODY_BYTES = 65_536
_POLL_SECONDS = 0.1
_TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)

RenderMetrics: TypeAlias = Callable[[str], tuple[str, bytes]]
Ready: TypeAlias = Callable[[], tuple[bool, str]]
_Answer: TypeAlias = tuple[HTTPStatus, str, bytes]


class OpsServer:
    """The HTTP server of operations.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        render_metrics: takes the Accept header, gives content type and text.
        ready: whether requests can be served, and what to say about it.
        alive: whether the process can do its work at all, and if not, why: then it is to be restarted.
        timeout_seconds: how long a client may take to send anything, or to take what is sent.
    """

    def __init__(  # noqa: PLR0913 - the address, and what to ask
        self,
        host: str,
        port: int,
        *,
        render_metrics: RenderMetrics,
        ready: Ready,
        alive: Ready = lambda: (True, "ok"),
        timeout_seconds: float = 10.0,
    ) -> None:
        self._host = host
        self._port = port
        self._application = _Application(render_metrics, ready, alive)
        self._timeout_seconds = timeout_seconds
        self._server: _Server | None = None

    def start(self) -> int:
        """Listens, and serves on a thread of its own.

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be listened on; names it.
        """
        try:
            server = _Server(self._host, self._port, self._timeout_seconds)
        except OSError as error:
            raise StartupError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        server.set_app(self._application)
        self._server = server
        Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="ops", daemon=True).start()
        return int(server.server_address[1])

    def stop(self) -> None:
        """Listens no more and cuts what is still connected. Does nothing where nothing is started."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_connections()


class _Application:
    """The pages, as a WSGI application."""

    def __init__(self, render_metrics: RenderMetrics, ready: Ready, alive: Ready) -> None:
        self._render_metrics = render_metrics
        self._ready = ready
        self._alive = alive
        self._pages: dict[str, Callable[[str], _Answer]] = {
            "/": self._index,
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
        }

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        status, content_type, body = self._answer(method, environ)
        headers = [("Server", "penstock"), ("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if method == "HEAD" else [body]

    def _answer(self, method: str, environ: dict[str, Any]) -> _Answer:
        _read_body(environ)
        path = environ["PATH_INFO"]
        page = self._pages.get(path)
        if page is None:
            return _text(HTTPStatus.NOT_FOUND, f"there is no {path}; there are {', '.join(self._pages)}")
        if method not in ("GET", "HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not allowed, only GET and HEAD")
        try:
            return page(environ.get("HTTP_ACCEPT", ""))
        except Exception:  # whatever it was, the client gets an answer and the log the reason
            _log.exception("%s failed", path)
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "failed; the log has the reason")

    def _index(self, _accept: str) -> _Answer:
        return _text(HTTPStatus.OK, "\n".join(path for path in self._pages if path != "/"))

    def _metrics(self, accept: str) -> _Answer:
        return (HTTPStatus.OK, *self._render_metrics(accept))

    def _livez(self, _accept: str) -> _Answer:
        return _verdict(*self._alive())

    def _readyz(self, _accept: str) -> _Answer:
        return _verdict(*self._ready())


def _verdict(good: bool, reason: str) -> _Answer:
    return _text(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _text(status: HTTPStatus, text: str) -> _Answer:
    return status, _TEXT, f"{text}\n".encode()


def _read_body(environ: dict[str, Any]) -> None:
    """Takes a body that nobody wants: closing a connection with unread bytes would cut the answer off."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal():
        environ["wsgi.input"].read(min(int(length), _MOST_BODY_BYTES))


class _Handler(WSGIRequestHandler):
    """One connection; it says nothing of its own, as probes would fill the log."""

    def setup(self) -> None:
        """Bounds how long the client may take."""
        self.request.settimeout(self.server.timeout_seconds)  # type: ignore[attr-defined]
        super().setup()

    def address_string(self) -> str:
        """The client's address as it is: the base class may look its name up, which takes time."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def get_stderr(self) -> TextIO:
        """Where wsgiref would write what a broken connection raised."""
        return io.StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    """Listens, and knows its connections, so that they can be cut."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # at the default of 5, a burst of clients waits for seconds

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._connections: dict[socket.socket, None] = {}  # in order of their coming
        self._lock = Lock()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Binds. The base class would look the host's name up, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives the connection a thread; the oldest one makes room where there are too many."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > _MOST_CONNECTIONS:
                oldest = next(iter(self._connections))
                _cut(oldest)
                del self._connections[oldest]
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection that has been answered."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or took too long is nothing to report."""
        _log.debug("connection of %s ended", client_address, exc_info=True)

    def cut_connections(self) -> None:
        """Ends all connections, and with them their threads."""
        with self._lock:
            for connection in self._connections:
                _cut(connection)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was quicker
        connection.shutdown(socket.SHUT_RDWR)
