"""Reads what `deploy/` holds: the unit, the compose file and the manifests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd/penstock.service"
COMPOSE = DEPLOY / "compose/compose.yaml"
MANIFESTS = DEPLOY / "kubernetes"
TOOLS = ROOT / ".venv-deploy/bin"

MARGIN_SECONDS = 10.0
"""What is left for the end of a process, beside linger and drain."""


class Unit:
    """The settings of a systemd unit; a key may come several times."""

    def __init__(self, path: Path) -> None:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        self._pairs = [line.partition("=")[::2] for line in lines if re.match(r"[A-Z]\w*=", line)]

    def all(self, key: str) -> list[str]:
        """Its values, in order."""
        return [value for each, value in self._pairs if each == key]

    def one(self, key: str) -> str:
        """Its only value."""
        [value] = self.all(key)
        return value

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(value.split("=", 1) for value in self.all("Environment"))  # type: ignore[misc]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file, read by PyYAML in the environment of the tools."""
    python = TOOLS / "python"
    if not python.exists():
        pytest.skip("the tools that read manifests are not here: make deploy-tools")
    script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
    text = path.read_text(encoding="utf-8")
    run = subprocess.run([python, "-c", script], input=text, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def manifests() -> Iterator[dict[str, Any]]:
    """The objects that Kubernetes is given."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from documents(path)


def of_kind(kind: str) -> list[dict[str, Any]]:
    """Those of one kind."""
    return [each for each in manifests() if each["kind"] == kind]


def pod() -> dict[str, Any]:
    """What a pod of the deployment is made of."""
    [deployment] = of_kind("Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """Its one container."""
    [only] = pod()["containers"]
    found: dict[str, Any] = only
    return found


def variables(listed: list[dict[str, str]]) -> dict[str, str]:
    """The variables of a container."""
    return {each["name"]: each["value"] for each in listed}


def waits(environment: dict[str, str]) -> float:
    """The longest time that a server with these variables takes to stop, in seconds."""
    linger = environment.get("PENSTOCK_SERVER__LINGER_SECONDS", "0")
    return float(linger) + float(environment["PENSTOCK_SERVER__DRAIN_SECONDS"])
