"""A unary Predict passes through few files: those that docs/architecture.md lists, in that order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_FILES = 12
MOST_CALLS = 59
"""Functions of the server that one request enters. Raise it only for what every request must have."""


@pytest.fixture(scope="module")
def trace() -> tuple[list[str], int]:
    """The files in the order in which they are entered, and how many functions were called."""
    command = [sys.executable, ROOT / "tests/codebase/hot_path.py"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = re.fullmatch(r"(\d+) files, (\d+) calls", lines[-1])
    assert found is not None, lines
    assert int(found[1]) == len(lines) - 1
    return lines[:-1], int(found[2])


def test_the_files_are_those_of_the_page(trace: tuple[list[str], int]) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split("## The way of a request\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\d+\. `([^`]+)`", section, flags=re.MULTILINE)
    assert listed == trace[0]
    assert len(listed) <= MOST_FILES


def test_the_calls_do_not_grow(trace: tuple[list[str], int]) -> None:
    assert trace[1] <= MOST_CALLS
