"""Penstock with another queue: first come, first served, and no request has a deadline or a priority.

    python benchmarks/programs/fifo_server.py plain|drop serve MODELS ...

What `benchmarks.overload` compares the scheduling with. `plain` runs whatever has been let in; `drop` takes
out what has timed out or been cancelled, as gRPC tells any server. All else is the server itself: its
transport, its limits and its runners.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import Any

from penstock.cli import main
from penstock.core.request import Request
from penstock.scheduling import batcher
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.queue.queue import BatchBuilder


class FirstComeQueue:
    """A plain line, with what the batcher asks of a `RequestQueue`."""

    drops = True
    earliest_deadline = math.inf

    def __init__(self, limits: QueueLimits, costs: RunCosts, total: QueueTotal | None = None) -> None:
        self.rows = self.bytes = 0
        self._limits, self._costs = limits, costs
        self._lock = (total or QueueTotal(limits)).lock
        self._line: OrderedDict[Request, None] = OrderedDict()

    def put(self, request: Request, now: float) -> None:
        with self._lock:
            full = self._limits.why_full("the queue is", self, request.rows or 1, request.size)
            if full is not None:
                raise full
            self._line[request] = None
            self._count(request, 1)

    def displace(self, request: Request, now: float) -> list[Request]:
        return []

    def take(self, max_rows: int, now: float) -> BatchBuilder:
        taken = BatchBuilder(max_rows, now)
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

    def discard(self, request: Request) -> bool:
        with self._lock:
            found = self.drops and request in self._line
            if found:
                self._remove(request)
        return found

    def expire(self, now: float) -> list[Request]:
        return []

    def oldest(self) -> float:
        with self._lock:
            return next((request.arrived for request in self._line), math.inf)

    def next_batch(self, max_rows: int) -> tuple[int, RunCost]:
        return min(self.rows, max_rows), self._costs.first

    def rows_ahead(self, request: Request, now: float) -> float:
        return float(self.rows)

    def _remove(self, request: Request) -> None:
        del self._line[request]
        self._count(request, -1)

    def _count(self, request: Request, sign: int) -> None:
        self.rows += sign * (request.rows or 1)
        self.bytes += sign * request.size


def without_deadline(put: Any) -> Any:
    """The batcher's `put` for requests that may take for ever: none is rejected for being late."""

    def wrapped(self: batcher.DynamicBatcher, request: Request) -> None:
        request.deadline = math.inf
        put(self, request)

    return wrapped


if __name__ == "__main__":
    FirstComeQueue.drops = sys.argv.pop(1) == "drop"
    batcher.RequestQueue = FirstComeQueue  # type: ignore[assignment, misc]
    batcher.DynamicBatcher.why_rejected = lambda self, request: None  # type: ignore[method-assign]
    batcher.DynamicBatcher.put = without_deadline(batcher.DynamicBatcher.put)  # type: ignore[method-assign]
    main()
