"""Draws the results: latency distributions, and throughput against latency."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from penstock_bench.errors import BenchError
from penstock_bench.numerals import plain
from penstock_bench.report import named
from penstock_bench.results import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".pdf", ".png", ".svg")

_BACKENDS = {".pdf": "pdf", ".png": "agg", ".svg": "svg"}


def check(path: Path) -> None:
    """Checks, before the measurement, that a picture can be drawn and written.

    It loads matplotlib: a broken installation must be found before a long run, not after it.

    Args:
        path: of the picture; its suffix is one of FORMATS.

    Raises:
        BenchError: matplotlib is not installed or cannot be loaded, or the folder does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise BenchError(f"--plot: no such folder: {path.absolute().parent}")
    try:
        import_module("matplotlib")
        import_module("matplotlib.figure")
        import_module(f"matplotlib.backends.backend_{_BACKENDS[path.suffix.lower()]}")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
            raise BenchError(
                '--plot needs matplotlib: pip install "./tools/bench[plot]" in the checkout of Penstock'
            ) from None
        raise BenchError(f"--plot: matplotlib is installed but cannot be loaded: {error}") from None


def draw(levels: Sequence[Level], title: str, path: Path) -> None:
    """Writes the picture.

    Args:
        levels: the results.
        title: of the picture.
        path: of the picture; its suffix sets the format.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    several = len(levels) > 1
    figure = Figure(figsize=(12 if several else 7, 4.5), layout="constrained")
    figure.suptitle("\n".join([title, *_limits(levels)]))
    panels = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    _distributions(panels[0], levels)
    if several:
        _curve(panels[1], levels)
    figure.savefig(path, dpi=150)


def _limits(levels: Sequence[Level]) -> list[str]:
    """A line with the levels that were limited by the load tool, if there are any."""
    limited = [named(level) for level in levels if level.generator.limited]
    return [f"limited by the load tool: {', '.join(limited)}"] if limited else []


def _distributions(axes: Axes, levels: Sequence[Level]) -> None:
    """The share of answers in each bin of latency, a line for each level."""
    for level in levels:
        if level.latency:
            total = sum(level.histogram_counts)
            shares = [count / total * 100 for count in level.histogram_counts]
            edges = [edge * 1e3 for edge in level.histogram_edges_seconds]
            axes.stairs(shares, edges, label=named(level), fill=len(levels) == 1)
    axes.set(xscale="log", xlabel="latency, ms", ylabel="share of answers, %")
    if any(level.latency for level in levels):
        axes.legend()


def _curve(axes: Axes, levels: Sequence[Level]) -> None:
    """Latency against throughput: where the line rises steeply, the server is at its limit."""
    answered = [(level, level.latency) for level in levels if level.latency]
    rates = [level.requests_per_second for level, _ in answered]
    for name in ("p50", "p99"):
        axes.plot(rates, [getattr(latency, name) * 1e3 for _, latency in answered], marker="o", label=name)
    for level, latency in answered:
        label = f"{plain(level.rate, 6)}/s" if level.rate else str(level.concurrency)
        axes.annotate(
            label, (level.requests_per_second, latency.p99 * 1e3), (0, 6), textcoords="offset points"
        )
    axes.set(yscale="log", xlabel="answers per second", ylabel="latency, ms")
    axes.margins(y=0.1)
    axes.legend()
