"""The requests of one class of priority, in the order in which they are due."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator

from penstock.messages import InferRequest

PATIENCE_SECONDS = 1.0
"""A request without a deadline is due so long after it came: those with closer ones pass it, not for ever."""

SPARE = 64  # entries of the heap that may be there for nothing, besides as many as are there for something


class Lane:
    """Earliest due first; equal ones as they came.

    Callers mostly give all their requests the same time, or none: then they are due as they come, and the
    lane is a plain line. Only where one comes that is due before another, there is a heap as well, until the
    lane is empty. Who leaves out of turn is forgotten in the line at once, and skipped in the heap later.
    """

    __slots__ = ("_entries", "_heap", "_latest", "_line", "_order")

    def __init__(self) -> None:
        # As they came. Not a deque, in which finding one request among thousands takes as many steps: when a
        # stream ends, all of its requests are taken out one by one.
        self._line: OrderedDict[InferRequest, float] = OrderedDict()
        self._heap: list[_Entry] | None = None
        self._entries: dict[InferRequest, _Entry] = {}  # of those in the line, where there is a heap
        self._order = itertools.count()
        self._latest = -math.inf  # when the last one of the line is due

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, request: InferRequest) -> bool:
        return request in self._line

    def put(self, request: InferRequest) -> float:
        """Lets a request in, and says when it is due."""
        due = due_of(request)
        if self._line and (self._heap is not None or due < self._latest):
            self._put_out_of_turn(request, due)
            return due
        self._line[request] = self._latest = due
        return due

    def head(self) -> InferRequest | None:
        """The request that is due first; None where there is none."""
        heap = self._heap
        if heap is None or not self._line:
            return next(iter(self._line), None)
        while heap[0].request is None:
            heapq.heappop(heap)
        return heap[0].request

    def due(self) -> float:
        """When the head is due; infinity where there is none."""
        head = self.head()
        return math.inf if head is None else self._line[head]

    def oldest(self) -> InferRequest:
        """The request that has waited longest; there must be one."""
        return next(iter(self._line))

    def requests(self) -> list[InferRequest]:
        """All of them, as they came."""
        return list(self._line)

    def newest_first(self) -> Iterator[InferRequest]:
        """All of them, the other way round."""
        return reversed(self._line)

    def remove(self, request: InferRequest) -> None:
        """Lets a request out."""
        del self._line[request]
        if self._heap is not None:
            self._entries.pop(request).request = None  # it is not to be kept in memory by its place
            if not self._line:
                self._heap = None

    def _put_out_of_turn(self, request: InferRequest, due: float) -> None:
        """Lets a request in that is due before another, or comes after such a one."""
        self._line[request] = due
        self._latest = max(self._latest, due)
        heap = self._heap
        if heap is None or len(heap) > 2 * len(self._line) + SPARE:
            self._entries = {
                each: _Entry(known, next(self._order), each) for each, known in self._line.items()
            }
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        else:
            entry = self._entries[request] = _Entry(due, next(self._order), request)
            heapq.heappush(heap, entry)


class _Entry:
    """A request's place in the heap; empty once it has left."""

    __slots__ = ("due", "order", "request")

    def __init__(self, due: float, order: int, request: InferRequest) -> None:
        self.due = due
        self.order = order
        self.request: InferRequest | None = request

    def __lt__(self, other: _Entry) -> bool:
        return (self.due, self.order) < (other.due, other.order)


def due_of(request: InferRequest) -> float:
    """When a request is due: at its deadline, or a while after it came."""
    due = request.arrived + PATIENCE_SECONDS
    return due if due < request.deadline else request.deadline
