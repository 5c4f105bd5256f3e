"""The requests of one class of priority, in the order in which they are due."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator

from penstock.core.request import Request

PATIENCE_SECONDS = 1.0
"""A request without a deadline is due this long after it arrived. Requests with closer deadlines pass it, but
not for ever."""

SPARE = 64  # outdated entries that the heap may hold besides one for each request


class PriorityLine:
    """Requests by when they are due; those due at the same time in their order of arrival.

    Callers mostly give all their requests the same timeout, or none. Then requests are due in their order of
    arrival, and a plain line is enough. Only when a request arrives that is due before another, a heap is
    added, until the line is empty. A request that leaves out of turn is removed from the line at once; its
    entry in the heap is skipped later.
    """

    __slots__ = ("_entries", "_heap", "_latest", "_line", "_order")

    def __init__(self) -> None:
        # In their order of arrival, with when they are due. Not a deque, in which finding one of thousands of
        # requests takes thousands of steps: when a stream ends, all its requests are taken out one by one.
        self._line: OrderedDict[Request, float] = OrderedDict()
        self._heap: list[_Entry] | None = None
        self._entries: dict[Request, _Entry] = {}  # of the requests in the line, while there is a heap
        self._order = itertools.count()
        self._latest = -math.inf  # when the last request of the line is due

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, request: Request) -> bool:
        return request in self._line

    def put(self, request: Request) -> float:
        """Adds a request, and returns when it is due."""
        due = request.arrived + PATIENCE_SECONDS
        if request.deadline < due:
            due = request.deadline
        if self._line and (self._heap is not None or due < self._latest):
            self._put_out_of_turn(request, due)
            return due
        self._line[request] = self._latest = due
        return due

    def head(self) -> Request | None:
        """The request that is due first; None if the line is empty."""
        heap = self._heap
        if heap is None or not self._line:
            return next(iter(self._line), None)
        while heap[0].request is None:
            heapq.heappop(heap)
        return heap[0].request

    def due(self) -> float:
        """When the head is due; infinity if the line is empty."""
        head = self.head()
        return math.inf if head is None else self._line[head]

    def oldest(self) -> Request:
        """The request that has waited longest; the line must not be empty."""
        return next(iter(self._line))

    def requests(self) -> list[Request]:
        """All requests, in their order of arrival."""
        return list(self._line)

    def newest_first(self) -> Iterator[Request]:
        """All requests, the last to arrive first."""
        return reversed(self._line)

    def take_all(self) -> list[Request] | None:
        """Takes all requests out, in their order of arrival; None if they are not due in that order."""
        if self._heap is not None:
            return None
        requests = list(self._line)
        self._line.clear()
        return requests

    def remove(self, request: Request) -> None:
        """Removes a request."""
        del self._line[request]
        if self._heap is not None:
            self._entries.pop(request).request = None  # so that the entry does not keep the request in memory
            if not self._line:
                self._heap = None

    def _put_out_of_turn(self, request: Request, due: float) -> None:
        """Adds a request that is due before another one, or while there is a heap."""
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
    """A request's entry in the heap; without the request once that has left."""

    __slots__ = ("due", "order", "request")

    def __init__(self, due: float, order: int, request: Request) -> None:
        self.due = due
        self.order = order
        self.request: Request | None = request

    def __lt__(self, other: _Entry) -> bool:
        return (self.due, self.order) < (other.due, other.order)


def due_of(request: Request) -> float:
    """When a request is due: at its deadline, or `PATIENCE_SECONDS` after it arrived."""
    due = request.arrived + PATIENCE_SECONDS
    return due if due < request.deadline else request.deadline
