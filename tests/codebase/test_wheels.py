"""The distributions of this tree can be built, and each holds its own packages whole and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"penstock": "src", "penstock-client": "clients/python/src", "penstock-bench": "tools/bench/src"}
"""Where the packages of each distribution lie."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels, built as `make wheels` builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    trees = [str((ROOT / source).parent) for source in SOURCES.values()]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), *trees]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("distribution", SOURCES)
def test_a_wheel_holds_its_packages(wheels: Path, distribution: str) -> None:
    [wheel] = wheels.glob(f"{distribution.replace('-', '_')}-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = ROOT / SOURCES[distribution]
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name and ".egg-info" not in name}
