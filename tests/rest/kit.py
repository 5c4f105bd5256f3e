"""What the tests of HTTP share: a server in this process, and a client that sees every byte."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.config import Config
from penstock.server import Server

BOUND = 20.0
"""No call of a test may take longer: seconds."""


class Answer(NamedTuple):
    """An answer over HTTP.

    Attributes:
        status: its code.
        headers: names in lower case.
        body: its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.body)


class Client:
    """A client of the server at a port, with a connection of its own for each call.

    Args:
        port: of HTTP on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def call(
        self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Calls a path; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        try:
            connection.request(verb, path, data, dict(headers or {}))
            return answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """Asks for a path."""
        return self.call("GET", path, None, named(headers))

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Posts JSON; in the names of headers "_" stands for "-"."""
        return self.call("POST", path, body, named(headers))

    @contextmanager
    def raw(self, window: int = 0) -> Iterator[socket.socket]:
        """A bare connection; with a window, it takes as few bytes at a time."""
        with socket.socket() as made:
            made.settimeout(BOUND)
            if window:  # before it connects: the window is agreed on then
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            made.connect(("127.0.0.1", self.port))
            yield made


def named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def answer(response: http.client.HTTPResponse) -> Answer:
    """An answer that is read to its end."""
    body = response.read()
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, body)


def wait_until(condition: Callable[[], bool], what: str = "it comes to that") -> None:
    """Waits for something to become true.

    Raises:
        AssertionError: it does not; names `what`.
    """
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, f"not within {BOUND} s: {what}"
        time.sleep(0.005)


def until_closed(connection: socket.socket) -> bytes:
    """All that a server sends until it closes the connection."""
    parts = []
    while True:
        try:
            part = connection.recv(65_536)
        except ConnectionResetError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


@contextmanager
def serving(path: Path, settings: Mapping[str, Any] | None = None, **server: Any) -> Iterator[Server]:
    """A server in this process, on free ports."""
    ports = {"port": 0, "ops_port": 0, "http_port": 0, "http": True}
    config = Config.model_validate(
        {**(settings or {}), "server": {**ports, **server}, "trial": {"enabled": False}}
    )
    made = Server(config, path)
    made.start()
    try:
        yield made
    finally:
        made.stop(5.0)
        made.close()
