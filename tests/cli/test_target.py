"""Which server the commands ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock.cli.target import DEFAULT
from penstock.config import ServerConfig
from support.servers import SCRIPT, RunningServer

if TYPE_CHECKING:
    from conftest import Cli

NOWHERE = "127.0.0.1:1"
ASKING = {
    "health": ("health", "--timeout", "20"),
    "models": ("models", "--timeout", "20"),
    "predict": ("predict", "flags", "x=true"),
    "bench": ("bench", "flags", "--requests", "1", "--concurrency", "1", "--warmup", "0"),
}
"""Commands that ask a server; each ends with 0 where it is there."""

commands = pytest.mark.parametrize("command", ASKING)


@pytest.fixture(autouse=True)
def _no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_TARGET", raising=False)


@pytest.fixture
def port(server: RunningServer) -> str:
    return server.target.rpartition(":")[2]


@commands
@pytest.mark.parametrize("form", ["{}", "http://{}", "HTTP://{}/", " {} "])
def test_a_flag(cli: Cli, server: RunningServer, command: str, form: str) -> None:
    assert cli(*ASKING[command], "--target", form.format(server.target)).code == 0


@pytest.mark.parametrize("command", ["health", "models"])
def test_an_argument(cli: Cli, server: RunningServer, command: str) -> None:
    assert cli(*ASKING[command], f"http://{server.target}").code == 0


@commands
def test_the_variable(cli: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("PENSTOCK_TARGET", f"http://{server.target}")
    assert cli(*ASKING[command]).code == 0


@commands
def test_a_flag_comes_before_the_variable(
    cli: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PENSTOCK_TARGET", NOWHERE)
    assert cli(*ASKING[command], "--target", server.target).code == 0


@commands
def test_the_settings_of_the_server(
    cli: Cli, port: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER__PORT", port)
    monkeypatch.setenv("PENSTOCK_SERVER__HOST", "0.0.0.0")  # reached by the loopback address
    assert cli(*ASKING[command]).code == 0


@commands
def test_the_settings_file_of_the_server(
    cli: Cli, port: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    (tmp_path / "penstock.toml").write_text(f"[server]\nport = {port}\n")
    monkeypatch.setenv("PENSTOCK_TARGET", NOWHERE)  # a flag comes first, whichever it is
    assert cli(*ASKING[command], "--config", tmp_path / "penstock.toml").code == 0


@commands
def test_a_port(cli: Cli, port: str, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("PENSTOCK_TARGET", NOWHERE)
    assert cli(*ASKING[command], "--port", port).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--target", "https://localhost:8001"), "expected HOST:PORT or http://HOST:PORT"),
        (("--target", "http://localhost:8001/v2"), "is not HOST:PORT"),
        (("--target", ""), "is not HOST:PORT"),
        (("--target", "localhost"), "has no port, expected HOST:PORT"),
        (("--target", "[::1]"), "has no port, expected HOST:PORT"),
        (("--target", "127.0.0.1:80010"), "has a port above 65535"),
        (("--target", "a:1", "--port", "2"), "give either --target or --port"),
        (("--target", "a:1", "--config", "f"), "give either --target or --config"),
    ],
)
@commands
def test_a_target_that_cannot_be_used(cli: Cli, command: str, flags: tuple[str, ...], words: str) -> None:
    run = cli(*ASKING[command], *flags)
    assert (run.code, run.out) == (2, "")
    assert words in run.err


@pytest.mark.parametrize("command", ["health", "models", "predict"])
def test_what_is_the_matter_is_said(cli: Cli, server: RunningServer, command: str) -> None:
    nowhere = cli(*ASKING[command], "--target", NOWHERE)
    assert (nowhere.code, nowhere.out) == (1, "")
    assert nowhere.err.startswith(f"Error: {NOWHERE}: ")
    assert "is the server started" in nowhere.err
    operations = cli(*ASKING[command], "--target", server.ops)
    assert (operations.code, operations.out) == (1, "")
    assert "does not speak gRPC" in operations.err
    assert "HTTP (8000)" in operations.err


def test_an_argument_and_a_flag(cli: Cli) -> None:
    run = cli("health", "a:1", "--target", "b:1")
    assert run.code == 2
    assert "give either TARGET or --target" in run.err


def test_settings_that_take_a_free_port(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER__PORT", "0")
    run = cli("health")
    assert run.code == 2
    assert "--target" in run.err


@commands
def test_no_proxy_lies_between_this_machine_and_itself(server: RunningServer, command: str) -> None:
    """Docker puts the variables into every container where its configuration has proxies."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environ = {**os.environ, **proxies, "PENSTOCK_TARGET": server.target}
    environ = {name: value for name, value in environ.items() if name.lower() != "no_proxy"}
    run = subprocess.run(
        [SCRIPT, *ASKING[command]], capture_output=True, text=True, env=environ, check=False, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_the_default_is_that_of_the_settings() -> None:
    server = ServerConfig()
    assert f"{server.host}:{server.port}" == DEFAULT


def test_a_health_check_does_not_wait_for_the_settings() -> None:
    code = """if True:
        import sys
        from penstock.cli import main
        try:
            main(["health", "--timeout", "0.1"])
        except SystemExit:
            print("loaded", *sorted({"pydantic", "onnxruntime", "rich"} & sys.modules.keys()))
        """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert run.stdout.splitlines()[-1] == "loaded"
