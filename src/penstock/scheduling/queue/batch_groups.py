"""Groups the waiting requests of a model by which may share a batch, and finds the most urgent group."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from penstock.core.request import Request
from penstock.scheduling.queue.fair_share import FairShare
from penstock.scheduling.queue.limits import LargeRequest, counted
from penstock.scheduling.queue.priority_line import PriorityLine, due_of

HIGH, NORMAL, LOW = range(3)
"""The classes of priority."""

FEW = 16
"""Up to this many groups, all are compared to find the most urgent. If there are more, as when every request
has another shape, a heap knows the most urgent group, and the search for the one that has waited longest
compares this many groups at a time."""

SPARE = 64  # outdated entries that the heap may hold besides one for each group

Urgency: TypeAlias = tuple[int, float]
"""What groups are ordered by: the class of their first request, and when it is due."""
_Entry: TypeAlias = tuple[Urgency, int, object]


class BatchGroup:
    """The requests that may share a batch.

    Attributes:
        lines: a line for each class of priority.
        entry: the group's entry in the heap, if there is one.
    """

    __slots__ = ("entry", "lines")

    def __init__(self) -> None:
        self.lines = (PriorityLine(), PriorityLine(), PriorityLine())
        self.entry: _Entry | None = None

    def first_class(self) -> int | None:
        """The class of the next request; None if the group is empty."""
        for index, line in enumerate(self.lines):
            if line:
                return index
        return None

    def urgency(self) -> Urgency:
        """What the groups are ordered by."""
        first = self.first_class()
        return (LOW + 1, math.inf) if first is None else (first, self.lines[first].due())

    def longest_waiting(self) -> tuple[float, int]:
        """When the request that has waited longest arrived, and its class; infinity if the group is empty."""
        return min(
            ((line.oldest().arrived, index) for index, line in enumerate(self.lines) if line),
            default=(math.inf, LOW),
        )


class BatchGroups(dict[object, BatchGroup]):
    """The groups of waiting requests, by their common `Request.shape_key`.

    Attributes:
        class_rows: the rows that wait, by class of priority.
        latest_due: when the last request of each class is due.
    """

    def __init__(self) -> None:
        super().__init__()
        self.class_rows = [0, 0, 0]
        self.latest_due = [-math.inf] * 3
        # An empty one to use again: creating a group is the most expensive step.
        self._spare: BatchGroup | None = None
        self._heap: list[_Entry] | None = None  # while there are many groups
        self._order = itertools.count()  # of equal entries

    def add(self, request: Request) -> None:
        """Puts a request into its group."""
        priority, key = request.priority, request.shape_key
        index = NORMAL if priority == 0 else HIGH if priority > 0 else LOW
        group = self.get(key)
        if group is None:
            group = self[key] = self._spare or BatchGroup()
            self._spare = None
        due = group.lines[index].put(request)
        if self._heap is not None:
            self._update_entry(key, group, self._heap)
        class_rows = self.class_rows
        if due > self.latest_due[index] or not class_rows[index]:
            self.latest_due[index] = due
        class_rows[index] += request.rows or 1

    def find(self, request: Request) -> tuple[int, PriorityLine] | None:
        """The class and the line in which a request waits; None if it does not wait."""
        group = self.get(request.shape_key)
        if group is None:
            return None
        index = class_of(request)
        line = group.lines[index]
        return (index, line) if request in line else None

    def take_all(self, rows: int) -> list[Request] | None:
        """Takes all requests out, which have so many rows, in the order in which they are due.

        Returns:
            None if this is not their order of arrival, or if they are of several groups or classes.
        """
        if len(self) != 1 or self.class_rows[NORMAL] != rows:
            return None
        [(key, group)] = self.items()
        requests = group.lines[NORMAL].take_all()
        if requests is not None:
            self.class_rows[NORMAL] = 0
            self.drop(key)
        return requests

    def drop(self, key: object) -> None:
        """Removes a group that is empty."""
        group = self._spare = self.pop(key)
        group.entry = None

    def drop_if_empty(self, key: object) -> None:
        """Removes a group if it is empty."""
        if self[key].first_class() is None:
            self.drop(key)

    def requests(self) -> Iterator[Request]:
        """All requests that wait."""
        for group in self.values():
            for line in group.lines:
                yield from line.requests()

    def has_lower_than(self, request: Request) -> bool:
        """Whether requests of lower classes wait."""
        return any(self.class_rows[class_of(request) + 1 :])

    def lower_than(self, request: Request) -> Iterator[Request]:
        """Waiting requests of lower classes: the lowest class first, in a class the last to arrive first."""
        for index in range(LOW, class_of(request), -1):
            lines = (group.lines[index].newest_first() for group in self.values())
            yield from heapq.merge(*lines, key=lambda each: -each.arrived)

    def in_place_of(
        self, request: Request, missing: tuple[int, int], share: FairShare | None, *large: LargeRequest
    ) -> list[Request]:
        """The requests of lower classes whose places are enough for a request; empty if there are too few.

        Args:
            request: the request.
            missing: how many rows and bytes it needs.
            share: if given, only places of its own sender are taken.
            large: the parts of large requests that do not count.
        """
        (rows, size), found = missing, []
        for each in self.lower_than(request):
            if rows <= 0 and size <= 0:
                break
            if share is None or share.holds(each, request.sender):
                found.append(each)
                freed_rows, freed_size = counted(each, *large)
                rows, size = rows - freed_rows, size - freed_size
        return [] if rows > 0 or size > 0 else found

    def rows_ahead(self, request: Request, now: float) -> float:
        """How many rows will be taken before a request that arrives now, if what waits is due evenly."""
        priority, class_rows = request.priority, self.class_rows  # as `class_of`, but without a call
        index = NORMAL if priority == 0 else HIGH if priority > 0 else LOW
        ahead: float = class_rows[0] if index == 1 else sum(class_rows[:index])
        span = self.latest_due[index] - now
        share = (due_of(request) - now) / span if span > 0.0 else 1.0
        return ahead + class_rows[index] * (share if share < 1.0 else 1.0)

    def first_deadline(self) -> float:
        """The deadline of the next request; infinity if there are several groups, or nothing waits."""
        if len(self) != 1:
            return math.inf
        [group] = self.values()
        for rows, line in zip(self.class_rows, group.lines, strict=True):
            if rows and (head := line.head()) is not None:
                return head.deadline
        return math.inf

    def most_urgent(self) -> object:
        """The key of the group whose first request is next; there must be a group."""
        if len(self) <= FEW:
            self._heap = None  # also of one group: each that is added would leave an entry in it
            return next(iter(self)) if len(self) == 1 else min(self, key=lambda key: self[key].urgency())
        heap = self._heap
        if heap is None or len(heap) > 2 * len(self) + SPARE:
            heap = self._heap = self._build_heap()
        while True:
            entry = heap[0]
            group = self.get(entry[2])
            if group is None or group.entry is not entry:
                heapq.heappop(heap)
                continue
            urgency = group.urgency()
            if urgency == entry[0]:
                return entry[2]
            group.entry = (urgency, next(self._order), entry[2])  # it has become less urgent
            heapq.heapreplace(heap, group.entry)

    def longest_waiting(self) -> object | None:
        """The key of the group with the request that has waited longest; None if nothing waits.

        If there are many groups, only some are compared, and others the next time.
        """
        compared = list(islice(self, FEW))
        longest = min(compared, key=lambda key: self[key].longest_waiting(), default=None)
        if len(self) > FEW:
            for key in compared:
                self[key] = self.pop(key)  # to the end
        return longest

    def _update_entry(self, key: object, group: BatchGroup, heap: list[_Entry]) -> None:
        """A request was added to a group, which may be more urgent now."""
        urgency = group.urgency()
        if group.entry is None or urgency < group.entry[0]:
            group.entry = (urgency, next(self._order), key)
            heapq.heappush(heap, group.entry)

    def _build_heap(self) -> list[_Entry]:
        heap = []
        for key, group in self.items():
            group.entry = (group.urgency(), next(self._order), key)
            heap.append(group.entry)
        heapq.heapify(heap)
        return heap


def class_of(request: Request) -> int:
    """The class of a request's priority."""
    priority = request.priority
    return NORMAL if priority == 0 else HIGH if priority > 0 else LOW
