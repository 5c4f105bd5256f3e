"""The Makefile explains itself, installs no more than is needed, and says clearly when it cannot work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.compile(r"^\.PHONY: (.*)$", re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files the Makefile itself needs, where nothing was made yet."""
    for name in ("Makefile", "pyproject.toml", "clients/python/pyproject.toml", "tools/bench/pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make as a person would, even when these tests themselves run under make."""
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "VENV", "ARGS"}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def phony() -> list[str]:
    """Every target that is not a file."""
    [line] = TARGETS.findall((ROOT / "Makefile").read_text())
    return line.split()


def test_without_a_target_it_explains_every_target(clone: Path) -> None:
    run = make(clone)
    explained = {line.split()[0] for line in run.stdout.splitlines() if line.startswith("  ")}
    # `pytest` is a part of `test`, there for other targets to use.
    assert explained == set(phony()) - {"pytest"}
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("target", phony())
def test_every_target_is_known(clone: Path, target: str) -> None:
    run = make(clone, "--dry-run", target, "PYTHON=python3")
    assert run.returncode == 0, run.stderr


def test_serving_installs_only_what_serving_needs(clone: Path) -> None:
    plan = make(clone, "--dry-run", "serve").stdout
    assert "-r requirements/serve.txt" in plan
    assert "requirements/dev.txt" not in plan
    assert "requirements/dev.txt" in make(clone, "--dry-run", "test").stdout


def test_nothing_is_installed_again(clone: Path) -> None:
    (clone / ".venv").mkdir()
    for stamp in (".made", ".locked", ".serve", ".dev"):
        (clone / ".venv" / stamp).touch()
    assert "install" not in make(clone, "--dry-run", "test").stdout
    os.utime(clone / "requirements/dev.txt", ns=(2**62, 2**62))  # changed after everything else
    plan = make(clone, "--dry-run", "test").stdout
    assert "-r requirements/dev.txt" in plan
    assert "-r requirements/serve.txt" not in plan


def test_without_a_usable_python_it_says_so(clone: Path) -> None:
    run = make(clone, "serve", "PYTHON=python-that-is-not-here")
    assert run.returncode != 0
    assert "no Python >= 3.11" in run.stderr
    assert not (clone / ".venv").exists()


def test_arguments_reach_the_server(clone: Path) -> None:
    plan = make(clone, "--dry-run", "serve", "ARGS=--port 9001").stdout
    assert "exec .venv/bin/penstock serve examples/models --port 9001" in plan
