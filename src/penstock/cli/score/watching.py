"""What a person sees of a run, and how it is ended by a signal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.scoring.job import Job
from penstock_client import PenstockError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def note(text: str) -> None:
    """Tells something on standard error."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


def waiting_note(error: PenstockError | None) -> None:
    """Tells that the run waits for the server, or no longer does."""
    if error is None:
        note("the server answers again")
    else:
        note(f"waiting for the server: {' '.join(str(error).split())}")


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"


@contextmanager
def ended_by_signals(job: Job) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the run after the chunk that is being written; a second one ends the process.

    Yields:
        The signals that have come.
    """
    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        job.stopping.set()

    before: dict[signal.Signals, Any] = {each: signal.signal(each, end) for each in SIGNALS}
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def shown(job: Job) -> Iterator[None]:
    """A bar on standard error with rate and time left, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with _Bar(job):
        yield


class _Bar(Progress):
    """Reads the counts a few times a second, so that it costs nothing by the row."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._since = monotonic()
        super().__init__(
            BarColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn("{task.fields[rate]:,.0f} rows/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self.add_task("", total=None, rows=job.done, rate=0.0, left="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar; called several times a second."""
        job, seconds = self._job, monotonic() - self._since
        done, own = job.done, job.done - job.resumed
        total = job.reading.total
        share = done / total if total else job.reading.share()
        rate = own / seconds if seconds > 0 else 0.0
        left = ""
        if share and own and rate:
            left = f"{duration(done / share * (1 - share) / rate)} left"
        for task in self.tasks:
            known = None if share is None else 1.0
            self.update(task.id, total=known, completed=share or 0, rows=done, rate=rate, left=left)
        yield from super().get_renderables()
