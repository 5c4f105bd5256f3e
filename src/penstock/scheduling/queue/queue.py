"""The queue of one model: limited, ordered by priority and by when requests are due, grouped by shape.

It is a plain data structure that is given the time, so every rule can be tested without waiting:

- a higher class of priority goes first, and within a class what is due first;
- every eighth batch begins with the request that has waited longest (of many shapes, of some), if long;
- requests of equal shapes share a batch, which is cut where one more row would make a request late;
- the first request of a shape that has never run gets a batch of its own;
- requests that are late, or cannot be in time any more, are removed before they cost a run.
"""

from __future__ import annotations

import math

from penstock.core.errors import DeadlineExpired, RequestError
from penstock.core.request import CutReason, Request
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue.batch_groups import LOW, BatchGroups
from penstock.scheduling.queue.fair_share import FairShare
from penstock.scheduling.queue.limits import LargeRequest, LastFull, QueueLimits, QueueTotal, why_full
from penstock.scheduling.queue.priority_line import PriorityLine

PASSED = "the deadline had passed when the request arrived"
AGED_SECONDS = 0.5
AGED_TURN = 8
"""Every `AGED_TURN`th batch begins with the request that has waited longest, if that is longer than
`AGED_SECONDS`: seldom enough to cost little, often enough that requests of low priority are run."""


class BatchBuilder:
    """A batch while it is filled, and then as it is run.

    Args:
        max_rows: the most rows of the batch; a single request may have more.
        now: the time, by the clock of the deadlines.

    Attributes:
        batch: the requests that are to be run together.
        rows: the rows of these.
        late: requests that were found to be late, or that cannot be in time any more.
        cost: the cost of runs of their shape.
        is_first_run: whether their shape has never run: then only one request is taken.
        cut_reason: why the batch has no more requests.
    """

    __slots__ = (
        "_deadline", "_fitting_by", "_fitting_rows", "batch", "cost", "cut_reason", "is_first_run", "late",
        "max_rows", "now", "rows",
    )  # fmt: skip

    cost: RunCost

    def __init__(self, max_rows: int, now: float) -> None:
        self.batch: list[Request] = []
        self.late: list[Request] = []
        self.now = now
        self.cut_reason = CutReason.FREE
        self.is_first_run = False
        self.rows = 0
        self.max_rows = max_rows
        self._deadline = math.inf  # the earliest deadline of the batch
        self._fitting_rows: float = max_rows  # the rows that can be run
        self._fitting_by = math.inf  # by this deadline; worked out only for a second request

    def is_late(self, request: Request, waiting_rows: int) -> bool:
        """Whether a request's deadline has passed, or will have passed when its run ends.

        If nothing waits behind it, it is run even so: else the estimate would never learn of faster runs.
        """
        deadline = request.deadline
        if deadline <= self.now:
            return True
        sure = self.cost.is_known and (bool(self.batch) or waiting_rows > (request.rows or 1))
        return sure and self.now + self.cost.expect(request.rows) > deadline

    def takes(self, request: Request) -> bool:
        """Adds a request, if it fits and makes no request of the batch late."""
        rows = self.rows + request.rows
        if request.deadline < self._deadline:
            self._deadline = request.deadline
        if self.batch:
            if self._deadline != self._fitting_by:
                self._fitting_by = self._deadline
                self._fitting_rows = min(self.max_rows, self.cost.rows_within(self._deadline - self.now))
            if self.is_first_run or rows > self._fitting_rows:
                reason = CutReason.NEW_SHAPE if self.is_first_run else CutReason.DEADLINE
                self.cut_reason = CutReason.FULL if rows > self.max_rows else reason
                return False
        self.rows = rows
        self.batch.append(request)
        if rows >= self.max_rows:
            self.cut_reason = CutReason.FULL
        return True


