"""Draws pictures of horizontal bars, each in a light and a dark version.

    python benchmarks/programs/draw.py FOLDER < PICTURES_JSON

Runs in an environment with matplotlib. Writes FOLDER/<name>-light.svg and FOLDER/<name>-dark.svg; what it is
given is explained in benchmarks/pictures.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot

THEMES = {
    "light": {"ink": "#1f2328", "grid": "#d0d7de", "ours": "#0969da", "others": "#8c959f"},
    "dark": {"ink": "#e6edf3", "grid": "#3d444d", "ours": "#4493f8", "others": "#7d8590"},
}
WIDTH, BAR_HEIGHT, FRAME_HEIGHT = 8.5, 0.28, 0.9  # inches
# The same figures give the same files: no random names, no date.
mpl.rcParams |= {
    "svg.hashsalt": "penstock",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
}


def draw(picture: dict[str, Any], colours: dict[str, str], path: Path) -> None:
    groups = picture["groups"]
    rows = [len(bars) for bars in groups.values()]
    height = sum(rows) * BAR_HEIGHT + FRAME_HEIGHT * len(groups)
    figure, frames = pyplot.subplots(
        len(groups),
        figsize=(WIDTH, height),
        height_ratios=rows,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for frame, (title, bars) in zip(frames[:, 0], groups.items(), strict=True):
        _bars(frame, bars, colours, picture["logarithmic"])
        frame.set_title(title, loc="left", color=colours["ink"], fontsize=10, fontweight="bold")
    frames[-1, 0].set_xlabel(picture["axis"], color=colours["ink"])
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)


def _bars(frame: Any, bars: list[dict[str, Any]], colours: dict[str, str], logarithmic: bool) -> None:
    values = [bar["value"] for bar in bars]
    spread = [[bar["value"] - bar["least"] for bar in bars], [bar["most"] - bar["value"] for bar in bars]]
    fill = [colours["ours" if bar["ours"] else "others"] for bar in bars]
    places = range(len(bars), 0, -1)
    if logarithmic:  # a bar would begin at no particular number
        for place, value, low, high, colour in zip(places, values, *spread, fill, strict=True):
            frame.errorbar(
                value, place, xerr=[[low], [high]], fmt="o", color=colour, ecolor=colours["ink"], capsize=2
            )
        frame.set_xscale("log")
        frame.xaxis.set_major_formatter("{x:g}")
    else:
        frame.barh(places, values, color=fill, xerr=spread, ecolor=colours["ink"], capsize=2, height=0.7)
        frame.xaxis.set_major_formatter("{x:,.0f}")
    frame.set_yticks(places, [bar["label"] for bar in bars])
    for place, bar in zip(places, bars, strict=True):
        text = f"{bar['value']:,.0f}" if bar["value"] >= 100 else f"{bar['value']:.3g}"
        frame.annotate(text, (bar["most"], place), (6, 0), textcoords="offset points", va="center",
                       color=colours["ink"])  # fmt: skip
    frame.margins(x=0.12)
    frame.tick_params(colors=colours["ink"])
    frame.grid(axis="x", color=colours["grid"], linewidth=0.6)
    frame.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        frame.spines[side].set_visible(False)


def main() -> None:
    folder = Path(sys.argv[1])
    for picture in json.load(sys.stdin):
        for theme, colours in THEMES.items():
            draw(picture, colours, folder / f"{picture['name']}-{theme}.svg")


if __name__ == "__main__":
    main()
