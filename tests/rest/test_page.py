"""What docs/rest.md shows is what happens: its commands are run and their output is compared."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.server import Server

PAGE = (Path(__file__).parents[2] / "docs/rest.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, output)
    for block in BLOCKS
    for command, _, output in (
        part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    )
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(("command", "expected"), COMMANDS, ids=[command[-40:] for command, _ in COMMANDS])
def test_a_command_prints_what_is_shown(rest_server: Server, command: str, expected: str) -> None:
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{rest_server.http_port}")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == expected.strip()
