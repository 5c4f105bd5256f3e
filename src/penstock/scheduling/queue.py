"""The queue before one model: bounded, by class of priority, by when requests are due, grouped by shape.

It is a plain data structure that is handed the time, so every rule can be tested without waiting:

- a higher class of priority goes first, and within a class what is due first;
- every eighth batch begins with the request that has waited longest, if it has waited long: nobody starves
  (of many shapes, with the one that has among some of them, in turn);
- requests of equal shapes share a batch, which is cut where one row more would make somebody late;
- what is late, or cannot be in time any more, leaves before it costs a run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from penstock.errors import DeadlineExpired, QueueFull
from penstock.messages import InferRequest
from penstock.scheduling.bounds import Bounds, Total
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.groups import HIGH, LOW, NORMAL, Groups
from penstock.scheduling.lane import Lane, due_of
from penstock.scheduling.shares import Shares
from penstock.scheduling.taken import Taken

AGED_SECONDS = 0.5
AGED_TURN = 8
"""Every so manieth batch begins with the request that has waited longest, if that is longer than
`AGED_SECONDS`. Seldom enough that a crowd of lower priority is hardly felt, often enough that it moves."""


class RequestQueue:
    """Requests that wait for one model.

    A request of no rows counts as one, so that `rows` is 0 only where nothing waits.

    Args:
        bounds: how much may wait.
        costs: what runs take.
        total: what waits before all models; without a bound, where not given.

    Attributes:
        rows: the rows that wait, cancelled ones not counted.
        bytes: the bytes that wait.
    """

    def __init__(self, bounds: Bounds, costs: RunCosts, total: Total | None = None) -> None:
        self.rows = 0
        self.bytes = 0
        self._bounds = bounds
        self._half = Bounds(bounds.rows // 2, bounds.bytes // 2)
        self._costs = costs
        self._total = total or Total(Bounds(2**63))
        self._lock = self._total.lock
        self._only: InferRequest | None = None  # all that waits, and then in no group: see `_line_up`
        self._groups = Groups()
        self._class_rows = [0, 0, 0]
        self._latest_due = [-math.inf] * 3  # of each class: when the last of it is due
        self._shares: Shares | None = None  # while more than half of the room is taken
        self._takes = 0
        self._earliest_deadline = math.inf  # of all that wait; may be that of one taken since

    def put(self, request: InferRequest, now: float) -> None:
        """Lets a request in.

        Raises:
            QueueFull: it would make too much wait.
            DeadlineExpired: its deadline has passed already.
        """
        if request.deadline <= now:
            raise DeadlineExpired("the deadline had passed when the request arrived")
        with self._lock:
            if self._total.rows:
                self._check_room(request, now)
            self._let_in(request)

    def displace(self, request: InferRequest, now: float) -> list[InferRequest]:
        """Lets a request in where there is no room, in the place of others of lower priority.

        Returns:
            Those that have left for it, of the lowest class first the last to come; none where they would
            not make room: then it is not let in.
        """
        with self._lock:
            self._line_up()
            share, (rows, size) = self._missing(request, now)
            displaced: list[InferRequest] = []
            for each in self._giving_way_to(request):
                if rows <= 0 and size <= 0:
                    break
                if share is None or share.holds(each, request.sender):
                    displaced.append(each)
                    rows, size = rows - (each.rows or 1), size - each.size
            if rows > 0 or size > 0:
                return []
            for each in displaced:
                self._remove(each)
            self._let_in(request)
            return displaced

    def follow(self, request: InferRequest) -> None:
        """Lets a request in whatever waits: it has been let in before, and was held back elsewhere."""
        with self._lock:
            self._let_in(request)

    def check_total(self, request: InferRequest) -> None:
        """Makes sure that there is room for a request beside what waits before all models.

        Raises:
            QueueFull: there is none.
        """
        with self._lock:
            self._total.bounds.check(
                "the queues of all models are", self._total, request.rows or 1, request.size
            )

    def count_elsewhere(self, rows: int, size: int) -> None:
        """What waits for this model elsewhere has become more, or with numbers below 0 less."""
        with self._lock:
            self._total.rows += rows
            self._total.bytes += size

    def discard(self, request: InferRequest) -> bool:
        """Takes a request out whose caller has gone: it counts no more, and will not run.

        Returns:
            Whether it was waiting; False where it has been taken already.
        """
        with self._lock:
            self._line_up()
            return self._remove(request)

    def take(self, max_rows: int, now: float) -> Taken:
        """Takes the next batch out.

        It begins with the most urgent request and holds only such as may run with it. A request of
        more than `max_rows` rows comes alone.

        Args:
            max_rows: the most rows of the batch.
            now: the time, by the clock of the deadlines.

        Returns:
            The batch, empty where nothing waits that can be in time.
        """
        filling = Taken(max_rows, now)
        with self._lock:
            if self._only is not None:
                self._take_only(self._only, filling)
            else:
                self._take(filling)
        return filling

    def expire(self, now: float) -> list[InferRequest]:
        """Takes out every request whose deadline has passed."""
        if now < self._earliest_deadline:
            return []
        with self._lock:
            self._line_up()
            waiting = list(self._waiting())
            expired = [request for request in waiting if request.deadline <= now]
            for request in expired:
                self._remove(request)
            self._earliest_deadline = min(
                (request.deadline for request in waiting if request.deadline > now), default=math.inf
            )
            return expired

    def oldest(self) -> float:
        """When the request came that has waited longest; infinity where nothing waits."""
        with self._lock:
            self._line_up()
            return min((group.longest_waiting()[0] for group in self._groups.values()), default=math.inf)

    def earliest_deadline(self) -> float:
        """The earliest deadline of all that wait, or an earlier one; infinity where nobody has one."""
        return self._earliest_deadline

    def next_batch(self, max_rows: int) -> tuple[int, RunCost]:
        """About how many rows the next batch has, and what runs of its shapes take."""
        rows = self.rows
        with self._lock:
            if self._only is not None:
                return self._only.rows, self._costs.of(self._only.shape_key)
            if not self._groups:
                return 0, self._costs.first
            key = self._groups.most_urgent()
            if rows > max_rows:  # a larger request runs alone
                heads = (lane.head() for lane in self._groups[key].lanes)
                rows = max(max_rows, next((head.rows for head in heads if head is not None), 0))
            return rows, self._costs.of(key)

    def rows_ahead(self, request: InferRequest, now: float) -> float:
        """How many rows will be taken before a request that comes now, as if what waits were due evenly."""
        with self._lock:
            self._line_up()
        index = _class_of(request)
        ahead: float = sum(self._class_rows[:index])
        span = self._latest_due[index] - now
        share = (due_of(request) - now) / span if span > 0.0 else 1.0
        return ahead + self._class_rows[index] * min(share, 1.0)

    def _let_in(self, request: InferRequest) -> None:
        if self.rows or self._shares is not None:
            self._line_up()
            self._into_group(request)
        else:
            self._only = request
        if request.deadline < self._earliest_deadline:
            self._earliest_deadline = request.deadline
        rows, size, total = request.rows or 1, request.size, self._total
        self.rows += rows
        self.bytes += size
        total.rows += rows
        total.bytes += size
        if self._shares is not None:
            self._shares.add(request, request.sender)
        elif self.rows > self._half.rows or self.bytes > self._half.bytes:
            self._line_up()
            self._shares = Shares(self._bounds, self._waiting())

    def _line_up(self) -> None:
        """Puts what has waited alone into its group.

        Most requests find an empty queue and are taken before another one comes. To group them would cost
        as much as all else that the queue does; so that waits until there is somebody to be ordered with.
        """
        if self._only is not None:
            self._into_group(self._only)
            self._only = None

    def _into_group(self, request: InferRequest) -> None:
        index = _class_of(request)
        key, groups = request.shape_key, self._groups
        group = groups.get(key)
        if group is None:
            group = groups.begin(key)
        due = group.lanes[index].put(request)
        if groups.heap is not None:
            groups.came(key, group)
        class_rows = self._class_rows
        if due > self._latest_due[index] or not class_rows[index]:
            self._latest_due[index] = due
        class_rows[index] += request.rows or 1

    def _check_room(self, request: InferRequest, now: float) -> None:
        rows, size = request.rows or 1, request.size
        if self._shares is not None:
            self._shares.check(request, request.sender, now)
        if self.rows:
            self._bounds.check("the queue is", self, rows, size)
        self._total.bounds.check("the queues of all models are", self._total, rows, size)

    def _missing(self, request: InferRequest, now: float) -> tuple[Shares | None, tuple[int, int]]:
        """How many rows and bytes a request brings too many, and the shares if its caller has his."""
        rows, size, total = request.rows or 1, request.size, self._total
        try:
            if self._shares is not None:
                self._shares.check(request, request.sender, now)
        except QueueFull:
            return self._shares, (rows, size)
        return None, (
            max(self.rows + rows - self._bounds.rows, total.rows + rows - total.bounds.rows),
            max(self.bytes + size - self._bounds.bytes, total.bytes + size - total.bounds.bytes),
        )

    def _giving_way_to(self, request: InferRequest) -> Iterator[InferRequest]:
        """What waits of lower classes: of the lowest first, and who came last before the others."""
        for index in range(LOW, _class_of(request), -1):
            lines = (group.lanes[index].newest_first() for group in self._groups.values())
            yield from heapq.merge(*lines, key=lambda each: -each.arrived)

    def _is_quiet(self) -> bool:
        """Whether so little waits that nobody keeps anybody out: far less than where it becomes crowded."""
        half = self._half
        return 2 * self.rows < half.rows and 2 * self.bytes < half.bytes

    def _take_only(self, request: InferRequest, filling: Taken) -> None:
        filling.cost = self._costs.of(request.shape_key)
        if request.deadline != math.inf and filling.is_late(request, self.rows):
            filling.late.append(request)
        else:
            filling.takes(request)
        self._only, self._earliest_deadline = None, math.inf
        self._total.rows -= self.rows
        self._total.bytes -= self.bytes
        self.rows = self.bytes = 0

    def _take(self, filling: Taken) -> None:
        self._takes += 1
        if self._takes % AGED_TURN == 0:
            self._begin_with_aged(filling)
        while self._groups and not filling.batch:
            self._fill(self._groups.most_urgent(), filling)
        if not self._groups:
            self._earliest_deadline = math.inf
        if self._shares is not None and self._is_quiet():
            self._shares = None

    def _begin_with_aged(self, filling: Taken) -> None:
        """Begins the batch with the request that has waited longest, if it has waited long."""
        key = self._groups.longest_waiting()
        arrived, index = self._groups[key].longest_waiting() if self._groups else (math.inf, LOW)
        if arrived + AGED_SECONDS <= filling.now:
            filling.cost = self._costs.of(key)
            lane = self._groups[key].lanes[index]
            self._move(index, lane, lane.oldest(), filling)
            if filling.batch:
                self._fill(key, filling)
            else:
                self._forget_if_empty(key)

    def _fill(self, key: object, filling: Taken) -> None:
        """Fills the batch from one group, as far as there is room.

        Where the first one is too late, nothing more is taken: another group may be more urgent now.
        """
        filling.cost = self._costs.of(key)
        for index, lane in enumerate(self._groups[key].lanes):
            # Most have no priority: the empty lanes are not even looked at.
            while self._class_rows[index] and (request := lane.head()) is not None:
                if not self._move(index, lane, request, filling):
                    return
                if not filling.batch:
                    self._forget_if_empty(key)
                    return
        self._groups.forget(key)

    def _move(self, index: int, lane: Lane, request: InferRequest, filling: Taken) -> bool:
        """Takes a request out, into the batch or as too late; False where it stays for the next batch."""
        if request.deadline != math.inf and filling.is_late(request, self.rows):
            filling.late.append(request)
        elif not filling.takes(request):
            return False
        self._take_out(index, lane, request)
        return True

    def _take_out(self, index: int, lane: Lane, request: InferRequest) -> None:
        lane.remove(request)
        rows, size, total = request.rows or 1, request.size, self._total
        self.rows -= rows
        self.bytes -= size
        total.rows -= rows
        total.bytes -= size
        self._class_rows[index] -= rows
        if self._shares is not None:
            self._shares.remove(request)

    def _waiting(self) -> Iterator[InferRequest]:
        for group in self._groups.values():
            for lane in group.lanes:
                yield from lane.requests()

    def _remove(self, request: InferRequest) -> bool:
        group = self._groups.get(request.shape_key)
        if group is None:
            return False
        index = _class_of(request)
        lane = group.lanes[index]
        if request not in lane:
            return False
        self._take_out(index, lane, request)
        self._forget_if_empty(request.shape_key)
        return True

    def _forget_if_empty(self, key: object) -> None:
        if self._groups[key].first() is None:
            self._groups.forget(key)


def _class_of(request: InferRequest) -> int:
    priority = request.priority
    return NORMAL if priority == 0 else HIGH if priority > 0 else LOW
