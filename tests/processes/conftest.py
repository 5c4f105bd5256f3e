"""Groups of processes that serve, and connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from server import kit
from server.conftest import zoo_path  # noqa: F401 - a fixture
from support import zoo
from support.servers import RunningServer, running_server

TWO = ("--processes", "2")
SHORT_LIVED = {"PENSTOCK_SERVER__CONNECTION_SECONDS": "0.2"}
"""Connections are made anew so often that a process need not wait long to leave."""


@pytest.fixture(scope="session")
def group(zoo_path: Path) -> Iterator[RunningServer]:  # noqa: F811
    """Two processes that serve what the servers of the other tests do; for tests that leave them alone."""
    with running_server(zoo_path, *TWO) as server:
        yield server


@pytest.fixture
def server(group: RunningServer) -> RunningServer:
    """The server that tests from elsewhere ask for."""
    return group


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with kit.connect(server.target) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return kit.stub_of(channel)


Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts two processes of a test's own: `serve({name: model}, *flags, ...)`."""
    with ExitStack() as stack:

        def start(
            models: dict[str, Any], *flags: str, settings: dict[str, str] | None = None, **how: Any
        ) -> RunningServer:
            path = zoo.repository(tmp_path / "models", models)
            for name, text in (settings or {}).items():
                (path / name / "model.toml").write_text(text)
            return stack.enter_context(running_server(path, *TWO, *flags, **how))

        yield start
