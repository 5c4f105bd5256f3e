"""What a person sees of a run, and how it is ended by a signal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

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
    from penstock.cli.score.bar import Bar  # a tenth of the time that the command takes to start

    with Bar(job):
        yield
