"""The host to listen on: what is taken, and what is refused with the way to write it."""

from __future__ import annotations

import pytest

from penstock.config.loading import load
from penstock.core.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("::", "::"),
        ("[::]", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
        ("a-b.example.org", "a-b.example.org"),
    ],
)
def test_hosts_that_are_taken(given: str, taken: str) -> None:
    assert load(flags={"server.host": given}, environ={}).config.server.host == taken


@pytest.mark.parametrize("given", ["unix:penstock.sock", "unix-abstract:penstock", "/run/penstock.sock"])
def test_unix_sockets_are_told_apart(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--host = .*: should be .*: Unix sockets are not supported"):
        load(flags={"server.host": given}, environ={})


@pytest.mark.parametrize("given", ["127.0.0.1:8001", "http://localhost", "[::1]:8001", "localhost/x", "a:b"])
def test_a_host_comes_without_scheme_and_port(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--host = .*: should be .*, without http:// and without a port"):
        load(flags={"server.host": given}, environ={})


@pytest.mark.parametrize("given", ["http://models", "models:8002", "*", "[::1]"])
def test_names_of_the_page_come_without_scheme_and_port(given: str) -> None:
    with pytest.raises(ConfigError, match=r"PAGE_NAMES = .*should be a host name, without http://, a port"):
        load(environ={"PENSTOCK_SERVER__PAGE_NAMES": f"models, {given}"})
