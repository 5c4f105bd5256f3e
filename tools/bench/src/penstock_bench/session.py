"""Runs a whole measurement: all levels against one server, with a progress line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from penstock_bench.fleet import Fleet
from penstock_bench.pacing import Load
from penstock_bench.report import named
from penstock_bench.results import Level, level
from penstock_bench.servers import Statistics, statistics
from penstock_bench.worker import Progress as Seen
from penstock_bench.worker import Task


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of all levels.

    Attributes:
        levels: the levels with results.
        interrupted_after: the seconds of load, with warm-ups, before Ctrl-C; None without Ctrl-C.
        not_run: the levels without results.
    """

    levels: list[Level]
    interrupted_after: float | None
    not_run: list[Load]


def measure(task: Task, loads: Sequence[Load], processes: int) -> Measurement:
    """Runs all levels of load, one after another.

    Args:
        task: the parts that are the same for all levels.
        loads: the levels.
        processes: the number of load processes.

    Returns:
        The results of every level; after Ctrl-C of the levels that have results.

    Raises:
        BenchError: the server cannot be reached or refuses, or a process died.
    """
    levels: list[Level] = []
    with Fleet(task, processes) as fleet, _progress() as show:
        began = monotonic()
        for number, load in enumerate(loads):
            before = _statistics(task)
            measured = fleet.run(load, show(load))
            ended = monotonic() - began
            after = _statistics(task)
            counted = after.since(before) if before is not None and after is not None else None
            empty = measured.interrupted and not measured.tally.requests
            if not empty:
                levels.append(level(measured, counted))
            if measured.interrupted:
                return Measurement(levels, ended, list(loads[number + (not empty) :]))
    return Measurement(levels, None, [])


def _statistics(task: Task) -> Statistics | None:
    """The server's statistics, if its answers have no timing."""
    if task.protocol == "penstock":
        return None
    return statistics(task.target, task.ask.model, task.ask.version)


@contextmanager
def _progress() -> Iterator[Callable[[Load], Callable[[Seen], None]]]:
    """A progress line on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield lambda load: _Line(bar, load).update


class _Line:
    """The progress of one level."""

    def __init__(self, bar: Progress, load: Load) -> None:
        self._bar = bar
        self._load = load
        self._began = self._at = monotonic()
        self._answered = 0
        self._said = "warming up" if load.warmup else ""
        what = named(load)
        for task in bar.task_ids:
            bar.remove_task(task)
        self._task: TaskID = bar.add_task(what, total=load.requests or load.duration, said=self._said)

    def update(self, seen: Seen) -> None:
        now = monotonic()
        if now - self._at >= 0.5 and seen.answered:
            rate = (seen.answered - self._answered) / (now - self._at)
            failed = f" · {seen.failed:,} failed" if seen.failed else ""
            self._said = f"{rate:,.0f}/s · {seen.in_flight:,} unanswered{failed}"
            self._at, self._answered = now, seen.answered
        done = seen.answered if self._load.requests else now - self._began - self._load.warmup
        self._bar.update(self._task, completed=max(0.0, done), said=self._said)
