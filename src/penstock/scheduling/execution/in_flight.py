"""The runs of a model that are going on, and how long the last ones took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from penstock.core.request import Request

LONG_SECONDS = 0.005  # no run that takes less is ever too long


class InFlightRun:
    """A run that is going on: a `penstock.backends.backend.RunControl`.

    Attributes:
        batch: the requests; empty if the model is only tried.
        started: when the run began, by `time.monotonic()`.
        is_large: see `RunControl`.
        stopped: whether the run is to end early.
        hung: whether the run has gone on for too long.
    """

    __slots__ = ("_stop", "batch", "hung", "is_large", "started", "stopped")

    def __init__(self, batch: Sequence[Request], started: float, is_large: bool = False) -> None:
        self.batch = batch
        self.started = started
        self.is_large = is_large
        self.stopped = self.hung = False
        self._stop: Callable[[], None] | None = None

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Called by the backend: `stop`, which may be called twice, ends the run."""
        self._stop = stop
        if self.stopped:  # `stop` was called first: of two threads, the second one sees what the first did
            stop()

    def stop(self) -> None:
        """Lets the run end as soon as the backend can; called by another thread."""
        self.stopped = True
        if self._stop is not None:
            self._stop()

    def is_abandoned(self, now: float) -> bool:
        """Whether no caller waits for it any more."""
        return bool(self.batch) and all(each.cancelled or each.deadline <= now for each in self.batch)


class InFlightRuns(dict[int, InFlightRun]):
    """The runs of one model that are going on, by the thread that runs; each thread has one at most.

    The threads that run write to it, another one reads it. It needs no lock, since Python does every step
    on a dictionary in one piece.

    Attributes:
        took: how long the last run of each thread took, in seconds.
        cpu: how much CPU each thread had used, of all that it ever did, when its last long run ended.
    """

    def __init__(self) -> None:
        self.took: dict[int, float] = {}
        self.cpu: dict[int, float] = {}

    def cpu_of_long_run(self, thread: int, before: float) -> float:
        """How much CPU the last run of this thread used; 0 if it took less than `LONG_SECONDS`.

        Time alone does not show what a run takes: on a busy machine any thread may be delayed. What is done
        around the run, such as writing its answers, is no part of it.

        Args:
            thread: the calling thread.
            before: how much CPU it had used, at or shortly before the beginning of the run.
        """
        return self.cpu[thread] - before if self.took.get(thread, 0.0) > LONG_SECONDS else 0.0

    def ended(self, thread: int, seconds: float) -> None:
        """A run of this thread has ended after so many seconds."""
        self.took[thread] = seconds
        if seconds > LONG_SECONDS:  # reading the CPU clock takes longer than most steps of a short run
            self.cpu[thread] = time.thread_time()

    def hung_threads(self) -> list[int]:
        """The threads whose runs hang, by their identifiers."""
        return [thread for thread, run in list(self.items()) if run.hung]
