"""The server that these tests share, one for each road."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from oip import kit
from support.servers import RunningServer, running_server


@pytest.fixture(scope="session")
def oip_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningServer]]:
    """Gives the server of a road, which is started when the first test wants it."""
    path = kit.repository(tmp_path_factory.mktemp("oip") / "models")
    running: dict[str, RunningServer] = {}
    with ExitStack() as stack:

        def get(road: str) -> RunningServer:
            if road not in running:
                running[road] = stack.enter_context(running_server(path, "--transport", road))
            return running[road]

        yield get
