"""Draws pictures of lines over the offered load, each in a light and a dark version.

    python benchmarks/programs/draw_lines.py FOLDER < PICTURES_JSON

Runs in an environment with matplotlib. Writes FOLDER/<name>-light.png and FOLDER/<name>-dark.png; what it is
given is explained in benchmarks/overload_page.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from draw import THEMES
from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullFormatter

WIDTH, HEIGHT, DOTS = 8.5, 3.6, 120  # inches, inches, dots per inch
GROUNDS = {"light": "#ffffff", "dark": "#0d1117"}
OTHERS = {"light": ("#8c959f", "#bf8700", "#a40e26"), "dark": ("#7d8590", "#d29922", "#f85149")}
MARKERS = "osD^"


def draw(picture: dict[str, Any], theme: str, path: Path) -> None:
    ink, grid, ours = (THEMES[theme][name] for name in ("ink", "grid", "ours"))
    figure, frame = pyplot.subplots(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor=GROUNDS[theme])
    colours = (ours, *OTHERS[theme])
    for line, colour, marker in zip(picture["lines"], colours, MARKERS, strict=False):
        points = [(factor, value) for factor, value in line["points"] if value is not None]
        frame.plot(*zip(*points, strict=True), marker=marker, color=colour, label=line["label"])
    frame.set_title(picture["title"], loc="left", color=ink, fontsize=10, fontweight="bold")
    frame.set_xlabel("offered load, as multiples of the best rate", color=ink)
    frame.set_ylabel(picture["unit"], color=ink)
    if picture["unit"] == "ms":
        frame.set_yscale("log")
        frame.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        frame.yaxis.set_major_formatter("{x:g}")
        frame.yaxis.set_minor_formatter(NullFormatter())
    frame.legend(frameon=False, labelcolor=ink)
    frame.tick_params(which="both", colors=ink)
    frame.grid(color=grid, linewidth=0.6)
    frame.set(facecolor=GROUNDS[theme])
    for side in ("top", "right", "left", "bottom"):
        frame.spines[side].set_visible(False)
    figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    folder = Path(sys.argv[1])
    for picture in json.load(sys.stdin):
        for theme in GROUNDS:
            draw(picture, theme, folder / f"{picture['name']}-{theme}.png")


if __name__ == "__main__":
    main()
