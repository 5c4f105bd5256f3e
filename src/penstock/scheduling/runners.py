"""Accepts requests, and chooses the thread that runs a batch: one that takes calls, or a runner thread.

A run that is expected to be short is done by the thread that has taken the requests (the one that polls gRPC,
or the one that serves HTTP), after it has handled every event that is ready: handing it over would cost more.
Longer runs go to runner threads, so that calls are taken meanwhile and several batches use the cores at once.

Models share the runner threads by their weights; see `fair_queue`.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from penstock.core.errors import RequestError, Unavailable
from penstock.core.request import Flush, Request
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.execution.run_times import LONG_SECONDS
from penstock.scheduling.fair_queue import FairQueue
from penstock.scheduling.inline import READ_SECONDS, Inline, Suspended
from penstock.scheduling.verification import Verifier

OVERRUN_SECONDS, OVERRUN_TIMES = LONG_SECONDS, 5
"""A run that used more CPU than this, and this many times what was expected, depends on more than its shapes.
No further run of its model is made by a thread that takes calls."""
IDLE_SECONDS = 0.1  # a run that takes this long but uses little CPU waits for something, such as a device
GATHER_SECONDS = 0.0005
"""How long a thread that takes calls may run batches, of any models, before streams send what has gathered.
A message costs as much as 50 predictions, so the answers of quick models to one leave in one message."""
LOOK_SECONDS = 0.005  # how often runs are checked for that


class Runners:
    """The share of the work of the threads that take calls, and the pool of threads for the rest.

    Args:
        threads: the size of the pool, beside which there are as many spare threads.
        inline_below_seconds: runs that are expected to take less are done by the threads that take calls.
        failed: called with an exception that a run has raised.

    Attributes:
        failed: as given.
        draining: whether further requests are rejected, because the server is stopping.
        on_accepted: called when the next request is accepted; None if nobody needs to know.
        verifier: runs requests again on a thread of its own, while there is nothing else to do.
    """

    def __init__(
        self, threads: int, inline_below_seconds: float, failed: Callable[[BaseException], None]
    ) -> None:
        self._inline_limit = inline_below_seconds
        self._overrun = max(OVERRUN_SECONDS, OVERRUN_TIMES * inline_below_seconds)
        self.failed = failed
        self.draining = False
        self.on_accepted: Callable[[], None] | None = None
        self.verifier = Verifier(failed)
        self._polling = Inline()
        self._inline: dict[int, Inline] = {}  # of each thread that takes calls
        self._suspended = Suspended()
        self._ready = FairQueue(threads)
        self._due: dict[DynamicBatcher, float] = {}  # when each batcher in _delayed is due
        self._delayed: list[tuple[float, int, DynamicBatcher]] = []
        self._order = itertools.count()  # of equal times
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"penstock-runner-{index}", daemon=True)
            for index in range(2 * threads)
        ]

    def start(self, polling_thread: int | None, flush_now: Callable[[], None] = lambda: None) -> None:
        """Starts the threads.

        Args:
            polling_thread: the identifier of the thread that will call `work_inline`.
            flush_now: called on that thread when a full batch waits for it.
        """
        if polling_thread is not None:
            self._polling.flush_now = flush_now
            self._inline[polling_thread] = self._polling
        for thread in self._threads:
            thread.start()
        self.verifier.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Ends the threads, each once it has finished its run.

        Args:
            seconds: how long to wait for that; None for as long as it takes.

        Returns:
            Whether all threads have ended. A run cannot be stopped here; its thread ends with the process.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if end is None else max(end - time.monotonic(), 0.0))
        verifier_ended = self.verifier.stop(None if end is None else max(end - time.monotonic(), 0.0))
        return verifier_ended and not any(thread.is_alive() for thread in self._threads)

    def submit(self, batcher: DynamicBatcher, request: Request, accepted: bool = False) -> None:
        """Accepts a request, which gets exactly one answer or error through its `reply`.

        Returns at once. If the request is rejected, `reply` gets the error.

        Args:
            batcher: of the model that answers.
            request: the request.
            accepted: whether it came before the server began to stop, and was held: it is run all the same.
        """
        try:
            if self.draining and not accepted:
                raise Unavailable("the server is stopping and accepts no new requests")
            batcher.put(request)
        except RequestError as error:
            batcher.reject(request, error)
        else:
            self.notify(batcher)
            on_accepted = self.on_accepted
            if on_accepted is not None:
                on_accepted()

    def notify(self, batcher: DynamicBatcher) -> None:
        """Says that a request has been added to the queue of a batcher."""
        inline = self._inline.get(threading.get_ident())
        if inline is None:
            self._enqueue(batcher)
            return
        if inline.wake is not None:
            inline.wake_first()
        inline.notified[batcher] = None  # it is run after every event that is ready has been taken
        if batcher.is_full() and batcher.may_run():
            inline.flush_now()

    def join(self, wake: Callable[[], None]) -> Callable[[], bool]:
        """Makes the calling thread one that makes short runs itself, beside the one that polls gRPC.

        Args:
            wake: called on this thread when there is something to do for it.

        Returns:
            What does it, once the thread has taken every event that is ready; see `work_inline`.
        """
        inline = self._inline[threading.get_ident()] = Inline(wake=wake)
        return partial(self.work_inline, inline)

    def leave(self) -> None:
        """The calling thread, which had joined, makes no more runs; what waits goes to the runner threads.

        Work in turns is done first: its messages were accepted.
        """
        inline = self._inline[threading.get_ident()]
        while inline.turns:
            inline.take_turns()
        del self._inline[threading.get_ident()]
        for batcher in inline.notified:
            self._enqueue(batcher)

    def work_inline(self, inline: Inline | None = None) -> bool:
        """Does the short runs of the calling thread, and queues the others for the runner threads.

        Args:
            inline: its work; None for the thread that polls gRPC.

        Returns:
            Whether more waits for this thread.
        """
        inline = inline or self._polling
        if inline.notified:
            self._work_inline(inline)
        if inline.turns:
            inline.take_turns()
        return bool(inline.notified) or bool(inline.turns)

    def _work_inline(self, inline: Inline) -> None:
        notified, inline.notified = inline.notified, {}
        gathered: dict[Flush, None] = {}
        end = time.monotonic() + GATHER_SECONDS
        for batcher in notified:
            if self._is_long(batcher):
                self._enqueue(batcher)
                continue
            if self._run_inline(inline, batcher, gathered, end):
                inline.notified[batcher] = None
            if gathered and time.monotonic() >= end:  # other models' runs must not hold these answers up
                self._flush(gathered)
                end = time.monotonic() + GATHER_SECONDS
        if gathered:
            self._flush(gathered)

    def _flush(self, gathered: dict[Flush, None]) -> None:
        for flush in gathered:
            self._guarded(flush)
        gathered.clear()

    def flush_soon(self) -> None:
        """On a thread that takes calls: what waits for it is done before further events are taken."""
        if (inline := self._inline.get(threading.get_ident())) is not None:
            inline.flush_now()

    def takes_calls(self) -> bool:
        """Whether the calling thread is one that takes calls, and must not be held up."""
        return threading.get_ident() in self._inline

    def inline_threads(self) -> Sequence[int]:
        """The threads that take calls."""
        return tuple(self._inline)

    def take_turns(self, turn: Callable[[], bool]) -> None:
        """Does work that takes turns: on a thread that takes calls one at a time, on others all at once.

        Args:
            turn: takes one turn, and returns whether more are left. It must not raise an exception.
        """
        inline = self._inline.get(threading.get_ident())
        if inline is None:
            while turn():
                time.sleep(0)  # lets other threads have the interpreter
        elif turn():
            inline.wake_first()
            inline.turns.append(turn)

    def _run_inline(
        self, inline: Inline, batcher: DynamicBatcher, gathered: dict[Flush, None], end: float
    ) -> bool:
        """Runs one batch after another until nothing waits, or until the time `end`.

        Returns:
            Whether more waits.
        """
        while True:
            started = time.monotonic()
            if started - inline.cpu_read_at > READ_SECONDS:
                inline.cpu_read_at, inline.cpu_seconds = started, time.thread_time()
            try:
                batcher.run_once(gathered)
            except Exception as error:
                self.failed(error)
            now = time.monotonic()
            if now - started > self._overrun:
                self._took_too_long(batcher, inline.cpu_seconds)
            if not batcher.waiting_rows or not batcher.may_run():
                return False
            if now >= end or self._is_long(batcher):
                return True

    def _is_long(self, batcher: DynamicBatcher) -> bool:
        """Whether the next run is for the runner threads."""
        if batcher.policy.max_delay_seconds or not batcher.may_be_inline:
            return True
        if batcher.measured_seconds() > self._inline_limit:
            return True
        suspended = self._suspended.get(batcher)
        return suspended is not None and time.monotonic() < suspended[0]

    def _took_too_long(self, batcher: DynamicBatcher, cpu_before: float) -> None:
        """A run held up a thread that takes calls: it must not be followed by others of its model.

        How long a run takes may depend on the values of its inputs, which cannot be estimated.

        Args:
            batcher: of the model.
            cpu_before: the CPU that the thread had used before the run, in seconds.
        """
        thread = threading.get_ident()
        seconds = batcher.times.took.get(thread, 0.0)
        used = batcher.times.cpu_of_long_run(thread, cpu_before)
        if used > self._overrun:
            batcher.overran(used, self._inline_limit)
        elif seconds > IDLE_SECONDS:
            self._suspended.suspend(batcher)

    def _enqueue(self, batcher: DynamicBatcher) -> None:
        """Queues a batcher for the runner threads, now or for when its delay is over."""
        if not batcher.may_run():
            return  # the thread that ends a run of it will look at its queue again
        now = time.monotonic()
        due = batcher.due(now)
        with self._changed:
            if due <= now:
                self._ready.add(batcher)  # if it is there: a thread may have passed it over meanwhile
            elif due < self._due.get(batcher, math.inf):
                self._due[batcher] = due
                heapq.heappush(self._delayed, (due, next(self._order), batcher))
            else:
                return
            self._changed.notify()

    def _serve(self) -> None:
        while (batcher := self._next()) is not None:
            if batcher.wants_another_runner():
                self._enqueue(batcher)
            if batcher.may_be_inline:
                self._run_measured(batcher)
            else:
                self._guarded(batcher.run_once)
            with self._changed:
                self._ready.ended()
            if batcher.waiting_rows:
                self._enqueue(batcher)

    def _run_measured(self, batcher: DynamicBatcher) -> None:
        """Runs a batch, and finds out whether it took far longer than expected from its shapes."""
        expected, before = batcher.measured_seconds(), time.thread_time()
        self._guarded(batcher.run_once)
        used = batcher.times.cpu_of_long_run(threading.get_ident(), before)
        if used > self._overrun and used > OVERRUN_TIMES * expected:
            batcher.overran(used, expected)

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.failed(error)

    def _next(self) -> DynamicBatcher | None:
        """Waits for a batcher to run; None when the thread is to end."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                taken = self._ready.take()
                if taken is not None:
                    if self._ready:
                        self._changed.notify()  # another run may start beside it
                    return taken
                now = time.monotonic()
                if not self._delayed or self._delayed[0][0] > now:
                    self._changed.wait(self._wait_seconds(now))
                    continue
                due, _, batcher = heapq.heappop(self._delayed)
                if self._due.get(batcher) != due:
                    continue  # replaced by an earlier time
                del self._due[batcher]
            self._enqueue(batcher)  # its queue may have been emptied meanwhile, or be due later

    def _wait_seconds(self, now: float) -> float | None:
        """How long a thread waits for a change before it looks again; None for no limit."""
        until = self._delayed[0][0] - now if self._delayed else math.inf
        until = min(until, LOOK_SECONDS) if self._ready else until
        return None if until == math.inf else until