class RequestQueue:
    """Requests that wait for one model.

    Args:
        limits: how much may wait.
        costs: what runs cost.
        total: what waits for all models; no limit if not given.

    Attributes:
        rows: the rows that wait, cancelled requests not among them. A request of no rows counts as one.
        bytes: the bytes that wait.
        earliest_deadline: no waiting request has an earlier deadline; infinity if none has a deadline.
        limits, total: as given; without a total, one without limits.
        large: the part of a request above the limits that does not count.
    """

    def __init__(self, limits: QueueLimits, costs: RunCosts, total: QueueTotal | None = None) -> None:
        self.rows = self.bytes = self._takes = 0
        self.earliest_deadline = math.inf  # may be that of a request which has been removed since
        self.limits = limits
        self._costs = costs
        self._cost_by_shape = costs.by_shape
        self.total = total or QueueTotal(QueueLimits(2**63))
        self._half = limits.half_of_least(self.total.limits)
        self.large = LargeRequest(limits)
        self._lock = self.total.lock
        self._only: Request | None = None  # the one request that waits, in no group: see `_group_only`
        self._groups = BatchGroups()
        self._class_rows = self._groups.class_rows
        self._last_full = LastFull()
        self._fair_share: FairShare | None = None  # while more than half of a limit is used

    def put(self, request: Request, now: float) -> None:
        """Adds a request.

        Raises:
            QueueFull: the queue is full.
            DeadlineExpired: its deadline has passed already.
        """
        if request.deadline <= now:
            raise DeadlineExpired(PASSED)
        with self._lock:
            rows, size, total = request.rows or 1, request.size, self.total
            half, share = self._half, self._fair_share
            if total.rows and (
                share is not None or total.rows + rows > half.rows or total.bytes + size > half.bytes
            ):
                full = share and share.why_full(request, request.sender, now)
                if full := full or why_full(self, rows, size):
                    raise full
            self._add(request)

    def why_rejected(self, request: Request, now: float) -> RequestError | None:
        """Why `put` would raise an error now; None if it would not, or if `displace` might help."""
        with self._lock:
            self._group_only()
            _, normal, low = self._class_rows
            has_lower = low or normal if request.priority > 0 else low and request.priority == 0
            if request.deadline <= now or has_lower or not self.total.rows:
                return None if request.deadline > now else DeadlineExpired(PASSED)
            share = self._fair_share
            full = None if share is None else share.why_full(request, request.sender, now)
            return full or self._last_full.of(self, request, self._costs.first.runs)

    def displace(self, request: Request, now: float) -> list[Request]:
        """Adds a request to a full queue, in the place of requests of lower priority.

        Returns:
            The requests that were taken out. Empty if all are not enough, or there is room by now: then the
            request is not added.
        """
        with self._lock:
            self._group_only()
            if not self._groups.has_lower_than(request):
                return []
            missing, share = (request.rows or 1, request.size), self._fair_share
            if share is None or share.why_full(request, request.sender, now) is None:
                missing, share = self.total.missing(self, *missing), None
            displaced = self._groups.in_place_of(request, missing, share, self.large, self.total.large)
            for each in displaced:
                self._remove(each)
            if displaced:
                self._add(request)
            return displaced

    def add_held(self, request: Request) -> None:
        """Adds a request without checking the limits: they were checked before it was held back elsewhere."""
        with self._lock:
            self._add(request)

    def discard(self, request: Request) -> bool:
        """Takes out a request whose caller has gone; says whether it was still waiting."""
        with self._lock:
            self._group_only()
            return self._remove(request)

    def take(self, max_rows: int, now: float) -> BatchBuilder:
        """Takes out the next batch.

        It begins with the most urgent request. A request of more than `max_rows` rows is taken alone.

        Args:
            max_rows: the most rows of the batch.
            now: the time, by the clock of the deadlines.

        Returns:
            The batch, which is empty if nothing waits that can be in time.
        """
        builder = BatchBuilder(max_rows, now)
        with self._lock:
            if self._only is not None:
                self._take_only(self._only, builder)
            else:
                self._take(builder)
        return builder

    def expire(self, now: float) -> list[Request]:
        """Takes out every request whose deadline has passed."""
        with self._lock:
            if now < self.earliest_deadline:
                return []
            self._group_only()
            waiting = list(self._groups.requests())
            for request in (expired := [request for request in waiting if request.deadline <= now]):
                self._remove(request)
            left = [request.deadline for request in waiting if request.deadline > now]
            self.earliest_deadline = min(left, default=math.inf)
            return expired

    def oldest(self) -> float:
        """When the request that has waited longest arrived; infinity if nothing waits."""
        with self._lock:
            self._group_only()
            return min((group.longest_waiting()[0] for group in self._groups.values()), default=math.inf)

    def next_batch(self, max_rows: int) -> tuple[int, RunCost]:
        """About how many rows the next batch has, and the cost of runs of its shape."""
        rows = self.rows
        with self._lock:
            if self._only is not None:
                return self._only.rows, self._costs.of(self._only.shape_key)
            if not self._groups:
                return 0, self._costs.first
            key = self._groups.most_urgent()
            if rows > max_rows:  # a larger request runs alone
                heads = (line.head() for line in self._groups[key].lines)
                rows = max(max_rows, next((head.rows for head in heads if head is not None), 0))
            return rows, self._costs.of(key)

    def ahead(self, request: Request, now: float) -> tuple[float, float]:
        """What is taken before a request that arrives now, if what waits is due evenly.

        Returns:
            How many rows, and the deadline of the first: infinity if not all that waits may share a batch.
        """
        with self._lock:
            self._group_only()
            rows = self._groups.rows_ahead(request, now)
            return rows, self._groups.first_deadline() if rows >= 1 else math.inf

    def _add(self, request: Request) -> None:
        if self.rows or self._fair_share is not None:
            if self._only is not None:
                self._group_only()
            self._groups.add(request)
        else:
            self._only = request
        if request.deadline < self.earliest_deadline:
            self.earliest_deadline = request.deadline
        rows, size, total = request.rows or 1, request.size, self.total
        self.rows += rows
        self.bytes += size
        total.rows += rows
        total.bytes += size
        if self._fair_share is not None:
            self._fair_share.add(request, request.sender)
            self.total.note_large(self, request)
        elif self.rows > self._half.rows or self.bytes > self._half.bytes:
            self._group_only()
            self._fair_share = FairShare(self.limits, self._groups.requests())
            self.total.note_large(self, request)

    def _group_only(self) -> None:
        """Puts the only request that waits into its group.

        Most are taken before another one arrives. Grouping them at once would double the cost of the queue.
        """
        if self._only is not None:
            self._groups.add(self._only)
            self._only = None

    def _take_only(self, request: Request, builder: BatchBuilder) -> None:
        if (cost := self._cost_by_shape.get(request.shape_key)) is None:
            self._begin(request.shape_key, builder)
        else:
            builder.cost = cost
        if request.deadline != math.inf and builder.is_late(request, self.rows):
            builder.late.append(request)
        else:  # as `takes`, but without a call
            builder.batch.append(request)
            if (rows := request.rows) >= builder.max_rows:
                builder.cut_reason = CutReason.FULL
            builder.rows = rows
        self._only, self.earliest_deadline = None, math.inf
        self.total.rows -= self.rows
        self.total.bytes -= self.bytes
        self.rows = self.bytes = 0

    def _take(self, builder: BatchBuilder) -> None:
        self._takes += 1
        if self._takes % AGED_TURN == 0:
            self._begin_with_aged(builder)
        while self._groups and not builder.batch:
            self._fill(self._groups.most_urgent(), builder)
        if not self._groups:
            self.earliest_deadline = math.inf
        half = self._half
        if self._fair_share is not None and 2 * self.rows < half.rows and 2 * self.bytes < half.bytes:
            self._fair_share = None  # far below the level at which shares are enforced

    def _begin(self, shape_key: object, builder: BatchBuilder) -> None:
        """Prepares a batch for requests of one shape."""
        cost = self._cost_by_shape.get(shape_key)
        if cost is None or builder.is_first_run:
            builder.is_first_run = not self._costs.has_run(shape_key)
            cost = self._costs.of(shape_key)
        builder.cost = cost

    def _begin_with_aged(self, builder: BatchBuilder) -> None:
        """Begins the batch with the request that has waited longest, if it has waited long."""
        key = self._groups.longest_waiting()
        arrived, index = self._groups[key].longest_waiting() if self._groups else (math.inf, LOW)
        if arrived + AGED_SECONDS <= builder.now:
            self._begin(key, builder)
            line = self._groups[key].lines[index]
            self._move(index, line, line.oldest(), builder)
            if builder.batch:
                self._fill(key, builder)
            else:
                self._groups.drop_if_empty(key)

    def _fill(self, key: object, builder: BatchBuilder) -> None:
        """Fills the batch from one group, up to its limits.

        If the first request is too late, nothing more is taken: another group may be more urgent now.
        """
        self._begin(key, builder)
        if self.rows <= builder.max_rows and self._fair_share is None and self._take_all(builder):
            return
        for index, line in enumerate(self._groups[key].lines):
            # Most requests have no priority: a class in which nothing waits is skipped.
            while self._class_rows[index] and (request := line.head()) is not None:
                if not self._move(index, line, request, builder):
                    return
                if not builder.batch:
                    self._groups.drop_if_empty(key)
                    return
        self._groups.drop(key)

    def _take_all(self, builder: BatchBuilder) -> bool:
        """Takes all that waits in one step, if it may share a batch and is in time, as is usual."""
        earliest = self.earliest_deadline
        if earliest != math.inf and (
            earliest <= builder.now or builder.cost.rows_within(earliest - builder.now) < self.rows
        ):
            return False
        if builder.is_first_run or builder.batch or (taken := self._groups.take_all(self.rows)) is None:
            return False
        builder.batch, builder.rows = taken, sum([request.rows for request in taken])
        if builder.rows >= builder.max_rows:
            builder.cut_reason = CutReason.FULL
        self.total.rows -= self.rows
        self.total.bytes -= self.bytes
        self.rows = self.bytes = 0
        return True

    def _move(self, index: int, line: PriorityLine, request: Request, builder: BatchBuilder) -> bool:
        """Moves a request into the batch or to the late ones; False if it stays for the next batch."""
        if request.deadline != math.inf and builder.is_late(request, self.rows):
            builder.late.append(request)
        elif not builder.takes(request):
            return False
        self._take_out(index, line, request)
        return True

    def _take_out(self, index: int, line: PriorityLine, request: Request) -> None:
        line.remove(request)
        rows, size, total = request.rows or 1, request.size, self.total
        self.rows -= rows
        self.bytes -= size
        total.rows -= rows
        total.bytes -= size
        self._class_rows[index] -= rows
        if self._fair_share is not None:  # as it is while a large request waits
            self._fair_share.remove(request)
            self.large.left(request)
            total.large.left(request)

    def _remove(self, request: Request) -> bool:
        if (found := self._groups.find(request)) is None:
            return False
        self._take_out(*found, request)
        self._groups.drop_if_empty(request.shape_key)
        return True
