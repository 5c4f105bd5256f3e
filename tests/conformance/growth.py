"""How long a server takes to start and how much memory it takes, by the number of its models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from tests.conformance.serving import lay_out, resident_mib, serving

STEPS = (1, 100, 200, 400, 800)
ROUNDS = 3
"""The quickest counts: others had a share of the machine."""


@dataclass
class Start:
    """One start of a server.

    Attributes:
        seconds: from the start of the process until it serves.
        mib: resident memory then.
    """

    models: int
    seconds: float
    mib: float


def growth(models: Mapping[str, Path | onnx.ModelProto], folder: Path) -> list[Start]:
    """Starts servers with more and more of the models, spread evenly over all of them."""
    names = sorted(models)
    steps = [step for step in STEPS if step < len(names)] + [len(names)]
    return [_started({name: models[name] for name in spread(names, step)}, folder) for step in steps]


def spread(things: Sequence[str], count: int) -> list[str]:
    """So many of the things, evenly spread."""
    return [things[place * len(things) // count] for place in range(count)]


def _started(models: Mapping[str, Path | onnx.ModelProto], folder: Path) -> Start:
    root = lay_out(folder / "growing", models)
    found = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        with serving(root) as server:
            found.append(Start(len(models), time.monotonic() - began, resident_mib(server.pid)))
    shutil.rmtree(root)
    return min(found, key=lambda start: start.seconds)
