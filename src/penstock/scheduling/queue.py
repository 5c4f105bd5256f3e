"""The queue before one model: bounded, in order of arrival within a priority, grouped by shape.

It is a plain data structure that is handed the time, so every rule can be tested without waiting.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict

from penstock.errors import DeadlineExpired, QueueFull
from penstock.messages import InferRequest

HIGH, NORMAL, LOW = range(3)

# In order of arrival. Not a deque, in which finding one request among thousands takes as many steps: when
# a stream ends, all of its requests are taken out one by one.
_Lane = OrderedDict[InferRequest, None]


class _Group:
    """The requests that may share a batch: one lane for each class of priority."""

    __slots__ = ("lanes",)

    def __init__(self) -> None:
        self.lanes: tuple[_Lane, ...] = (OrderedDict(), OrderedDict(), OrderedDict())

    def head(self) -> tuple[int, InferRequest] | None:
        """What is next here, and its lane; None when empty."""
        for index, lane in enumerate(self.lanes):
            if lane:
                return index, next(iter(lane))
        return None

    def oldest(self) -> float:
        """The arrival of the request that has waited longest; never, when empty."""
        return min((next(iter(lane)).arrived for lane in self.lanes if lane), default=math.inf)


class RequestQueue:
    """Requests that wait for one model.

    A request of no rows counts as one, so that `rows` is 0 only where nothing waits.

    Args:
        max_rows: the most rows that may wait. A single request larger than that is let in alone.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._groups: dict[object, _Group] = {}
        self._lock = threading.Lock()
        self._rows = 0
        self._earliest_deadline = math.inf  # of all that wait; may be that of one taken since

    @property
    def rows(self) -> int:
        """The rows that wait, cancelled ones not counted."""
        return self._rows

    def put(self, request: InferRequest, now: float) -> None:
        """Lets a request in.

        Raises:
            QueueFull: it would make the rows that wait too many.
            DeadlineExpired: its deadline has passed already.
        """
        if request.deadline <= now:
            raise DeadlineExpired("the deadline had passed when the request arrived")
        rows = request.rows or 1
        with self._lock:
            if self._rows and self._rows + rows > self._max_rows:
                raise QueueFull(
                    f"the queue is full: {self._rows} rows wait, {rows} more came, "
                    f"{self._max_rows} is the most"
                )
            group = self._groups.get(request.shape_key)
            if group is None:
                group = self._groups[request.shape_key] = _Group()
            priority = request.priority
            group.lanes[NORMAL if priority == 0 else HIGH if priority > 0 else LOW][request] = None
            self._rows += rows
            if request.deadline < self._earliest_deadline:
                self._earliest_deadline = request.deadline

    def discard(self, request: InferRequest) -> bool:
        """Takes a request out whose caller has gone: its rows count no more, and it will not run.

        Returns:
            Whether it was waiting; False where it has been taken already.
        """
        with self._lock:
            return self._remove(request)

    def take(self, max_rows: int, now: float) -> tuple[list[InferRequest], list[InferRequest]]:
        """Takes the next batch out.

        It begins with the most urgent request and holds only such as may run with it. A request of
        more than `max_rows` rows comes alone.

        Args:
            max_rows: the most rows of the batch.
            now: the time, by the clock of the deadlines.

        Returns:
            The batch, and the requests met on the way whose deadline has passed.
        """
        batch: list[InferRequest] = []
        expired: list[InferRequest] = []
        with self._lock:
            while self._groups and not batch:
                key = self._most_urgent()
                group = self._groups[key]
                head = group.head()
                if head and head[1].deadline <= now:  # it does not make its group the next one
                    self._take_out(group.lanes[head[0]], head[1], expired)
                else:
                    self._fill(group, max_rows, now, batch, expired)
                if group.head() is None:
                    del self._groups[key]
            if not self._groups:
                self._earliest_deadline = math.inf
        return batch, expired

    def expire(self, now: float) -> list[InferRequest]:
        """Takes out every request whose deadline has passed."""
        if now < self._earliest_deadline:
            return []
        with self._lock:
            waiting = [request for group in self._groups.values() for lane in group.lanes for request in lane]
            expired = [request for request in waiting if request.deadline <= now]
            for request in expired:
                self._remove(request)
            self._earliest_deadline = min(
                (request.deadline for request in waiting if request.deadline > now), default=math.inf
            )
            return expired

    def due(self, max_rows: int, max_delay_seconds: float, spare_seconds: float, now: float) -> float:
        """When the next batch is to run: `now` or before if at once, infinity if nothing waits.

        Args:
            max_rows: the rows of a full batch, which is never held back.
            max_delay_seconds: how long a request may be held back for others to fill the batch.
            spare_seconds: how long before the earliest deadline holding back ends.
            now: the time, by the clock of the deadlines.
        """
        if not self._rows:
            return math.inf
        if not max_delay_seconds or self._rows >= max_rows:
            return now
        with self._lock:
            oldest = min((group.oldest() for group in self._groups.values()), default=math.inf)
            return min(oldest + max_delay_seconds, self._earliest_deadline - spare_seconds)

    def next_rows(self) -> int:
        """The rows of the most urgent request; 0 where nothing waits."""
        with self._lock:
            head = self._groups[self._most_urgent()].head() if self._groups else None
            return head[1].rows if head else 0

    def _most_urgent(self) -> object:
        """The key of the group whose head is next."""
        if len(self._groups) == 1:
            return next(iter(self._groups))
        return min(self._groups, key=self._urgency)

    def _urgency(self, key: object) -> tuple[int, float]:
        head = self._groups[key].head()
        return (head[0], head[1].arrived) if head else (LOW + 1, math.inf)

    def _fill(
        self,
        group: _Group,
        max_rows: int,
        now: float,
        batch: list[InferRequest],
        expired: list[InferRequest],
    ) -> None:
        room = max_rows
        for lane in group.lanes:
            while lane:
                request = next(iter(lane))
                if request.deadline <= now:
                    self._take_out(lane, request, expired)
                elif request.rows <= room or not batch:
                    self._take_out(lane, request, batch)
                    room -= request.rows
                else:
                    return

    def _take_out(self, lane: _Lane, request: InferRequest, to: list[InferRequest]) -> None:
        del lane[request]
        self._rows -= request.rows or 1
        to.append(request)

    def _remove(self, request: InferRequest) -> bool:
        group = self._groups.get(request.shape_key)
        lane = next((lane for lane in group.lanes if request in lane), None) if group else None
        if group is None or lane is None:
            return False
        del lane[request]
        self._rows -= request.rows or 1
        if group.head() is None:
            del self._groups[request.shape_key]
        return True
