"""A proxy in the environment does not come between a client and a server on the same machine."""

from __future__ import annotations

import pytest

from penstock_client._messages import channel_options

PROXY = "grpc.enable_http_proxy"


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:8001",
        "127.1.2.3:8001",
        "localhost:8001",
        "LOCALHOST:8001",
        "localhost",
        "[::1]:8001",
        "::1",
        "dns:///localhost:8001",
        "dns:127.0.0.1:8001",
        "ipv4:127.0.0.1:8001",
        "ipv6:[::1]:8001",
    ],
)
def test_this_machine(target: str) -> None:
    assert dict(channel_options(target, ()))[PROXY] == 0


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:8001",
        "models:8001",
        "localhost.example:8001",
        "[::2]:8001",
        "dns:///models:8001",
        "unix:/x",
        "",
    ],
)
def test_other_machines(target: str) -> None:
    assert PROXY not in dict(channel_options(target, ()))


def test_the_caller_decides() -> None:
    assert dict(channel_options("localhost:8001", ((PROXY, 1),)))[PROXY] == 1
