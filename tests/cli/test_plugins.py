"""Commands that come with other distributions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def without_bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an interpreter that has everything but the load tool."""
    folder = tmp_path_factory.mktemp("packages")
    for each in Path(click.__file__).parents[1].iterdir():
        if not each.name.startswith(("penstock_bench", "_penstock_bench", "_editable_impl")):
            (folder / each.name).symlink_to(each)
    paths = (folder, ROOT / "src", ROOT / "clients/python/src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def penstock(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-m", "penstock", *words]  # -S: only what PYTHONPATH names
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_the_load_tool_where_it_is_not_installed(without_bench: dict[str, str]) -> None:
    run = penstock(without_bench, "bench", "m", "--concurrency", "1")
    assert (run.returncode, run.stdout) == (2, "")
    advice = "pip install ./tools/bench in Penstock's checkout"
    assert run.stderr.endswith(f"Error: `penstock bench` is in another distribution: {advice}\n")


def test_help_without_the_load_tool(without_bench: dict[str, str]) -> None:
    run = penstock(without_bench, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert "  predict " in run.stdout
    assert "  bench " not in run.stdout
