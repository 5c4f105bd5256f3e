"""A real server in a process of its own, with a repository of as many models as there are."""

from __future__ import annotations

import os
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx

from tests.conformance.reference import SETTINGS
from tests.support.servers import RunningServer

CACHE = "PENSTOCK_CACHE__FOLDER"
START_SECONDS = 600.0
"""The longest that a start may take: 2,000 models on a busy machine."""


def lay_out(root: Path, models: Mapping[str, Path | onnx.ModelProto]) -> Path:
    """Makes a repository of models, each as its version 1."""
    for name, model in models.items():
        path = root / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        if isinstance(model, Path):
            shutil.copyfile(model, path)
        else:
            path.write_bytes(model.SerializeToString())
    return root


@contextmanager
def serving(repository: Path, settings: str = SETTINGS) -> Iterator[RunningServer]:
    """Serves a repository until the block ends; call it within `surroundings()`.

    Args:
        repository: the folder.
        settings: the text of a configuration file.
    """
    config = repository.with_name(f"{repository.name}.toml")
    config.write_text(settings)
    env = {CACHE: os.environ.get(CACHE) or str(repository.with_name("cache"))}
    server = RunningServer(repository, "--config", str(config), "--log-level", "warning", env=env)
    try:
        wait_until_ready(server)
        yield server
        assert server.stop() == 0, server.stderr
    finally:
        server.close()


def wait_until_ready(server: RunningServer, seconds: float = START_SECONDS) -> None:
    """Waits for as long as many models take, rather than for as long as a few do."""
    end = time.monotonic() + seconds
    while not server.target:
        try:
            server.wait_until_ready()
        except AssertionError:
            if server.process.poll() is not None or time.monotonic() > end:
                raise


def resident_mib(pid: int) -> float:
    """The memory of a process that is in use, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kib] = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(kib) / 1024


def metric(server: RunningServer, name: str) -> float:
    """The sum of a metric over all its labels."""
    with urllib.request.urlopen(f"{server.ops}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}(?:\{{[^\n]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))
