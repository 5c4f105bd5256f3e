"""Chooses what the pictures show; programs/draw.py draws them, in the environment that has matplotlib."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Results
from benchmarks.groups import GROUPS
from benchmarks.loads import PROGRAMS
from benchmarks.servers import ROOT
from benchmarks.subjects import ENVIRONMENTS

PYTHON = ENVIRONMENTS / "pictures/bin/python"


@dataclass(frozen=True)
class Bar:
    """One bar: the median, and the least and the most of the rounds."""

    label: str
    value: float
    least: float
    most: float
    ours: bool


@dataclass(frozen=True)
class Picture:
    """Horizontal bars in groups.

    Attributes:
        name: of the files.
        title: above it, and for those who cannot see it.
        axis: what the bars count.
        logarithmic: whether the axis is.
        groups: the bars, by the heading they stand under.
    """

    name: str
    title: str
    axis: str
    logarithmic: bool
    groups: dict[str, list[Bar]]


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draws every picture for which there are figures, in a light and a dark version.

    Returns:
        The titles by the names of the files.

    Raises:
        FileNotFoundError: matplotlib's environment is not there.
    """
    if not PYTHON.exists():
        raise FileNotFoundError(f"{PYTHON.relative_to(ROOT)} is not there; `make bench` makes it")
    chosen = [picture for picture in _pictures(results) if picture.groups]
    folder.mkdir(exist_ok=True)
    given = json.dumps([asdict(picture) for picture in chosen])
    subprocess.run([PYTHON, PROGRAMS / "draw.py", folder], input=given, text=True, check=True)
    return {picture.name: picture.title for picture in chosen}


def _pictures(results: Results) -> Iterator[Picture]:
    unary = {name: _bars(name, "rate", results) for name in ("unary-32", "unary-256")}
    yield Picture("unary", "Unary calls a second", "calls a second", False, _titled(unary))
    names = ("unary-32", "unary-256", "stream", "multiplexed")
    cpu = {name: _bars(name, "cpu_us", results) for name in names}
    title = "The server's CPU time for one prediction (logarithmic)"
    yield Picture("cpu", title, "µs", True, _titled(cpu))
    peers = {name: _bars(name, "rate", results) for name in ("peers-32", "peers-256")}
    yield Picture(
        "peers", "Beside other servers: unary calls a second", "calls a second", False, _titled(peers)
    )


def _titled(bars: dict[str, list[Bar]]) -> dict[str, list[Bar]]:
    return {GROUPS[name].title: found for name, found in bars.items() if found}


def _bars(group: str, number: str, results: Results) -> list[Bar]:
    bars = []
    for series in results.figures.get(group, {}):
        middle, values = results.median(group, series, number), results.values(group, series, number)
        if middle:
            title = GROUPS[group].series[series].title
            bars.append(Bar(title, middle, min(values), max(values), title.startswith("Penstock")))
    return bars
