"""What is to be reached, beside what a run gave."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import Results
from benchmarks.groups import GROUPS
from benchmarks.tables import number

YARDSTICK_RATE = 7200
"""The yardstick's calls a second where the aims were set."""


@dataclass(frozen=True)
class Target:
    """One figure to reach.

    Attributes:
        what: in words.
        group, series: which figure.
        bound: what it must not be above, or below where `at_least`.
        value: the number that counts; "ratio" for the group's ratio, "inverse" for one over it.
        unit: written after the figure.
        scaled: the bound is CPU time on a machine where the yardstick makes `YARDSTICK_RATE` calls a second,
            so the figure is scaled by the yardstick's rate in the same round.
    """

    what: str
    group: str
    series: str
    bound: float
    value: str = "ratio"
    at_least: bool = False
    unit: str = ""
    scaled: bool = False

    def values(self, results: Results) -> list[float]:
        """The figure of every round; empty where it was not measured."""
        group = GROUPS[self.group]
        reference = results.fastest(self.group, group.references)
        if self.scaled:
            return self._scaled(results, reference)
        if self.value not in {"ratio", "inverse"}:
            return results.values(self.group, self.series, self.value)
        ratios = results.ratios(self.group, self.series, reference, group.ratio)
        return [1 / ratio for ratio in ratios] if self.value == "inverse" else ratios

    def _scaled(self, results: Results, reference: str | None) -> list[float]:
        if reference is None:
            return []
        rates = results.values(self.group, reference, "rate")
        found = results.values(self.group, self.series, self.value)
        return [value * rate / YARDSTICK_RATE for value, rate in zip(found, rates, strict=False)]

    def met(self, value: float) -> bool:
        """Whether a figure reaches the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


YARDSTICK = "over the yardstick's"
TARGETS = (
    Target(f"unary, 32 in flight: calls/s {YARDSTICK}", "unary-32", "penstock", 4.5, at_least=True),
    Target(f"unary, 256 in flight: calls/s {YARDSTICK}", "unary-256", "penstock", 5, at_least=True),
    Target(f"a lone unary call: mean {YARDSTICK}", "lone", "penstock", 0.75),
    Target("free on both cores: unary, 32 in flight", "unary-32", "penstock-free", 4, at_least=True),
    Target("free on both cores: unary, 256 in flight", "unary-256", "penstock-free", 5, at_least=True),
    Target(
        "multiplexed, 64 Python callers: predictions/s over the yardstick's calls/s",
        "multiplexed",
        "64",
        15,
        at_least=True,
    ),
    Target("multiplexed, 256 Python callers: the same", "multiplexed", "256", 21, at_least=True),
    Target(
        "multiplexed 256: server CPU per prediction",
        "multiplexed",
        "256",
        6,
        "cpu_us",
        unit=" µs",
        scaled=True,
    ),
    Target(
        "multiplexed 256: client CPU per prediction",
        "multiplexed",
        "256",
        7,
        "client_cpu_us",
        unit=" µs",
        scaled=True,
    ),
    Target("a lone multiplexed call: p50 over a plain unary call's", "lone-python", "asyncio", 0.75),
    Target(
        "merged rows, 64 callers: server CPU",
        "multiplexed",
        "64-merged",
        3,
        "cpu_us",
        unit=" µs",
        scaled=True,
    ),
    Target(
        "merged rows, 256 callers: server CPU",
        "multiplexed",
        "256-merged",
        1.5,
        "cpu_us",
        unit=" µs",
        scaled=True,
    ),
    Target(
        "medium MLP, 256 callers: time per prediction over ONNX Runtime's per row at batch 32",
        "medium",
        "256",
        1.25,
        "inverse",
    ),
    Target("p99 / p50 at half of the rate, open loop", "half-rate", "penstock", 4, "tail"),
    Target("memory growth over a million predictions", "memory", "penstock", 5, "growth_mb", unit=" MB"),
    Target("from process start to SERVING", "start", "penstock", 1.0, "start_seconds", unit=" s"),
    Target("portable transport, unary 32 in flight", "unary-32", "portable", 0.8, at_least=True),
)


def table(results: Results) -> Iterator[str]:
    """The lines of a Markdown table: each target that was measured, the median, the spread, and whether it
    is reached."""
    yield "| what | target | median | min–max | |"  # noqa: RUF001
    yield "|---|---|---|---|---|"
    for target in TARGETS:
        if not target.values(results):
            continue
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}{target.unit}"
        yield f"| {target.what} | {bound} | {_measured(target, results)} |"


def _measured(target: Target, results: Results) -> str:
    values = target.values(results)
    middle = statistics.median(values)
    spread = f"{number(min(values))}–{number(max(values))}"  # noqa: RUF001
    raw = results.median(target.group, target.series, target.value) if target.scaled else None
    here = "" if raw is None else f" ({number(raw)}{target.unit} here)"
    verdict = "reached" if target.met(middle) else "**not reached**"
    return f"{number(middle)}{target.unit}{here} | {spread} | {verdict}"
