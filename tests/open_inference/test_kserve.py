"""KServe's Python client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from open_inference import kit
from support.servers import RunningServer

CHECKS = "kserve_checks.py"


@pytest.fixture(scope="session")
def outcomes(oip_server: Callable[[str], RunningServer]) -> dict[str, Any]:
    kit.python_of("kserve")  # skips, before a server is started
    found: dict[str, Any] = kit.run("kserve", CHECKS, oip_server("reactor").target)
    return found


@pytest.mark.parametrize("check", kit.checks(CHECKS))
def test_kserve_client(outcomes: dict[str, Any], check: str) -> None:
    assert not outcomes[check], outcomes[check]
