"""How a server starts, and how it says that it cannot."""

from __future__ import annotations

import socket
import subprocess

import pytest

from server import kit
from support.servers import SCRIPT, running_server

EXAMPLES = kit.EXAMPLES


def refused(*arguments: str) -> str:
    """What a server that does not start says on standard error; its exit code must be 1."""
    command = [SCRIPT, "serve", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert ran.stdout == ""
    return ran.stderr


@pytest.mark.parametrize("flags", [("--port", "--ops-port"), ("--ops-port", "--port")])
@pytest.mark.parametrize("transport", kit.ROADS)
def test_a_port_that_is_taken(flags, transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(str(EXAMPLES), flags[0], port, flags[1], "0", "--transport", transport)
    assert said.startswith(f"Error: cannot listen on 127.0.0.1:{port}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("attempt", range(4))
def test_whatever_is_logged_into_a_pipe_is_json(attempt) -> None:
    with running_server(EXAMPLES, "--transport", "reactor") as server:
        pass
    assert [line for line in server.stderr if not line.startswith("{")] == []
