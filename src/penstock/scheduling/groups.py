"""What waits for one model, in groups of requests that may share a batch, and which of these is next."""

from __future__ import annotations

import heapq
import itertools
import math
from itertools import islice
from typing import TypeAlias

from penstock.scheduling.lane import Lane

HIGH, NORMAL, LOW = range(3)
"""The classes of priority."""

FEW = 16
"""So many groups are looked at one by one. Where there are more, as where every request brings another shape,
a heap knows the most urgent one, and every look for those that have waited long takes in as many."""

SPARE = 64  # entries of the heap that may be there for nothing, besides as many as there are groups

Urgency: TypeAlias = tuple[int, float]
"""What groups are ordered by: the class of their first request, and when it is due."""
_Entry: TypeAlias = tuple[Urgency, int, object]


class Group:
    """The requests that may share a batch: one lane for each class of priority.

    Attributes:
        lanes: by class.
        entry: the group's place in the heap, if there is one.
    """

    __slots__ = ("entry", "lanes")

    def __init__(self) -> None:
        self.lanes = (Lane(), Lane(), Lane())
        self.entry: _Entry | None = None

    def first(self) -> int | None:
        """The class of what is next here; None when empty."""
        for index, lane in enumerate(self.lanes):
            if lane:
                return index
        return None

    def urgency(self) -> Urgency:
        """What the groups are ordered by."""
        first = self.first()
        return (LOW + 1, math.inf) if first is None else (first, self.lanes[first].due())

    def longest_waiting(self) -> tuple[float, int]:
        """When the request came that has waited longest, and its class; never, when empty."""
        return min(
            ((lane.oldest().arrived, index) for index, lane in enumerate(self.lanes) if lane),
            default=(math.inf, LOW),
        )


class Groups(dict[object, Group]):
    """The groups in which anything waits, by what their requests have in common.

    Attributes:
        heap: their places by urgency, while there are many.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spare: Group | None = None  # an empty one: to make it costs more than all else of a request
        self.heap: list[_Entry] | None = None
        self._order = itertools.count()  # of equal ones

    def begin(self, key: object) -> Group:
        """A new group, which is about to get its first request."""
        group = self[key] = self._spare or Group()
        self._spare = None
        return group

    def forget(self, key: object) -> None:
        """Nothing waits in a group any more."""
        group = self._spare = self.pop(key)
        group.entry = None

    def came(self, key: object, group: Group) -> None:
        """Something has come to a group, which may be more urgent now. To be said where there is a heap."""
        assert self.heap is not None
        urgency = group.urgency()
        if group.entry is None or urgency < group.entry[0]:
            group.entry = (urgency, next(self._order), key)
            heapq.heappush(self.heap, group.entry)

    def most_urgent(self) -> object:
        """The key of the group whose first request is next; there must be one."""
        if len(self) == 1:
            return next(iter(self))
        if len(self) <= FEW:
            self.heap = None
            return min(self, key=lambda key: self[key].urgency())
        heap = self.heap
        if heap is None or len(heap) > 2 * len(self) + SPARE:
            heap = self.heap = self._built()
        while True:
            entry = heap[0]
            group = self.get(entry[2])
            if group is None or group.entry is not entry:
                heapq.heappop(heap)
                continue
            urgency = group.urgency()
            if urgency == entry[0]:
                return entry[2]
            group.entry = (urgency, next(self._order), entry[2])  # it has been more urgent
            heapq.heapreplace(heap, group.entry)

    def longest_waiting(self) -> object | None:
        """The key of the group in which a request has waited longest; None where nothing waits.

        Where there are many, of some of them, and next time of others.
        """
        looked_at = list(islice(self, FEW))
        longest = min(looked_at, key=lambda key: self[key].longest_waiting(), default=None)
        if len(self) > FEW:
            for key in looked_at:
                self[key] = self.pop(key)  # to the end
        return longest

    def _built(self) -> list[_Entry]:
        heap = []
        for key, group in self.items():
            group.entry = (group.urgency(), next(self._order), key)
            heap.append(group.entry)
        heapq.heapify(heap)
        return heap
