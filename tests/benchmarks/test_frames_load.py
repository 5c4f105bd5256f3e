"""The load of voices sends messages that are larger than HTTP/2's windows."""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parents[2] / "benchmarks/programs"
HEAD = 9


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the load."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    yield importlib.import_module("frames_load")
    for name in ("frames_load", "open_loop"):
        sys.modules.pop(name, None)


def sent(data: bytearray) -> bytes:
    """What frames of data hold."""
    found = b""
    while data:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == 0:
            found += data[HEAD : HEAD + size]
        del data[: HEAD + size]
    return found


def test_a_message_that_is_larger_than_the_window_leaves_in_parts(program: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = program.Connection(f"127.0.0.1:{server.getsockname()[1]}", program.Tally())
        with connection.socket:
            stream = connection.open()
            connection._out.clear()
            message = bytes(range(256)) * 512  # twice the first window
            connection.send(stream, [0.0], message)
            first = sent(connection._out)
            assert first == message[: program.FIRST_WINDOW]
            assert not stream.unanswered
            connection._window += len(message)
            stream.window += len(message)
            assert connection._write(stream)
            assert first + sent(connection._out) == message
            assert list(stream.unanswered) == [0.0]
