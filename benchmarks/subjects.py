"""What is measured with unary calls: each server, how it is started, called and checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load, messages
from benchmarks.servers import ROOT

ENVIRONMENTS = ROOT / ".venv-bench"
PROGRAMS = ROOT / "benchmarks/programs"
NO_EXPERIMENTS = {"GRPC_EXPERIMENTS": None}
"""grpc as it comes: what this process or its user set is not passed on."""
NO_LISTENER = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
"""What Penstock sets for itself."""
SCRIPT = Path(sys.executable).with_name("penstock")
TIMING_BYTES = 30
"""The most that `PredictResponse.timing` takes."""


@dataclass(frozen=True)
class Files:
    """What servers and loads of one run need, in a folder of the run's own."""

    folder: Path

    @cached_property
    def models(self) -> Path:
        """A repository with the benchmark models."""
        return messages.make_models(self.folder / "models")

    @cached_property
    def echo_answer(self) -> Path:
        """The answer that servers give which only echo."""
        path = self.folder / "answer"
        path.write_bytes(messages.echo_answer())
        return path

    @cached_property
    def golden(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What the tiny model answers."""
        return messages.golden(self.models, "tiny_mlp")


@dataclass(frozen=True)
class Subject:
    """A server to measure.

    Attributes:
        title: its name in tables.
        command: what starts it.
        calls: what is called.
        check: raises ValueError unless the answer it is given is right.
        both_cores: it may use the load's core as well as its own.
        variables: of its environment.
        missing: why it cannot run here; "" if it can.
    """

    title: str
    command: Callable[[Files], list[str | Path]]
    calls: Callable[[Files], load.Calls]
    check: Callable[[bytes, Files], None]
    both_cores: bool = False
    variables: Mapping[str, str | None] = field(default_factory=dict)
    missing: Callable[[], str] = lambda: ""


def echo(title: str, python: Path, program: str, variables: Mapping[str, str | None]) -> Subject:
    """A server that answers every call with the same bytes."""
    size = len(messages.echo_answer())
    return Subject(
        title,
        lambda files: [python, PROGRAMS / program, files.echo_answer],
        lambda files: load.Calls("/bench/Echo", messages.request().SerializeToString(), size, size),
        _check_echo,
        variables=variables,
        missing=lambda: "" if python.exists() else f"{python.relative_to(ROOT)} is not there",
    )


def penstock(title: str, *flags: str, both_cores: bool = False, script: Path = SCRIPT) -> Subject:
    """Penstock with the benchmark models.

    Args:
        title: its name in tables.
        flags: of `penstock serve`.
        both_cores: it may use the load's core too.
        script: the command; that of this environment where left out.
    """
    least = len(messages.echo_answer(timing=False))
    return Subject(
        title,
        lambda files: [script, "serve", files.models, *free_ports(script), *flags],
        lambda files: load.Calls(
            messages.SERVICE + "Predict",
            messages.request().SerializeToString(),
            least,
            least + TIMING_BYTES,
        ),
        lambda answer, files: messages.check_answer(answer, files.golden),
        both_cores=both_cores,
        variables=NO_EXPERIMENTS,
        missing=lambda: _why_not(script, flags),
    )


def _why_not(script: Path, flags: Sequence[str]) -> str:
    """Why this version of Penstock cannot be run with these flags; "" if it can."""
    if not script.exists():
        return f"{script.relative_to(ROOT) if script.is_relative_to(ROOT) else script} is not there"
    unknown = [flag for flag in flags if flag.startswith("--") and flag not in _help(script)]
    return f"`penstock serve` has no {unknown[0]}" if unknown else ""


def free_ports(script: Path) -> tuple[str, ...]:
    """The flags for ports that are free; older versions serve no HTTP."""
    ports = ("--port", "0", "--ops-port", "0")
    return (*ports, "--http-port", "0") if "--http-port" in _help(script) else ports


@cache
def _help(script: Path) -> str:
    return subprocess.run([script, "serve", "--help"], capture_output=True, text=True, check=True).stdout


def _check_echo(answer: bytes, files: Files) -> None:
    if answer != files.echo_answer.read_bytes():
        raise ValueError("the echo answers other bytes than it was given")


YARDSTICK = ENVIRONMENTS / "yardstick/bin/python"
HERE = Path(sys.executable)

SUBJECTS = {
    "yardstick": echo("yardstick", YARDSTICK, "grpc_aio_echo.py", NO_EXPERIMENTS),
    "yardstick-tuned": echo(
        "yardstick, without the event engine's listener", YARDSTICK, "grpc_aio_echo.py", NO_LISTENER
    ),
    "reactor-echo": echo("bare reactor echo", HERE, "reactor_echo.py", NO_EXPERIMENTS),
    "penstock": penstock("Penstock", "--transport", "reactor"),
    "penstock-free": penstock("Penstock, on both cores", "--transport", "reactor", both_cores=True),
    "processes": penstock("Penstock, 2 processes on both cores", "--processes", "2", both_cores=True),
    "portable": penstock("Penstock, portable transport", "--transport", "portable"),
}
YARDSTICKS = ("yardstick", "yardstick-tuned")
