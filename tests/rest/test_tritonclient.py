"""tritonclient over HTTP, which knows nothing of us: what it gets is what it gets over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from open_inference import kit
from penstock.server import Server


@pytest.fixture(scope="module")
def outcomes(rest_server: Server) -> Any:
    """What came of every check."""
    targets = (f"127.0.0.1:{port}" for port in (rest_server.http_port, rest_server.port))
    return kit.run("newest", "http_checks.py", *targets)


@pytest.mark.parametrize("check", kit.checks("http_checks.py"))
def test_tritonclient(outcomes: Any, check: str) -> None:
    assert not outcomes[check], outcomes[check]
