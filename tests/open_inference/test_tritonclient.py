"""tritonclient, which knows nothing of us: the newest release and one a year older, on both transports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from open_inference import kit
from server import kit as server_kit
from support.servers import RunningServer

CLIENTS = [("newest", "reactor"), ("older", "portable")]
Outcomes = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def outcomes(oip_server: Callable[[str], RunningServer]) -> Outcomes:
    """What came of every check, by an environment and a transport; they run once, one after another."""
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def get(environment: str, transport: str) -> dict[str, Any]:
        kit.python_of(environment)  # skips, before a server is started
        if (environment, transport) not in known:
            known[environment, transport] = kit.run(environment, "checks.py", oip_server(transport).target)
        return known[environment, transport]

    return get


@pytest.mark.parametrize(("environment", "transport"), CLIENTS, ids=map("-".join, CLIENTS))
@pytest.mark.parametrize("check", kit.checks("checks_*.py"))
def test_tritonclient(outcomes: Outcomes, environment: str, transport: str, check: str) -> None:
    trouble = outcomes(environment, transport)[check]
    assert not trouble, trouble


@pytest.mark.parametrize(("environment", "transport"), CLIENTS, ids=map("-".join, CLIENTS))
def test_nothing_is_left_behind(
    outcomes: Outcomes, oip_server: Callable[[str], RunningServer], environment: str, transport: str
) -> None:
    """Whatever was cancelled is over, and only the model that is made to fail was worth a line in the log."""
    outcomes(environment, transport)
    server = oip_server(transport)
    server_kit.wait_until(lambda: server_kit.is_idle(server.ops), "idle")
    assert {event["event"] for event in server_kit.problems(server)} == {"model failed"}
    server_kit.wait_until(
        lambda: server_kit.metric(server.ops, "requests_total", model="slow", code="CANCELLED") >= 3,
        "those that were cancelled are counted",
    )


def test_there_are_checks() -> None:
    assert len(kit.checks("checks_*.py")) > 50
    assert len(set(kit.checks("checks_*.py"))) == len(kit.checks("checks_*.py"))
