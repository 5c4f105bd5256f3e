"""Foretells: when a request that comes now will be answered, and whether waiting fills a batch."""

from __future__ import annotations

import math

from penstock.scheduling.cost import RunCost

RATE_STEP = 1 / 16


class Runs:
    """The runs of a model that are going on, by when they are expected to end.

    Args:
        most: how many may go on at the same time.
    """

    __slots__ = ("_ends", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends: list[float] = []

    def began(self, end: float) -> None:
        """One began that is expected to end then."""
        self._ends.append(end)

    def ended(self, end: float) -> None:
        """The one that was expected to end then has."""
        self._ends.remove(end)

    def seconds_to_answer(
        self, rows_ahead: float, rows: int, max_rows: int, cost: RunCost, now: float
    ) -> float:
        """How long until a request is answered, at least.

        Args:
            rows_ahead: the rows that are taken before it.
            rows: its own.
            max_rows: the rows of a full batch.
            cost: what runs take.
            now: the time.
        """
        ends = tuple(self._ends)  # one may end meanwhile, on another thread
        busy = max(min(ends) - now, 0.0) if len(ends) >= self._most else 0.0
        batches, beside = divmod(rows_ahead, max_rows)
        own = rows + (beside if beside + rows <= max_rows else 0)
        return busy + batches * cost.expect(max_rows) / self._most + cost.expect(math.ceil(own))


class Arrivals:
    """How fast rows come: a moving average of the time between them."""

    __slots__ = ("_last", "_seconds_per_row")

    def __init__(self) -> None:
        self._last = -math.inf
        self._seconds_per_row = math.inf

    def note(self, rows: int, now: float) -> None:
        """Rows have come."""
        gap = (now - self._last) / max(rows, 1)
        self._last = now
        if self._seconds_per_row == math.inf:
            self._seconds_per_row = gap
        elif gap != math.inf:
            self._seconds_per_row += RATE_STEP * (gap - self._seconds_per_row)

    def until(self, rows: int) -> float:
        """When so many more rows will have come than have; never, where nobody knows."""
        known = self._seconds_per_row != math.inf
        return self._last + rows * self._seconds_per_row if known else math.inf
