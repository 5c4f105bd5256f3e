"""What a run of a model costs, from a few measured runs and every run since."""

from __future__ import annotations

import math

ROUNDING = 1e-9  # of a row, which may be missing for no other reason

STEP = 1.05  # how far the estimate moves with every run


class RunCost:
    """Expects a run to take `(base + rows * per_row) * drift` seconds.

    The drift follows the median of what runs took against what they were expected to: a step up where one
    took longer, a step down where it did not. A single run that the machine held up, by however much, moves
    it by no more than one step.

    Args:
        one_row_seconds: a measured run of one row.
        many_rows: the rows of another measured run; 1 where there is none.
        many_rows_seconds: how long that one took.
        measured: whether these are measurements; else they are a guess until the first run.

    Attributes:
        is_known: whether any run has been measured: on a guess nobody is refused.
    """

    def __init__(
        self,
        one_row_seconds: float,
        many_rows: int = 1,
        many_rows_seconds: float = 0.0,
        *,
        measured: bool = True,
    ) -> None:
        self.is_known = measured
        more = many_rows - 1
        self._per_row = max(many_rows_seconds - one_row_seconds, 0.0) / more if more else 0.0
        self._base = max(one_row_seconds - self._per_row, 0.0)
        self._drift = 1.0

    def expect(self, rows: int) -> float:
        """How long a run of so many rows will take, in seconds."""
        return (self._base + rows * self._per_row) * self._drift

    def rows_within(self, seconds: float) -> float:
        """How many rows can be run in so many seconds; infinity where rows cost nothing."""
        left = seconds / self._drift - self._base
        if not self.is_known:
            return math.inf
        if left < 0.0:
            return 0
        return math.floor(left / self._per_row + ROUNDING) if self._per_row else math.inf

    def learn(self, rows: int, seconds: float) -> None:
        """Takes a run into account."""
        if not self.is_known:
            self._base, self.is_known = seconds, True
            return
        if seconds > (self._base + rows * self._per_row) * self._drift:
            self._drift *= STEP
        else:
            self._drift /= STEP
