"""The server that these tests share, one for each transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from open_inference import kit
from support.servers import RunningServer, running_server


@pytest.fixture(scope="session")
def oip_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningServer]]:
    """Gives the server of a transport, which is started when the first test wants it."""
    path = kit.repository(tmp_path_factory.mktemp("oip") / "models")
    running: dict[str, RunningServer] = {}
    with ExitStack() as stack:

        def get(transport: str) -> RunningServer:
            if transport not in running:
                running[transport] = stack.enter_context(
                    running_server(path, "--transport", transport, "--http", "--http-port", "0")
                )
            return running[transport]

        yield get
