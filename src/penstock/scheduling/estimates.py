"""Estimates when a request that arrives now will be answered, and whether waiting will fill a batch."""

from __future__ import annotations

import math

from penstock.scheduling.cost import RunCost

RATE_STEP = 1 / 16


class WaitEstimate:
    """How long requests of one model wait, by when the runs going on are expected to end.

    Args:
        runs_in_parallel: how many runs may go on at the same time.
    """

    __slots__ = ("_ends", "_runs_in_parallel")

    def __init__(self, runs_in_parallel: int) -> None:
        self._runs_in_parallel = runs_in_parallel
        self._ends: list[float] = []

    def run_started(self, end: float) -> None:
        """A run has started that is expected to end at `end`, by `time.monotonic()`."""
        self._ends.append(end)

    def run_ended(self, end: float) -> None:
        """The run that was expected to end at `end` has ended."""
        self._ends.remove(end)

    def seconds_to_answer(
        self, rows_ahead: float, rows: int, max_rows: int, cost: RunCost, now: float
    ) -> float:
        """How long until a request is answered, at least.

        Args:
            rows_ahead: the rows that are taken before it.
            rows: its own rows.
            max_rows: the rows of a full batch.
            cost: the cost of runs.
            now: the time, by `time.monotonic()`.
        """
        ends = tuple(self._ends)  # a copy: another thread may end a run meanwhile
        busy = max(min(ends) - now, 0.0) if len(ends) >= self._runs_in_parallel else 0.0
        batches, rows_beside = divmod(rows_ahead, max_rows)
        own = rows + (rows_beside if rows_beside + rows <= max_rows else 0)
        return busy + batches * cost.expect(max_rows) / self._runs_in_parallel + cost.expect(math.ceil(own))


class Arrivals:
    """How fast rows arrive: a moving average of the time between them."""

    __slots__ = ("_last", "_seconds_per_row")

    def __init__(self) -> None:
        self._last = -math.inf
        self._seconds_per_row = math.inf

    def note(self, rows: int, now: float) -> None:
        """Rows have arrived."""
        gap = (now - self._last) / max(rows, 1)
        self._last = now
        if self._seconds_per_row == math.inf:
            self._seconds_per_row = gap
        elif gap != math.inf:
            self._seconds_per_row += RATE_STEP * (gap - self._seconds_per_row)

    def until(self, rows: int) -> float:
        """When `rows` more rows are expected to have arrived; infinity while the rate is unknown."""
        known = self._seconds_per_row != math.inf
        return self._last + rows * self._seconds_per_row if known else math.inf
