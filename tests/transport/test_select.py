"""Which transport is taken, and the fallback if grpcio's private module is not what the reactor expects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.transport.grpc.call import Transport
from penstock.transport.grpc.portable import Portable
from penstock.transport.grpc.reactor import Reactor
from penstock.transport.grpc.select import choose
from penstock.transport.grpc.self_test import self_test

CHOOSE = """
import sys
from penstock.core.errors import StartupError
from penstock.transport.grpc.select import choose
try:
    print(choose(sys.argv[1], lambda error: print("warned:", repr(error))).name)
except StartupError as error:
    print("StartupError:", error)
"""

SITE = """
import grpc._cython.cygrpc as core
{damage}
"""
"""A sitecustomize: grpcio's private module, changed before anything of ours is imported."""

DAMAGES = {
    "a name is gone": "del core.ReceiveCloseOnServerOperation",
    "a function that only a call needs is gone": "del core.auth_context",
    "a method is gone": """
class Server:
    def __init__(self, *arguments): pass
core.Server = Server
""",
    "a signature has changed": """
real = core.SendStatusFromServerOperation
core.SendStatusFromServerOperation = lambda details, code, flags: real((), code, details, flags)
""",
    "an enumeration has changed": "core.CompletionType = object()",
}


def run(wanted: str, site: Path | None = None, **environment: str) -> str:
    """What `choose(wanted)` comes to in a process of its own."""
    if site is not None:
        environment["PYTHONPATH"] = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE, wanted],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "sitecustomize.py").write_text(SITE.format(damage=DAMAGES[request.param]))
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "transport"), [("auto", Reactor), ("reactor", Reactor), ("portable", Portable)]
)
def test_where_the_reactor_works(wanted: str, transport: type[Transport]) -> None:
    warnings: list[BaseException] = []
    assert choose(wanted, warnings.append) is transport
    assert warnings == []


def test_auto_falls_back_with_a_warning(damaged: Path) -> None:
    warning, transport = run("auto", damaged).splitlines()
    assert warning.startswith(("warned: AttributeError", "warned: TypeError"))  # the cause, not its effect
    assert transport == "portable"


def test_the_reactor_by_name_does_not_fall_back(damaged: Path) -> None:
    said = run("reactor", damaged)
    assert said.startswith("StartupError: ")
    assert "portable" in said  # what to do about it


def test_portable_by_name_does_not_try_the_reactor(damaged: Path) -> None:
    assert run("portable", damaged) == "portable"


def test_a_proxy_in_the_environment_does_not_matter() -> None:
    # gRPC sends even its loop-back calls through a proxy, where one is set.
    proxy = "http://127.0.0.1:9"
    assert run("auto", http_proxy=proxy, https_proxy=proxy, grpc_proxy=proxy, no_proxy="") == "reactor"


def test_the_self_test_leaves_nothing_behind() -> None:
    for _ in range(5):
        self_test()
