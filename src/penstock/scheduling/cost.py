"""What a run of a model costs, from a few measured runs and every run since."""

from __future__ import annotations

WEIGHT = 0.1  # of the newest run in the moving average


class RunCost:
    """Expects a run to take `(base + rows * per_row) * drift` seconds.

    Args:
        one_row_seconds: a measured run of one row.
        many_rows: the rows of another measured run; 1 where there is none.
        many_rows_seconds: how long that one took.
    """

    def __init__(self, one_row_seconds: float, many_rows: int = 1, many_rows_seconds: float = 0.0) -> None:
        more = many_rows - 1
        self._per_row = max(many_rows_seconds - one_row_seconds, 0.0) / more if more else 0.0
        self._base = max(one_row_seconds - self._per_row, 0.0)
        self._drift = 1.0

    def expect(self, rows: int) -> float:
        """How long a run of so many rows will take, in seconds."""
        return (self._base + rows * self._per_row) * self._drift

    def learn(self, rows: int, seconds: float) -> None:
        """Takes a run into account: the estimate follows the ratio of what was to what was expected."""
        expected = self._base + rows * self._per_row
        if expected > 0:
            self._drift += WEIGHT * (seconds / expected - self._drift)
