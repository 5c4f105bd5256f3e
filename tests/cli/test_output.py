"""What the commands do where standard output is closed, full, a pipe without a reader, or ASCII."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support import zoo
from support.servers import SCRIPT, RunningServer, full_pipe

FULL = "Error: standard output: No space left on device\n"
COMMANDS = {
    "--help": (),
    "--version": (),
    "serve": ("--help",),
    "config": (),
    "models": (),
    "predict": ("text", "x=word"),
    "predict --json": ("text", "x=word"),
}
commands = pytest.mark.parametrize("command", COMMANDS)


def run(
    server: RunningServer, redirection: str, command: str, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """A command whose standard files a shell has redirected."""
    line = [str(SCRIPT), *command.split(), *words]
    environ = {**os.environ, "PENSTOCK_TARGET": server.target, "PYTHONUNBUFFERED": "", **env}
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *line],
        capture_output=True,
        encoding="utf-8",
        env=environ,
        check=False,
        timeout=60,
    )


@commands
def test_full(server: RunningServer, command: str) -> None:
    ran = run(server, ">/dev/full", command, *COMMANDS[command])
    assert (ran.returncode, ran.stderr) == (1, FULL)


@commands
def test_closed(server: RunningServer, command: str) -> None:
    """A closed standard output is a wish to see nothing."""
    ran = run(server, ">&-", command, *COMMANDS[command])
    assert (ran.returncode, ran.stderr) == (0, "")


@commands
def test_all_standard_files_closed(server: RunningServer, command: str) -> None:
    ran = run(server, "<&- >&- 2>&-", command, *COMMANDS[command])
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@commands
def test_a_reader_that_has_gone(server: RunningServer, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    line = [str(SCRIPT), *command.split(), *COMMANDS[command]]
    environ = {**os.environ, "PENSTOCK_TARGET": server.target, "PYTHONUNBUFFERED": ""}
    ran = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, env=environ, check=False)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_reader_of_scored_rows_that_goes(server: RunningServer, tmp_path: Path) -> None:
    """As `penstock score ... | head -1` has it: silent, as any command."""
    (tmp_path / "rows.csv").write_text("x\n" + "1\n" * 20_000)
    line = [SCRIPT, "score", "below_100", tmp_path / "rows.csv", "--rejected", tmp_path / "r.jsonl"]
    line += ["--target", server.target]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x,y\n"
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(60), said) == (141, "")


@commands
@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_ascii(server: RunningServer, command: str, env: dict[str, str]) -> None:
    ran = run(server, "", command, *COMMANDS[command], PYTHONUTF8="0", **env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.isascii()


def test_json_stays_json_in_ascii(server: RunningServer) -> None:
    ran = run(server, "", "predict", "text", "x=schön", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(ran.stdout)["outputs"] == {"y": [["schön"]]}


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "<&- >&- 2>&-"])
def test_the_exit_code_of_health_is_the_answer(server: RunningServer, redirection: str) -> None:
    assert run(server, redirection, "health").returncode == 0
    assert run(server, redirection, "health", "--model", "none").returncode == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_whose_output_is_not_read_stops(tmp_path: Path, processes: str) -> None:
    """A program that starts a server may not read what it prints; with many models that fills the pipe."""
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    serve = [str(SCRIPT), "serve", str(path), "--port", "0", "--ops-port", "0", "--processes", processes]
    read, write = full_pipe()
    with subprocess.Popen(serve, stdout=write, stderr=subprocess.PIPE, encoding="utf-8") as process:
        os.close(write)
        assert process.stderr is not None
        assert any('"serving"' in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert any('"stopped"' in line for line in process.stderr)
        assert process.wait(60) == 0
    os.close(read)


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("redirection", [">/dev/full", ">&- <&-"])
def test_a_server_serves(tmp_path: Path, processes: str, redirection: str) -> None:
    """Its summary, with a model whose name is not ASCII, is a courtesy."""
    path = zoo.repository(tmp_path, {"schön": zoo.identity()})
    serve = [str(SCRIPT), "serve", str(path), "--port", "0", "--ops-port", "0", "--processes", processes]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *serve],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environ,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"serving"' in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    seen = list(map(json.loads, lines))
    assert [each for each in seen if each["level"] not in ("info", "debug")] == []
    assert "stopped" in {each["event"] for each in seen}
