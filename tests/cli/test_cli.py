"""The commands but for `predict`: help, version, settings, health, and what is not there."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from penstock import __version__
from penstock.cli.group import COMMANDS
from support.servers import SCRIPT, RunningServer

if TYPE_CHECKING:
    from conftest import Cli


PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["dependencies"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(cli: Cli, flag: str) -> None:
    run = cli(flag)
    assert (run.code, run.err) == (0, "")
    listed = run.out.split("Commands:")[1].splitlines()
    assert {line.split()[0] for line in listed if line.strip()} == {*COMMANDS, "bench"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Cli, command: str) -> None:
    run = cli(command, "-h")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("Usage: ")
    assert f" {command} [OPTIONS]" in run.out


def test_models_lists_what_is_served(cli: Cli, server: RunningServer) -> None:
    run = cli("models", server.target)
    assert (run.code, run.err) == (0, "")
    assert "version 1" in run.out
    assert re.search(r"  costs      [\d.]+ µs a run and [\d.]+ µs a row", run.out)


def test_models_without_a_server(cli: Cli) -> None:
    run = cli("models", "127.0.0.1:1", "--timeout", "0.5")
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("Error: 127.0.0.1:1: ")


def test_version() -> None:
    run = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    first, *libraries = run.stdout.splitlines()
    assert first == f"penstock, version {__version__}"
    assert [line.split()[0] for line in libraries] == ["grpcio", "onnxruntime"]
    for name, line in zip(("grpcio", "onnxruntime"), libraries, strict=True):
        wanted = next(each for each in map(Requirement, DEPENDENCIES) if each.name == name)
        found = re.fullmatch(rf"{name} (\S+) \(tested with (\S+)\)", line)
        assert found is not None, line
        assert (found[1], SpecifierSet(found[2])) == (version(name), wanted.specifier)


def test_the_version_needs_metadata_only() -> None:
    code = """if True:
        import sys
        from penstock.cli import main
        try:
            main(["--version"])
        except SystemExit:
            print("loaded", *sorted({"grpc", "numpy", "onnxruntime", "pydantic"} & sys.modules.keys()))
        """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "loaded"


def test_an_unknown_command(cli: Cli) -> None:
    run = cli("surf")
    assert (run.code, run.out) == (2, "")
    assert "No such command 'surf'" in run.err


def test_an_unknown_flag(cli: Cli) -> None:
    run = cli("serve", "models", "--prot", "1")
    assert (run.code, run.out) == (2, "")
    assert "--port" in run.err


def test_config_prints_settings_that_can_be_read_again(cli: Cli, tmp_path: Path) -> None:
    first = cli("config", "--port", "9001")
    assert (first.code, first.err) == (0, "")
    assert tomllib.loads(first.out)["server"]["port"] == 9001
    path = tmp_path / "penstock.toml"
    path.write_text(first.out)
    second = cli("config", "--config", path)
    assert tomllib.loads(second.out) == tomllib.loads(first.out)


def test_config_says_where_a_setting_comes_from(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text("[batching]\nmax_rows = 7\nqueue_rows = 70\n")
    monkeypatch.setenv("PENSTOCK_BATCHING__QUEUE_ROWS", "80")
    lines = cli("config", "--config", path, "--log-level", "error").out.splitlines()
    origins = {line.split(" = ")[0]: line.partition("#")[2].strip() for line in lines if " = " in line}
    assert origins["max_rows"] == str(path)
    assert origins["queue_rows"] == "PENSTOCK_BATCHING__QUEUE_ROWS environment"
    assert origins["level"] == "--log-level"
    assert origins["port"] == "default"


@pytest.mark.parametrize("command", [("config",), ("serve", "models")])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1\n", "prot"),
        ("[server]\nport = 'x'\n", "port"),
        ("[server]\nport = 70000\n", "70000"),
        ("[server\n", "line 1"),
    ],
)
def test_bad_settings_are_refused(
    cli: Cli, tmp_path: Path, command: tuple[str, ...], text: str, named: str
) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(text)
    run = cli(*command, "--config", path)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("Error: ")
    assert str(path) in run.err
    assert named in run.err


def test_a_missing_settings_file(cli: Cli, tmp_path: Path) -> None:
    run = cli("config", "--config", tmp_path / "nowhere.toml")
    assert (run.code, run.out) == (1, "")
    assert str(tmp_path / "nowhere.toml") in run.err


def test_nothing_to_serve(tmp_path: Path) -> None:
    run = subprocess.run(
        [SCRIPT, "serve", tmp_path / "nowhere", "--port", "0", "--ops-port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert str(tmp_path / "nowhere") in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--model", "lead_scoring"), 0)])
def test_health(cli: Cli, server: RunningServer, flags: tuple[str, ...], code: int) -> None:
    run = cli("health", server.target, *flags)
    assert run == (code, "SERVING\n", "")


def test_health_of_an_unknown_model(cli: Cli, server: RunningServer) -> None:
    words = f"{server.target} has no model 'nothing'; `penstock models` lists them\n"
    assert cli("health", server.target, "--model", "nothing") == (1, "UNKNOWN\n", words)


def test_health_without_a_server(cli: Cli) -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        run = cli("health", target)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(f"Error: {target}: ")
    assert run.err.count("\n") == 1


@pytest.mark.parametrize("command", [["--help"], ["predict", "--help"], ["health", "--help"]])
def test_help_does_not_wait_for_the_heavy_libraries(command: list[str]) -> None:
    code = """if True:
        import sys
        from penstock.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit:
            print("loaded", *sorted({"grpc", "numpy", "onnxruntime"} & sys.modules.keys()))
        """
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1].split() == ["loaded"]
