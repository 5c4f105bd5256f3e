"""The progress of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.cli.score.times import duration
from penstock.scoring.job import Job


class Bar(Progress):
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
