"""A server of every test's own, on each transport: what it holds at the end is what the test left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server import kit
from server.conftest import ALONE
from support import zoo
from support.servers import RunningServer, running_server


@pytest.fixture(params=kit.TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, transport: str) -> Iterator[RunningServer]:
    """Serves `identity`, and `slow`, which takes 5 ms a run of one request."""
    path = zoo.repository(tmp_path, {"identity": zoo.identity(), "slow": zoo.slow(5)})
    (path / "slow" / "model.toml").write_text(ALONE)
    with running_server(path, "--transport", transport) as server:
        yield server
