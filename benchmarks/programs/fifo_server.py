"""Penstock with another queue: first come, first served, and no request has a deadline or a priority.

    python benchmarks/programs/fifo_server.py plain|drop serve MODELS ...

What `benchmarks.overload` compares the scheduling with. `plain` runs whatever has been let in; `drop` takes
out what has timed out or been cancelled, as gRPC tells any server. All else is the server itself: its
transport, its bounds and its runners.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import Any

from penstock.cli import main
from penstock.messages import InferRequest
from penstock.scheduling import batcher
from penstock.scheduling.bounds import Bounds, Total
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue import Taken


class FirstComeQueue:
    """A plain line, with what the batcher asks of a `RequestQueue`."""

    drops = True

    def __init__(self, bounds: Bounds, costs: RunCosts, total: Total | None = None) -> None:
        self.rows = self.bytes = 0
        self._bounds, self._costs = bounds, costs
        self._lock = (total or Total(bounds)).lock
        self._line: OrderedDict[InferRequest, None] = OrderedDict()

    def put(self, request: InferRequest, now: float) -> None:
        with self._lock:
            self._bounds.check("the queue is", self, request.rows or 1, request.size)
            self._line[request] = None
            self._count(request, 1)

    def take(self, max_rows: int, now: float) -> Taken:
        taken = Taken(max_rows, now)
        with self._lock:
            for request in self._line:
                if taken.batch and request.shape_key != taken.batch[0].shape_key:
                    break
                if not taken.takes(request):
                    break
            for request in taken.batch:
                self._remove(request)
        if taken.batch:
            taken.cost = self._costs.of(taken.batch[0].shape_key)
        return taken

    def discard(self, request: InferRequest) -> bool:
        with self._lock:
            found = self.drops and request in self._line
            if found:
                self._remove(request)
        return found

    def expire(self, now: float) -> list[InferRequest]:
        return []

    def oldest(self) -> float:
        with self._lock:
            return next((request.arrived for request in self._line), math.inf)

    def earliest_deadline(self) -> float:
        return math.inf

    def next_batch(self, max_rows: int) -> tuple[int, RunCost]:
        return min(self.rows, max_rows), self._costs.first

    def rows_ahead(self, request: InferRequest, now: float) -> float:
        return float(self.rows)

    def _remove(self, request: InferRequest) -> None:
        del self._line[request]
        self._count(request, -1)

    def _count(self, request: InferRequest, sign: int) -> None:
        self.rows += sign * (request.rows or 1)
        self.bytes += sign * request.size


def without_deadline(put: Any) -> Any:
    """The batcher's `put` for requests that may take for ever: nobody is refused for being late."""

    def wrapped(self: batcher.DynamicBatcher, request: InferRequest) -> None:
        request.deadline = math.inf
        put(self, request)

    return wrapped


if __name__ == "__main__":
    FirstComeQueue.drops = sys.argv.pop(1) == "drop"
    batcher.RequestQueue = FirstComeQueue  # type: ignore[assignment, misc]
    batcher.DynamicBatcher.put = without_deadline(batcher.DynamicBatcher.put)  # type: ignore[method-assign]
    main()
