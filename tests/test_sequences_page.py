"""The Python of docs/sequences.md does what the page shows: the model is made and served, the rest is run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import RunningServer, running_server

PAGE = (Path(__file__).parents[1] / "docs" / "sequences.md").read_text()
MAKES, *ASKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = re.findall(r"^```python\n(?:[^`]*)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("page")
    run(MAKES, folder)
    with running_server(folder / "models") as running:
        yield running


def test_the_model_keeps_its_total(server: RunningServer) -> None:
    assert "state      total from total_out, dropped 60 s after the last step\n" in server.stdout


@pytest.mark.parametrize(("code", "shown"), [*zip(ASKS, SHOWN, strict=True)])
def test_what_is_asked_prints_what_is_shown(
    code: str, shown: str, server: RunningServer, tmp_path: Path
) -> None:
    assert "Client()" in code
    assert run(code.replace("Client()", f'Client("{server.target}")'), tmp_path) == shown
