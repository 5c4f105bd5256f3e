"""Threads that run batches in simulated time: one thread moves at a time, and only as far as it is let.

Everything happens in an order that the events' times settle, so what was found once is found again.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from penstock.backends.backend import RunControl
from penstock.scheduling import batcher
from penstock.scheduling import sequence_batcher as sequences
from penstock.scheduling.execution import execution, failures

MODULES = (batcher, failures, execution, sequences)
"""The modules whose clock is replaced."""
BOUND_SECONDS = 20.0
READING = 2.0**-24
"""What every look at the clock takes, so that no two are the same."""


class Simulation:
    """A clock, what is to happen when, and the workers.

    Args:
        workers: how many threads there are.

    Attributes:
        now: the time.
        workers: the threads.
    """

    def __init__(self, workers: int) -> None:
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._acting: Worker | None = None
        self.workers = [Worker() for _ in range(workers)]

    def monotonic(self) -> float:
        """The time, for modules that take this for the module `time`."""
        self.now += READING
        return self.now

    def thread_time(self) -> float:
        """The CPU that a thread has used: its runs are all that takes time here."""
        return self.now

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Has something happen at a time, after what is to happen then already."""
        heapq.heappush(self._events, (when, next(self._order), what))

    @property
    def is_anything_to_come(self) -> bool:
        """Whether there is a next thing to happen."""
        return bool(self._events)

    def step(self) -> bool:
        """Lets the next thing happen; False if there is nothing left."""
        if not self._events:
            return False
        when, _, what = heapq.heappop(self._events)
        self.now = max(self.now, when)
        what()
        return True

    def idle(self) -> Worker | None:
        """A thread that has nothing to do, if there is one."""
        return next((each for each in self.workers if each.work is None), None)

    def let_act(self, worker: Worker) -> None:
        """Lets a thread go on until it pauses or is done."""
        self._acting = worker
        worker.go_on()
        self._acting = None

    def pause(self, seconds: float, stop: RunControl | None) -> None:
        """Called by the acting thread: time passes for it, unless its run is stopped."""
        worker = self._acting
        assert worker is not None
        pauses = worker.pauses = worker.pauses + 1

        def resume() -> None:
            if worker.pauses == pauses and worker.work is not None:
                worker.pauses += 1
                self.let_act(worker)

        self.at(self.now + seconds, resume)
        if stop is not None:
            stop.stop_with(lambda: self.at(self.now, resume))
        worker.pause()

    def close(self) -> None:
        """Ends the threads."""
        for each in self.workers:
            each.close()


class Worker:
    """A thread that does as it is told.

    Attributes:
        work: what it does; None where it has nothing to do.
        pauses: counts its pauses and their ends.
        errors: what its work has raised.
    """

    def __init__(self) -> None:
        self.work: Callable[[], object] | None = None
        self.pauses = 0
        self.errors: list[str] = []
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Lets the thread move, and waits until it pauses or is done."""
        self._go.release()
        assert self._done.acquire(timeout=BOUND_SECONDS), "a thread waits for another one"

    def pause(self) -> None:
        """Called by the thread itself: somebody else's turn."""
        self._done.release()
        self._go.acquire()
        if self._closed:
            raise _Ended

    def close(self) -> None:
        """Ends the thread, whatever it is doing."""
        self._closed = True
        self._go.release()
        self._thread.join(BOUND_SECONDS)

    def _serve(self) -> None:
        self._go.acquire()
        with contextlib.suppress(_Ended):
            while not self._closed:  # it may never have had anything to do
                assert self.work is not None
                try:
                    self.work()
                except Exception as error:
                    self.errors.append(repr(error))  # itself, it would hold what its frames hold
                self.work = None
                self.pause()


class _Ended(BaseException):
    """The thread is to end, whatever it is doing."""


@contextmanager
def simulated(workers: int) -> Iterator[Simulation]:
    """The scheduler's modules take the time from a simulation."""
    simulation = Simulation(workers)
    patches = [mock.patch.object(module, "time", simulation) for module in MODULES]
    for each in patches:
        each.start()
    try:
        yield simulation
    finally:
        for each in patches:
            each.stop()
        simulation.close()
