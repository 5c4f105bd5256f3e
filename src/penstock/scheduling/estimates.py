"""Estimates when a request that arrives now will be answered, and whether waiting will fill a batch."""

from __future__ import annotations

import math

from penstock.scheduling.cost import RunCost

RATE_STEP = FACTOR_STEP = 1 / 16
MOST_FACTOR = 2.0
MOST_CUT = 4
"""For this many batches it is worked out where they are cut; those behind them count as equally large."""


class WaitEstimate:
    """How long requests of one model wait, by when the runs going on are expected to end.

    Args:
        runs_in_parallel: how many runs may go on at the same time.

    Attributes:
        turn_factor: how many times longer than its run a batch takes until all of it is answered.
    """

    __slots__ = ("_ends", "_runs_in_parallel", "turn_factor")

    def __init__(self, runs_in_parallel: int) -> None:
        self.turn_factor = 1.0
        self._runs_in_parallel = runs_in_parallel
        self._ends: list[float] = []

    def run_started(self, end: float) -> None:
        """A run has started that is expected to end at `end`, by `time.monotonic()`."""
        self._ends.append(end)

    def run_ended(self, end: float) -> None:
        """The run that was expected to end at `end` has ended."""
        self._ends.remove(end)

    def learn(self, expected_seconds: float, seconds: float) -> None:
        """A batch has been answered `seconds` after it was taken; its run was expected to take less."""
        factor = min(max(seconds / expected_seconds, 1.0), MOST_FACTOR)
        self.turn_factor += FACTOR_STEP * (factor - self.turn_factor)

    def seconds_to_answer(  # noqa: PLR0913 - what an answer waits for
        self,
        rows_ahead: float,
        rows: int,
        max_rows: int,
        cost: RunCost,
        now: float,
        head: float = math.inf,
        deadline: float = math.inf,
    ) -> float:
        """How long until a request is answered, at least.

        A batch is cut where one more row would make its first request late. So the rows ahead may need more
        batches than their number says, each with the base cost of a run. If the request would begin another
        batch behind those, there must be time for as many rows as make that run efficient. Otherwise the
        batches of an overloaded model become smaller and smaller, and base costs take most of the time.

        Args:
            rows_ahead: the rows that are taken before it.
            rows: its own rows.
            max_rows: the rows of a full batch.
            cost: the cost of runs.
            now: the time, by `time.monotonic()`.
            head: the deadline of the waiting request that is taken first.
            deadline: its own deadline. The rows ahead are taken to be due evenly between the two.
        """
        ends = tuple(self._ends)  # a copy: another thread may end a run meanwhile
        start = max(min(ends), now) if len(ends) >= self._runs_in_parallel else now
        left, least, fitting = rows_ahead, 0.0, float(max_rows)
        turn = self.turn_factor / self._runs_in_parallel
        if head < math.inf:
            step = max(deadline - head, 0.0) / rows_ahead if deadline < math.inf else 0.0
            for _ in range(MOST_CUT):
                fitting = cost.rows_within(head - start)
                fitting = 1.0 if fitting < 1.0 else max_rows if fitting > max_rows else fitting
                if left + rows <= fitting or left < 1.0:
                    break
                taken = min(left, fitting)
                start += turn * cost.expect(math.ceil(taken))
                left -= taken
                head += step * taken
                least = min(cost.efficient_rows, max_rows)
        batches, beside = divmod(left, fitting)
        start += turn * batches * cost.expect(math.ceil(fitting))
        own = rows + (beside if beside + rows <= fitting else 0.0)
        if beside < 1.0:
            own = max(own, least)
        return start - now + cost.expect(math.ceil(own))


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
