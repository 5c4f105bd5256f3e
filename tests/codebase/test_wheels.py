"""The distributions of this tree can be built and installed; each holds its packages, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCES = {"penstock": "src", "penstock-client": "clients/python/src", "penstock-bench": "tools/bench/src"}
"""Where the packages of each distribution lie."""
PROJECTS = {name: (ROOT / source).parent for name, source in SOURCES.items()}
FOR_OTHERS = {"PENSTOCK_BUILD_FOR_OTHERS": "1"}


def run(*command: str, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """What a command of this Python prints."""
    surroundings = {key: value for key, value in os.environ.items() if key not in FOR_OTHERS}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**surroundings, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels and source distributions, built as `make wheels` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    for project in PROJECTS.values():
        run("hatchling", "build", "--directory", str(folder), cwd=project, environment=FOR_OTHERS)
    return folder


def wheel_in(folder: Path, distribution: str) -> zipfile.ZipFile:
    [wheel] = folder.glob(f"{distribution.replace('-', '_')}-*.whl")
    return zipfile.ZipFile(wheel)


def contents(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


@pytest.mark.parametrize("distribution", SOURCES)
def test_a_wheel_holds_its_packages(built: Path, distribution: str) -> None:
    held = contents(wheel_in(built, distribution))
    source = ROOT / SOURCES[distribution]
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name and ".egg-info" not in name}


@pytest.mark.parametrize("distribution", SOURCES)
def test_a_wheel_has_its_licence_and_says_what_it_is(built: Path, distribution: str) -> None:
    wheel = wheel_in(built, distribution)
    [licence] = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    said = metadata(wheel)
    assert said["License-Expression"] == "Apache-2.0"
    readme = said.get_payload(decode=True)
    assert readme == (PROJECTS[distribution] / "README.md").read_bytes()
    classifiers = said.get_all("Classifier", [])
    assert "Programming Language :: Python :: 3.11" in classifiers
    is_typed = any(name.endswith("/py.typed") for name in wheel.namelist())
    assert ("Typing :: Typed" in classifiers) == is_typed


@pytest.mark.parametrize("distribution", SOURCES)
def test_what_leaves_this_machine_names_versions_and_no_folder(built: Path, distribution: str) -> None:
    said = metadata(wheel_in(built, distribution))
    needed = [Requirement(text) for text in said.get_all("Requires-Dist", [])]
    assert [str(each) for each in needed if each.url] == []
    ours = {each.name: str(each.specifier) for each in needed if each.name in SOURCES}
    versions = {name: metadata(wheel_in(built, name))["Version"] for name in ours}
    assert ours == {name: f"=={version}" for name, version in versions.items()}
    assert bool(ours) == (distribution != "penstock-client")


@pytest.mark.parametrize("distribution", SOURCES)
def test_a_source_distribution_gives_the_same_wheel(built: Path, distribution: str, tmp_path: Path) -> None:
    [archive] = built.glob(f"{distribution.replace('-', '_')}-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    run("hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist"), cwd=unpacked)
    again, first = wheel_in(tmp_path / "dist", distribution), wheel_in(built, distribution)
    assert contents(again) == contents(first)
    assert str(metadata(again)) == str(metadata(first))


@pytest.fixture
def without_penstock(tmp_path: Path) -> Path:
    """The Python of an environment that holds all that this one does, but nothing of this tree."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if "penstock" not in each.name.lower():
            (packages / each.name).symlink_to(each)
    return tmp_path / "venv/bin/python"


def test_in_a_checkout_pip_installs_the_client_beside_the_server(without_penstock: Path) -> None:
    python = str(without_penstock)
    options = ["--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-index"]
    install = [python, "-m", "pip", "install", *options, str(ROOT)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where = "import penstock, penstock_client as c; print(penstock.__file__, c.__file__, sep='\\n')"
    found = subprocess.check_output([python, "-c", where], cwd=without_penstock.parent, text=True)
    installed = without_penstock.parents[1]
    assert [Path(line).is_relative_to(installed) for line in found.splitlines()] == [True, True]


def test_pip_alone_would_not_find_the_client(without_penstock: Path, built: Path) -> None:
    [wheel] = built.glob("penstock-*.whl")
    options = ["--quiet", "--disable-pip-version-check", "--no-index"]
    install = [str(without_penstock), "-m", "pip", "install", *options, str(wheel)]
    alone = subprocess.run(install, capture_output=True, text=True, check=False)
    assert "No matching distribution found for penstock-client==" in alone.stderr
    beside = subprocess.run([*install, str(built / "penstock_client-0.1.0-py3-none-any.whl")], check=False)
    assert beside.returncode == 0
