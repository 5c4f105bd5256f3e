"""tritonclient over HTTP, which knows nothing of us: what it gets is what it gets over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from open_inference import kit
from penstock.server import Server


@pytest.fixture(scope="module", params=["newest", "older"])
def outcomes(rest_server: Server, request: pytest.FixtureRequest) -> Any:
    """What came of every check, with the newest client and one a year older."""
    if not kit.has_http(request.param):
        pytest.skip(f"tritonclient of {request.param} is not installed with HTTP: make oip-clients")
    targets = (f"127.0.0.1:{port}" for port in (rest_server.http_port, rest_server.port))
    return kit.run(request.param, "http_checks.py", *targets)


@pytest.mark.parametrize("check", kit.checks("http_checks.py"))
def test_tritonclient(outcomes: Any, check: str) -> None:
    assert not outcomes[check], outcomes[check]
