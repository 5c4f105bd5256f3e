"""The queue before one model: bounded, in order of arrival within a priority, grouped by shape.

It is a plain data structure that is handed the time, so every rule can be tested without waiting.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from penstock.errors import DeadlineExpired, QueueFull
from penstock.messages import InferRequest

HIGH, NORMAL, LOW = range(3)


class _Group:
    """The requests that may share a batch: one lane for each class of priority."""

    __slots__ = ("lanes",)

    def __init__(self) -> None:
        self.lanes: tuple[deque[InferRequest], ...] = (deque(), deque(), deque())

    def head(self) -> tuple[int, float] | None:
        """What is next here: its lane and arrival; None when empty."""
        for index, lane in enumerate(self.lanes):
            if lane:
                return index, lane[0].arrived
        return None

    def oldest(self) -> float:
        """The arrival of the request that has waited longest; never, when empty."""
        return min((lane[0].arrived for lane in self.lanes if lane), default=math.inf)


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
            group.lanes[NORMAL if priority == 0 else HIGH if priority > 0 else LOW].append(request)
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
                key = next(iter(self._groups)) if len(self._groups) == 1 else self._most_urgent()
                self._fill(self._groups[key], max_rows, now, batch, expired)
                if self._groups[key].head() is None:
                    del self._groups[key]
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

    def due(self, max_rows: int, max_delay_seconds: float, now: float) -> float:
        """When the next batch is to run: `now` or before if at once, infinity if nothing waits."""
        if not self._rows:
            return math.inf
        if not max_delay_seconds or self._rows >= max_rows:
            return now
        with self._lock:
            return (
                min((group.oldest() for group in self._groups.values()), default=math.inf) + max_delay_seconds
            )

    def _most_urgent(self) -> object:
        heads = ((group.head() or (LOW + 1, math.inf), key) for key, group in self._groups.items())
        return min(heads, key=lambda head: head[0])[1]

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
                request = lane[0]
                if request.deadline <= now:
                    expired.append(request)
                elif request.rows <= room or not batch:
                    batch.append(request)
                    room -= request.rows
                else:
                    return
                lane.popleft()
                self._rows -= request.rows or 1

    def _remove(self, request: InferRequest) -> bool:
        group = self._groups.get(request.shape_key)
        lane = next((lane for lane in group.lanes if request in lane), None) if group else None
        if group is None or lane is None:
            return False
        lane.remove(request)
        self._rows -= request.rows or 1
        if group.head() is None:
            del self._groups[request.shape_key]
        return True
