"""What the README shows is what happens: its commands are run and their output is compared."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.protocols.rest import docs
from support.servers import RunningServer, running_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = [
    (re.compile(r'"0\.\d+s"'), '"TIME"'),
    (re.compile(r"\d+\.\d+ ms"), "TIME"),
    (re.compile(r"agree (bit for bit|within \d\.\de-\d\d)"), "agree"),  # differs from processor to processor
    (re.compile(r"up to (32|64|128|256) rows"), "up to some rows"),  # follows what a run costs here
    (re.compile(r"^processors  \d+( of .*)?$", re.MULTILINE), "processors  some"),  # of this machine
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
]


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README) if kind == language]


def shown() -> list[tuple[str, str]]:
    """The commands of the README's console blocks, each with the output shown below it."""
    pairs = []
    for text in blocks("console"):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            pairs.append((command, output))
    return pairs


def normal(text: str) -> str:
    for pattern, placeholder in VARYING:
        text = pattern.sub(placeholder, text)
    return text.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(ROOT / "examples/models", "--http", "--http-port", "0") as running:
        yield running


def here(text: str, server: RunningServer) -> str:
    """The text with the addresses of the server under test, and with what the tests' environment adds."""
    if docs.folder() is not None:
        text = text.replace("/openapi.json /health", "/openapi.json /docs /health")
    for shown, real in (
        ("127.0.0.1:8001", server.target),
        ("http://127.0.0.1:8002", server.ops),
        ("http://127.0.0.1:8000", server.http),
    ):
        text = text.replace(shown, real)
    return text


COMMANDS = [pair for pair in shown() if pair[0] != "make serve"]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 4
    assert blocks("python")


def test_make_serve_prints_what_is_shown(server: RunningServer) -> None:
    expected = dict(shown())["make serve"]
    assert normal(server.stdout) == normal(here(expected, server))


@pytest.mark.parametrize(("command", "expected"), COMMANDS, ids=[command[:60] for command, _ in COMMANDS])
def test_a_command_prints_what_is_shown(command: str, expected: str, server: RunningServer) -> None:
    words = shlex.split(here(command, server))
    if words[0] == ".venv/bin/penstock":
        words = [str(BIN / "penstock"), words[1], "--target", server.target, *words[2:]]
    elif shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not on this machine; .ci/run installs it")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert normal(done.stdout + done.stderr) == normal(here(expected, server))


def test_the_python_example_prints_what_is_shown(server: RunningServer) -> None:
    code, expected = blocks("python")[0], blocks("text")[0]
    command = [sys.executable, "-W", "error", "-c", here(code, server)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert normal(done.stdout) == normal(expected)
