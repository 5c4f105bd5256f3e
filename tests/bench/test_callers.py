"""`benchmarks/callers.py`, where it cannot measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import RunningServer

CALLERS = Path(__file__).parents[2] / "benchmarks/callers.py"


@pytest.mark.parametrize("flags", [[], ["--threads"]])
def test_a_model_that_is_not_there_is_one_line(server: RunningServer, flags: list[str]) -> None:
    command = [
        sys.executable,
        CALLERS,
        server.target,
        "--model",
        "nothing",
        "--callers",
        "1",
        "--json",
        *flags,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    [line] = run.stderr.splitlines()
    assert line.startswith(f"{server.target}: ")
    assert "no model 'nothing'" in line
