"""Decides which thread runs a batch.

A run expected to be short is done by the polling thread itself, once it has taken every event that is
ready: a hand-over to another thread costs more than the run. Longer runs go to runner threads, so that
polling goes on and several batches use the cores at once. Both call the same `DynamicBatcher.run_once`.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from penstock.scheduling.batcher import DynamicBatcher


class Runners:
    """The polling thread's share of the work, and the pool of threads for the rest.

    Args:
        threads: the size of the pool.
        inline_below_seconds: runs expected to take less are the polling thread's.
        failed: told of an exception that a run let out.
    """

    def __init__(
        self, threads: int, inline_below_seconds: float, failed: Callable[[BaseException], None]
    ) -> None:
        self._border = inline_below_seconds
        self._failed = failed
        self._polling_thread: int | None = None
        self._touched: dict[DynamicBatcher, None] = {}
        self._work: deque[DynamicBatcher] = deque()
        self._queued: set[DynamicBatcher] = set()  # what is in _work
        self._timed: set[DynamicBatcher] = set()  # what is in _delayed
        self._delayed: list[tuple[float, int, DynamicBatcher]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"penstock-runner-{index}", daemon=True)
            for index in range(threads)
        ]

    def start(self, polling_thread: int | None) -> None:
        """Starts the threads.

        Args:
            polling_thread: the identifier of the thread that will call `work_inline`.
        """
        self._polling_thread = polling_thread
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads once each has finished its run."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def touch(self, batcher: DynamicBatcher) -> None:
        """Says that a batcher has something new in its queue."""
        if threading.get_ident() == self._polling_thread:
            self._touched[batcher] = None  # until every event that is ready has been taken
        else:
            self._hand_over(batcher)

    def work_inline(self) -> bool:
        """The polling thread's part: runs what is short, hands over what is not.

        Returns:
            Whether more is waiting for the polling thread.
        """
        if not self._touched:
            return False
        touched, self._touched = self._touched, {}
        for batcher in touched:
            if batcher.policy.max_delay_seconds or batcher.expected_seconds() > self._border:
                self._hand_over(batcher)
            else:
                self._run(batcher)
                if batcher.waiting_rows and batcher.may_run():
                    self._touched[batcher] = None
        return bool(self._touched)

    def _hand_over(self, batcher: DynamicBatcher) -> None:
        """Queues a batcher for the runner threads, now or for when its delay is over."""
        if not batcher.may_run():
            return  # whoever ends a run of it looks at its queue again
        now = time.monotonic()
        due = batcher.due(now)
        with self._changed:
            if due <= now:
                if batcher in self._queued:
                    return
                self._queued.add(batcher)
                self._work.append(batcher)
            elif batcher in self._timed or due == math.inf:
                return
            else:
                self._timed.add(batcher)
                heapq.heappush(self._delayed, (due, id(batcher), batcher))
            self._changed.notify()

    def _serve(self) -> None:
        while (batcher := self._next()) is not None:
            if batcher.wants_another_runner():
                self._hand_over(batcher)
            self._run(batcher)
            if batcher.waiting_rows:
                self._hand_over(batcher)

    def _run(self, batcher: DynamicBatcher) -> None:
        try:
            batcher.run_once()
        except Exception as error:
            self._failed(error)

    def _next(self) -> DynamicBatcher | None:
        """Waits for work; None when it is time to stop."""
        while not self._stopping:
            with self._changed:
                if self._work:
                    batcher = self._work.popleft()
                    self._queued.discard(batcher)
                    return batcher
                now = time.monotonic()
                if not self._delayed or self._delayed[0][0] > now:
                    self._changed.wait(self._delayed[0][0] - now if self._delayed else None)
                    continue
                batcher = heapq.heappop(self._delayed)[2]
                self._timed.discard(batcher)
            self._hand_over(batcher)  # it may have been emptied since, or be due later now
        return None
