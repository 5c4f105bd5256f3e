"""A batch while it is made up: how much more goes into it, and what is too late for it."""

from __future__ import annotations

import math

from penstock.messages import Closed, InferRequest
from penstock.scheduling.cost import RunCost


class Taken:
    """A batch that is being made up, and then has been.

    Args:
        max_rows: the most rows of the batch.
        now: the time, by the clock of the deadlines.

    Attributes:
        batch: what is to be run together.
        rows: the rows of these.
        late: what was met on the way, and is late or cannot be in time any more.
        cost: what runs of their shapes take.
        now: as given.
        closed: why there is not more in it.
    """

    __slots__ = (
        "_earliest",
        "_max_rows",
        "_most",
        "_most_by",
        "batch",
        "closed",
        "cost",
        "late",
        "now",
        "rows",
    )

    cost: RunCost

    def __init__(self, max_rows: int, now: float) -> None:
        self.batch: list[InferRequest] = []
        self.late: list[InferRequest] = []
        self.now = now
        self.closed = Closed.FREE
        self._earliest = math.inf  # the earliest deadline in it
        self.rows = 0
        self._most: float = max_rows  # the rows that can be run, as far as anybody asked,
        self._most_by = math.inf  # by this deadline
        self._max_rows = max_rows

    def is_late(self, request: InferRequest, waiting_rows: int) -> bool:
        """Whether a request's deadline has passed, or will have when its run ends.

        One that nobody waits behind is tried whatever is expected: else nobody would learn that runs take
        less time than they did.
        """
        deadline = request.deadline
        if deadline <= self.now:
            return True
        alone = not self.batch and waiting_rows <= (request.rows or 1)
        sure = self.cost.is_known and not alone
        return sure and self.now + self.cost.expect(request.rows) > deadline

    def takes(self, request: InferRequest) -> bool:
        """Adds a request, if there is room and nobody in the batch becomes late by it."""
        rows = self.rows + request.rows
        if request.deadline < self._earliest:
            self._earliest = request.deadline
        if self.batch:
            if self._earliest != self._most_by:
                self._most_by = self._earliest
                self._most = min(self._max_rows, self.cost.rows_within(self._earliest - self.now))
            if rows > self._most:
                self.closed = Closed.FULL if rows > self._max_rows else Closed.DEADLINE
                return False
        self.rows = rows
        self.batch.append(request)
        if rows >= self._max_rows:
            self.closed = Closed.FULL
        return True
