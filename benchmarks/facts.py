"""Where and with what a run was made."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import version
from typing import Any

from benchmarks import machine
from benchmarks.figures import Results
from benchmarks.peers import python
from benchmarks.servers import ROOT

HERE = ("penstock", "grpcio", "onnxruntime", "protobuf", "numpy")
PEER_PACKAGES = {"mlserver": "mlserver", "kserve": "kserve", "triton": "nvidia-pytriton"}


def facts(command: str, rounds: int, seconds: float) -> dict[str, Any]:
    """The machine, the versions and the command of a run."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.description(),
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in HERE}},
        "h2load": _output("h2load", "--version").removeprefix("h2load "),
        "commit": _output("git", "describe", "--always", "--dirty"),
        "command": command,
        "rounds": rounds,
        "seconds": seconds,
    }


def peer_versions(results: Results) -> dict[str, str]:
    """The version of every peer that was measured."""
    measured = {series.partition("-")[0] for group in results.figures.values() for series in group}
    show = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return {
        package: _output(str(python(environment)), "-c", show, package)
        for environment, package in PEER_PACKAGES.items()
        if environment in measured
    }


def _output(*command: str) -> str:
    """The first line that a command prints; "unknown" where it cannot be run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return next(iter(done.stdout.splitlines()), "unknown")
