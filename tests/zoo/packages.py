"""The models of the zoo as `packages.toml` lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("packages.toml")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Package:
    """A release of a package.

    Attributes:
        registry: "pypi" or "npm".
        licence: what the package says of itself.
    """

    name: str
    version: str
    registry: str
    licence: str

    @property
    def folder(self) -> str:
        """The name of the folder that its models are unpacked to."""
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}"


@dataclass(frozen=True)
class ZooModel:
    """One model of a package, and what a caller would send to it.

    Attributes:
        name: its name in the zoo, and on the server.
        file: its file inside the package.
        sha256: of that file, in hexadecimal.
        files: further files inside the package that must lie beside it.
        lengths: the values that each open length takes, one after another.
        inputs: how each input is made, by its name.
        labels: outputs that callers read as a label, with the axis along which the largest value is it.
        tolerance: the largest difference that is no other answer, relative to the output's largest value.
        rows: whether a request is a row, or several.
        compare: whether it is also measured with batching switched off.
        sample: whether the tests of every commit serve it.
    """

    package: Package
    name: str
    file: str
    sha256: str
    inputs: Mapping[str, Mapping[str, Any]]
    files: tuple[str, ...] = ()
    lengths: Mapping[str, list[int]] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    rows: bool = True
    compare: bool = False
    sample: bool = False

    def path(self, folder: Path) -> Path:
        """Where its file lies once it is fetched to a folder."""
        return folder / self.package.folder / self.file


def listed(path: Path = LIST) -> list[ZooModel]:
    """All models of a list, in its order."""
    with path.open("rb") as file:
        packages = tomllib.load(file)["package"]
    found = []
    for entry in packages:
        models = entry.pop("model")
        package = Package(**entry)
        for model in models:
            files = tuple(model.pop("files", ()))
            found.append(ZooModel(package=package, files=files, **model))
    return found
