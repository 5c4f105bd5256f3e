"""KServe's Python client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from open_inference import kit
from support.servers import RunningServer

CHECKS, REST_CHECKS = "kserve_checks.py", "kserve_rest_checks.py"


@pytest.fixture(scope="session")
def outcomes(oip_server: Callable[[str], RunningServer]) -> dict[str, Any]:
    kit.python_of("kserve")  # skips, before a server is started
    found: dict[str, Any] = kit.run("kserve", CHECKS, oip_server("reactor").target)
    return found


@pytest.fixture(scope="session")
def rest_outcomes(oip_server: Callable[[str], RunningServer]) -> dict[str, Any]:
    kit.python_of("kserve")
    found: dict[str, Any] = kit.run("kserve", REST_CHECKS, oip_server("reactor").http)
    return found


@pytest.mark.parametrize("check", kit.checks(REST_CHECKS))
def test_kserve_rest_client(rest_outcomes: dict[str, Any], check: str) -> None:
    assert not rest_outcomes[check], rest_outcomes[check]


@pytest.mark.parametrize("check", kit.checks(CHECKS))
def test_kserve_client(outcomes: dict[str, Any], check: str) -> None:
    assert not outcomes[check], outcomes[check]
