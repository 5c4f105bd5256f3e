"""The locks in `requirements/` pin what `pyproject.toml` asks for, every package with its hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = {"penstock", "penstock-bench", "penstock-client"}  # installed from this tree, never from an index
WITHDRAWN = {"1.78.1", "1.82.0"}  # releases of grpcio and of the packages made with it
ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE)

Lock: TypeAlias = dict[str, set[str]]
"""The versions of each package: more than one where newer ones need a newer Python."""


def lock(text: str) -> Lock:
    versions: Lock = {}
    for entry in ENTRY.finditer(text):
        assert "--hash=sha256:" in entry["rest"], f"{entry['name']} has no hash"
        versions.setdefault(entry["name"], set()).add(entry["version"])
    return versions


def locked(name: str) -> Lock:
    return lock((ROOT / f"requirements/{name}.txt").read_text())


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DISTRIBUTIONS = {"penstock": ".", "penstock-bench": "tools/bench", "penstock-client": "clients/python"}


def needed(distribution: str) -> list[Requirement]:
    """What a distribution of this tree depends on."""
    path = ROOT / DISTRIBUTIONS[distribution] / "pyproject.toml"
    said = tomllib.loads(path.read_text())
    hook = said["tool"]["hatch"].get("metadata", {}).get("hooks", {}).get("custom", {})
    return [Requirement(text) for text in {**hook, **said["project"]}["dependencies"]]


def group(name: str) -> Iterator[Requirement]:
    """The requirements of a dependency group, those of the groups it includes among them."""
    for item in PROJECT["dependency-groups"][name]:
        if isinstance(item, str):
            yield Requirement(item)
        else:
            yield from group(item["include-group"])


def wanted(name: str) -> list[Requirement]:
    """What the lock of that name is to hold."""
    serving = [*needed("penstock"), *needed("penstock-client")]
    if name == "serve":
        return serving
    return [*group(name), *((*serving, *needed("penstock-bench")) if name == "dev" else ())]


def unmet(requirements: list[Requirement], versions: Lock) -> list[str]:
    """The requirements that a lock does not hold, or holds in a version that does not do."""
    return [
        str(requirement)
        for requirement in requirements
        if not (held := versions.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version, prereleases=True) for version in held)
    ]


@pytest.mark.parametrize("name", ["build", "dev", "protos", "serve"])
def test_a_lock_holds_what_the_project_asks_for(name: str) -> None:
    requirements = [requirement for requirement in wanted(name) if requirement.name not in OURS]
    assert requirements
    assert unmet(requirements, locked(name)) == [], "run `make lock`"


@pytest.mark.parametrize("name", ["build", "serve"])
def test_what_is_served_is_what_is_tested(name: str) -> None:
    tested = locked("dev")
    assert {package: tested.get(package) for package in locked(name)} == locked(name)


def test_what_lies_in_this_tree_is_not_locked() -> None:
    assert [name for name in ("build", "dev", "protos", "serve") if OURS & set(locked(name))] == []


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_releases_of_grpc_that_were_withdrawn_are_left_out(distribution: str) -> None:
    requirements = [each for each in needed(distribution) if each.name.startswith("grpcio")]
    assert requirements
    assert [str(each) for each in requirements if list(each.specifier.filter(WITHDRAWN))] == []


def test_a_stale_lock_is_found() -> None:
    text = "grpcio==1.85.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n    # via penstock\n"
    assert unmet([Requirement("grpcio<1.86")], lock(text)) == []
    assert unmet([Requirement("grpcio<1.80"), Requirement("rich")], lock(text)) == ["grpcio<1.80", "rich"]
    with pytest.raises(AssertionError, match="grpcio has no hash"):
        lock("grpcio==1.85.1\n")
