"""The compose file: Compose reads it, and it fits the server and the image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import kit
from penstock import __version__
from penstock.config import ServerConfig
from support.servers import SCRIPT


def reading() -> list[str]:
    """A command that reads the compose file of its folder as Docker does, and prints it whole."""
    if (tool := shutil.which("compose-go")) is not None:
        return [tool, kit.COMPOSE.name]
    docker = shutil.which("docker")
    if (
        docker
        and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    ):
        return [docker, "compose", "--file", kit.COMPOSE.name, "config"]
    pytest.skip("neither `docker compose` nor compose-go is here")


def read(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(reading(), cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    [document] = kit.documents(kit.COMPOSE)
    [only] = document["services"].values()
    found: dict[str, Any] = only
    return found


def test_compose_reads_it() -> None:
    run = read(kit.COMPOSE.parent)
    assert run.returncode == 0, run.stderr
    assert f"context: {kit.ROOT}\n" in run.stdout
    assert f"source: {kit.ROOT / 'examples/models'}\n" in run.stdout


def test_compose_would_say_what_is_wrong(tmp_path: Path) -> None:
    text = kit.COMPOSE.read_text()
    (tmp_path / kit.COMPOSE.name).write_text(text.replace("cap_drop", "cap_dropped"))
    run = read(tmp_path)
    assert run.returncode != 0
    assert "cap_dropped" in run.stdout + run.stderr


def test_it_fits_the_image(service: dict[str, Any]) -> None:
    assert service["image"] == f"penstock:{__version__}"
    assert service["build"]["args"] == {"VERSION": __version__}
    config = ServerConfig()
    ports = [f"127.0.0.1:{port}:{port}" for port in (config.http_port, config.port, config.ops_port)]
    assert service["ports"] == ports
    mounted = {each["target"]: each.get("read_only", False) for each in service["volumes"]}
    assert mounted == {"/models": True, "/var/cache/penstock": False}
    dockerfile = (kit.ROOT / "Dockerfile").read_text()
    assert "PENSTOCK_CACHE__FOLDER=/var/cache/penstock " in dockerfile
    assert "--chown=10001:10001 /var/cache/penstock /var/cache/penstock\n" in dockerfile


def test_it_may_do_little(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_it_is_killed_late_enough(service: dict[str, Any]) -> None:
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace >= kit.waits(service["environment"]) + kit.MARGIN_SECONDS


def test_the_settings_exist(service: dict[str, Any]) -> None:
    environment: dict[str, str] = service["environment"]
    run = subprocess.run([SCRIPT, "config"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [name for name in environment if name not in run.stdout] == []
