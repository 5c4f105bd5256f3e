"""How a server starts, and how it says that it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from penstock_proto.v1 import model_pb2, model_pb2_grpc
from server import kit
from support import zoo
from support.servers import SCRIPT, running_server

EXAMPLES = kit.EXAMPLES
FREE_PORTS = ("--port", "0", "--ops-port", "0")


def refused(*arguments: str, code: int = 1, **env: str) -> str:
    """What a server that does not start says on standard error beside its log; it must end with the code."""
    command = [SCRIPT, "serve", *arguments]
    environ = {**os.environ, **env}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert ran.returncode == code
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("Error: ") == 1
    return "".join(
        line for line in ran.stderr.splitlines(keepends=True) if not line.startswith('{"timestamp')
    )


@pytest.mark.parametrize("flags", [("--port", "--ops-port"), ("--ops-port", "--port")])
@pytest.mark.parametrize("transport", kit.TRANSPORTS)
def test_a_port_that_is_taken(flags, transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(str(EXAMPLES), flags[0], port, flags[1], "0", "--transport", transport)
    purpose = {"--port": "gRPC", "--ops-port": "operations"}[flags[0]]
    assert said.startswith(f"Error: cannot listen on 127.0.0.1:{port} for {purpose}: ")
    assert f"; {flags[0]} (server." in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("attempt", range(4))
def test_whatever_is_logged_into_a_pipe_is_json(attempt) -> None:
    with running_server(EXAMPLES, "--transport", "reactor", fresh=True) as server:
        pass
    assert [line for line in server.stderr if not line.startswith("{")] == []


def test_all_models_that_cannot_be_served_are_named_at_once(tmp_path: Path) -> None:
    zoo.repository(tmp_path, {"good": zoo.identity(), "listing": zoo.sequence_output()})
    for name, data in {"empty": b"", "garbage": b"no model at all"}.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_bytes(data)
    said = refused(str(tmp_path), *FREE_PORTS)
    problems = said.partition("Error: ")[2].splitlines()
    assert [each.split(":")[0] for each in problems] == [
        f"model {name} version 1" for name in ("empty", "garbage", "listing")
    ]
    assert "output y is seq(tensor(float)): only tensors can be served" in problems[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("versions = [1, 4]\n", "model m: model.toml selects versions [4], but only [1] exist"),
        ("[labels]\nstable = 9\n", "label stable in model.toml points to version 9, which is not served"),
        ("[batching]\nmax_row = 3\n", "did you mean batching.max_rows?"),
        ("versions = \n", "not TOML"),
    ],
)
def test_bad_settings_of_a_model(tmp_path: Path, settings, words) -> None:
    zoo.repository(tmp_path, {"m": zoo.identity()})
    (tmp_path / "m" / "model.toml").write_text(settings)
    assert words in refused(str(tmp_path), *FREE_PORTS)


def test_everything_wrong_with_the_settings_is_said_at_once(tmp_path: Path) -> None:
    """From all three places, each by its own name."""
    path = tmp_path / "penstock.toml"
    path.write_text("[batching]\nmax_rows = -1\nrows = 3\n")
    said = refused(
        str(EXAMPLES),
        "--config",
        str(path),
        "--port",
        "70000",
        PENSTOCK_LOG__LEVEL="loud",
        PENSTOCK_LOG_FORMAT="json",
    )
    assert said.startswith("Error: 5 settings are wrong:\n")
    for words in (
        f"{path}: batching.max_rows = -1: ",
        f"{path}: batching.rows = 3: batching.rows is not a setting; did you mean ",
        "--port = 70000: ",
        "PENSTOCK_LOG__LEVEL = 'loud': ",
        "PENSTOCK_LOG_FORMAT = 'json': not a setting; did you mean PENSTOCK_LOG__FORMAT?",
    ):
        assert said.count(words) == 1, said


def test_a_settings_file_that_is_not_there() -> None:
    assert refused(str(EXAMPLES), "--config", "nowhere.toml") == (
        "Error: nowhere.toml: there is no such file\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((str(EXAMPLES), "--prot", "1"), "No such option"),
        ((str(EXAMPLES), "--port", "many"), "'many' is not a valid integer"),
        ((str(EXAMPLES), "--transport", "boat"), "'boat' is not one of"),
        ((), "Missing argument 'PATH'"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_2(arguments, words) -> None:
    assert words in refused(*arguments, code=2)


def test_settings_come_from_the_file_the_environment_and_the_flags(tmp_path: Path) -> None:
    """Each overrides the one before; `max_delay_seconds` stands in the file only."""
    path = tmp_path / "penstock.toml"
    path.write_text('[batching]\nmax_rows = 7\nmax_delay_seconds = 0.25\n[log]\nlevel = "debug"\n')
    zoo.repository(tmp_path / "models", {"m": zoo.identity()})
    flags = ("--config", str(path), "--log-level", "error", "--transport", "reactor")
    with (
        running_server(
            tmp_path / "models", *flags, env={"PENSTOCK_BATCHING__MAX_ROWS": "9"}, fresh=True
        ) as server,
        kit.connect(server.target) as channel,
    ):
        asked = model_pb2.GetModelRequest(model="m")
        batching = model_pb2_grpc.ModelServiceStub(channel).GetModel(asked, timeout=kit.BOUND).batching
    assert batching.max_rows == 9
    assert batching.max_delay.ToMilliseconds() == 250
    assert server.stderr == []
