"""The queue before one model: bounded, by class of priority, by when requests are due, grouped by shape.

It is a plain data structure that is handed the time, so every rule can be tested without waiting:

- a higher class of priority goes first, and within a class what is due first;
- every eighth batch begins with the request that has waited longest, if it has waited long: nobody starves;
- requests of equal shapes share a batch, which is cut where one row more would make somebody late;
- what is late, or cannot be in time any more, leaves before it costs a run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from penstock.errors import DeadlineExpired, QueueFull
from penstock.messages import InferRequest
from penstock.scheduling.lane import Lane

HIGH, NORMAL, LOW = range(3)

AGED_SECONDS = 0.5
AGED_TURN = 8
"""Every so manieth batch begins with the request that has waited longest, if that is longer than
`AGED_SECONDS`. Seldom enough that a crowd of lower priority is hardly felt, often enough that it moves."""


class Cost(Protocol):
    """Knows what runs take.

    Attributes:
        is_known: whether it does; else it guesses.
    """

    is_known: bool

    def expect(self, rows: int) -> float:
        """How long a run of so many rows will take, in seconds."""

    def rows_within(self, seconds: float) -> float:
        """How many rows can be run in so many seconds."""


class Bounds(NamedTuple):
    """How much may wait.

    Attributes:
        rows: rows. A single request of more is let in alone.
        bytes: bytes of the messages. A single larger one is let in alone.
    """

    rows: int
    bytes: int = 2**63


class _Group:
    """The requests that may share a batch: one lane for each class of priority."""

    __slots__ = ("lanes",)

    def __init__(self) -> None:
        self.lanes = (Lane(), Lane(), Lane())

    def first(self) -> int | None:
        """The class of what is next here; None when empty."""
        for index, lane in enumerate(self.lanes):
            if lane:
                return index
        return None

    def urgency(self) -> tuple[int, float]:
        """What the groups are ordered by."""
        first = self.first()
        return (LOW + 1, math.inf) if first is None else (first, self.lanes[first].due())

    def longest_waiting(self) -> tuple[float, int]:
        """When the request came that has waited longest, and its class; never, when empty."""
        return min(
            ((lane.oldest().arrived, index) for index, lane in enumerate(self.lanes) if lane),
            default=(math.inf, LOW),
        )


class RequestQueue:
    """Requests that wait for one model.

    A request of no rows counts as one, so that `rows` is 0 only where nothing waits.

    Args:
        bounds: how much may wait.
        cost: what runs take.
    """

    def __init__(self, bounds: Bounds, cost: Cost) -> None:
        self._bounds = bounds
        self._cost = cost
        self._groups: dict[object, _Group] = {}
        self._lock = threading.Lock()
        self._rows = 0
        self._bytes = 0
        self._takes = 0
        self._earliest_deadline = math.inf  # of all that wait; may be that of one taken since

    @property
    def rows(self) -> int:
        """The rows that wait, cancelled ones not counted."""
        return self._rows

    @property
    def bytes(self) -> int:
        """The bytes that wait."""
        return self._bytes

    def put(self, request: InferRequest, now: float) -> None:
        """Lets a request in.

        Raises:
            QueueFull: it would make too much wait.
            DeadlineExpired: its deadline has passed already.
        """
        if request.deadline <= now:
            raise DeadlineExpired("the deadline had passed when the request arrived")
        rows = request.rows or 1
        with self._lock:
            if self._rows:
                self._check_room(rows, request.size)
            group = self._groups.get(request.shape_key)
            if group is None:
                group = self._groups[request.shape_key] = _Group()
            group.lanes[_class_of(request)].put(request)
            self._rows += rows
            self._bytes += request.size
            if request.deadline < self._earliest_deadline:
                self._earliest_deadline = request.deadline

    def discard(self, request: InferRequest) -> bool:
        """Takes a request out whose caller has gone: it counts no more, and will not run.

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
            The batch, and the requests met on the way that are late or cannot be in time any more.
        """
        filling = _Filling(max_rows, now, self._cost)
        with self._lock:
            self._takes += 1
            if self._takes % AGED_TURN == 0:
                self._begin_with_aged(filling)
            while self._groups and not filling.batch:
                self._fill(self._most_urgent(), filling)
            if not self._groups:
                self._earliest_deadline = math.inf
        return filling.batch, filling.late

    def expire(self, now: float) -> list[InferRequest]:
        """Takes out every request whose deadline has passed."""
        if now < self._earliest_deadline:
            return []
        with self._lock:
            waiting = list(self._waiting())
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
            oldest = min((group.longest_waiting()[0] for group in self._groups.values()), default=math.inf)
            return min(oldest + max_delay_seconds, self._earliest_deadline - spare_seconds)

    def next_rows(self) -> int:
        """The rows of the most urgent request; 0 where nothing waits."""
        with self._lock:
            group = self._groups[self._most_urgent()] if self._groups else None
            heads = [lane.head() for lane in group.lanes] if group else []
            return next((head.rows for head in heads if head is not None), 0)

    def _check_room(self, rows: int, size: int) -> None:
        bounds = self._bounds
        if self._rows + rows > bounds.rows:
            raise QueueFull(
                f"the queue is full: {self._rows} rows wait, {rows} more came, {bounds.rows} is the most"
            )
        if self._bytes + size > bounds.bytes:
            raise QueueFull(
                f"the queue is full: {self._bytes} bytes wait, {size} more came, {bounds.bytes} is the most"
            )

    def _most_urgent(self) -> object:
        """The key of the group whose head is next."""
        if len(self._groups) == 1:
            return next(iter(self._groups))
        return min(self._groups, key=lambda key: self._groups[key].urgency())

    def _begin_with_aged(self, filling: _Filling) -> None:
        """Begins the batch with the request that has waited longest, if it has waited long."""
        key = min(self._groups, key=lambda key: self._groups[key].longest_waiting(), default=None)
        arrived, index = self._groups[key].longest_waiting() if self._groups else (math.inf, LOW)
        if arrived + AGED_SECONDS <= filling.now:
            lane = self._groups[key].lanes[index]
            self._move(lane, lane.oldest(), filling)
            if filling.batch:
                self._fill(key, filling)
            else:
                self._forget_if_empty(key)

    def _fill(self, key: object, filling: _Filling) -> None:
        """Fills the batch from one group, as far as there is room.

        Where the first one is too late, nothing more is taken: another group may be more urgent now.
        """
        group = self._groups[key]
        for lane in group.lanes:
            while (request := lane.head()) is not None:
                if not self._move(lane, request, filling):
                    return
                if not filling.batch:
                    self._forget_if_empty(key)
                    return
        del self._groups[key]

    def _move(self, lane: Lane, request: InferRequest, filling: _Filling) -> bool:
        """Takes a request out, into the batch or as too late; False where it stays for the next batch."""
        if request.deadline != math.inf and filling.is_late(request, self._rows):
            filling.late.append(request)
        elif not filling.takes(request):
            return False
        self._take_out(lane, request)
        return True

    def _take_out(self, lane: Lane, request: InferRequest) -> None:
        lane.remove(request)
        self._rows -= request.rows or 1
        self._bytes -= request.size

    def _waiting(self) -> Iterator[InferRequest]:
        for group in self._groups.values():
            for lane in group.lanes:
                yield from lane.requests()

    def _remove(self, request: InferRequest) -> bool:
        group = self._groups.get(request.shape_key)
        if group is None:
            return False
        lane = group.lanes[_class_of(request)]
        if request not in lane:
            return False
        self._take_out(lane, request)
        self._forget_if_empty(request.shape_key)
        return True

    def _forget_if_empty(self, key: object) -> None:
        if self._groups[key].first() is None:
            del self._groups[key]


class _Filling:
    """A batch that is being made up.

    Attributes:
        batch: what is in it.
        late: what was met on the way and is too late for any.
        now: the time, by the clock of the deadlines.
    """

    __slots__ = ("_cost", "_earliest", "_room", "_rows", "batch", "late", "now")

    def __init__(self, max_rows: int, now: float, cost: Cost) -> None:
        self.batch: list[InferRequest] = []
        self.late: list[InferRequest] = []
        self.now = now
        self._cost = cost
        self._earliest = math.inf  # the earliest deadline in it
        self._room: float = max_rows
        self._rows = 0

    def is_late(self, request: InferRequest, waiting_rows: int) -> bool:
        """Whether a request's deadline has passed, or will have when its run ends.

        One that nobody waits behind is tried whatever is expected: else nobody would learn that runs take
        less time than they did.
        """
        deadline = request.deadline
        if deadline <= self.now:
            return True
        alone = not self.batch and waiting_rows <= (request.rows or 1)
        sure = self._cost.is_known and not alone
        return sure and self.now + self._cost.expect(request.rows) > deadline

    def takes(self, request: InferRequest) -> bool:
        """Adds a request, if there is room and nobody in the batch becomes late by it."""
        rows, room = request.rows, self._room
        if request.deadline < self._earliest:
            room = min(room, self._cost.rows_within(request.deadline - self.now) - self._rows)
        if rows > room and self.batch:
            return False
        if request.deadline < self._earliest:
            self._earliest = request.deadline
        self._room = room - rows
        self._rows += rows
        self.batch.append(request)
        return True


def _class_of(request: InferRequest) -> int:
    priority = request.priority
    return NORMAL if priority == 0 else HIGH if priority > 0 else LOW
