"""Shares the runner threads between models by their weights, by start-time fair queueing.

A virtual clock counts what each model has used, divided by its weight, and the model with the smallest start
tag is next (Goyal, Vin and Cheng 1996, "Start-time Fair Queuing"). If all cores are taken, a model of which
nothing runs may use a spare thread, unless it has used more for its weight than the models that run: the
operating system then shares the cores between them.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import NamedTuple

from penstock.scheduling.batcher import DynamicBatcher

PATIENCE = 4
"""A run that takes this many times longer than expected is charged for more than was expected."""


class _RunningTurn(NamedTuple):
    """A run of a runner thread that is going on.

    Attributes:
        batcher: of the model.
        start_tag: when it started, by the virtual clock.
        seconds: how long it is expected to take.
        started: when it started, by `time.monotonic()`.
    """

    batcher: DynamicBatcher
    start_tag: float
    seconds: float
    started: float

    def finish_tag(self, now: float) -> float:
        """When it ends by the virtual clock, which is the model's next start tag."""
        seconds = max(self.seconds, (now - self.started) / PATIENCE)
        return self.start_tag + _virtual(self.batcher, seconds)


def _virtual(batcher: DynamicBatcher, seconds: float) -> float:
    """How much of the virtual clock a run takes."""
    policy = batcher.policy
    return seconds * policy.cores / policy.weight


class FairQueue:
    """The batchers that are ready for a runner thread, and the runs of these threads. Its user has a lock.

    Args:
        cores: how many the runs may use, unless a model of which nothing runs waits.
    """

    def __init__(self, cores: int) -> None:
        self._ready: list[tuple[float, int, DynamicBatcher]] = []  # a heap by start tag
        self._queued: set[DynamicBatcher] = set()  # what is in _ready
        self._virtual_time = 0.0  # the start tag of the run that started last
        self._start_tags: dict[DynamicBatcher, float] = {}  # of each model's next run
        self._running: dict[int, _RunningTurn] = {}  # by thread
        self._cores = cores
        self._order = itertools.count()  # of equal tags

    def __bool__(self) -> bool:
        return bool(self._ready)

    def add(self, batcher: DynamicBatcher) -> None:
        """Adds a batcher, unless it waits already."""
        if batcher not in self._queued:
            self._queued.add(batcher)
            start_tag = max(self._virtual_time, self._start_tags.get(batcher, 0.0))
            heapq.heappush(self._ready, (start_tag, next(self._order), batcher))

    def take(self) -> DynamicBatcher | None:
        """Takes the batcher out whose turn it is, for the calling thread to run; None if no run may start."""
        index = self._next_index()
        if index is None:
            return None
        start_tag, _, batcher = self._ready[index]
        if index:
            del self._ready[index]
            heapq.heapify(self._ready)
        else:
            heapq.heappop(self._ready)
        self._queued.discard(batcher)
        self._virtual_time = start_tag
        turn = _RunningTurn(batcher, start_tag, batcher.expected_seconds(), time.monotonic())
        self._start_tags[batcher] = start_tag + _virtual(batcher, turn.seconds)
        self._running[threading.get_ident()] = turn
        return batcher

    def ended(self) -> None:
        """The run of the calling thread has ended."""
        del self._running[threading.get_ident()]

    def _next_index(self) -> int | None:
        """The index in `_ready` of the batcher whose run may start now; None if there is none."""
        running = self._running.values()
        if not running or not self._ready:
            return 0 if self._ready else None
        batchers = {each.batcher for each in running}
        free = self._cores - sum([each.batcher.policy.cores for each in running])
        now = time.monotonic()
        first_to_finish = min([each.finish_tag(now) for each in running])
        may_start = [
            (start_tag, order, index)
            for index, (start_tag, order, batcher) in enumerate(self._ready)
            if batcher.policy.cores <= free
            or (start_tag <= first_to_finish and batcher not in batchers and not batcher.running_batches)
        ]
        return min(may_start)[2] if may_start else None
