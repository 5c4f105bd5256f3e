"""Decides which thread runs a batch.

A run expected to be short is done by the polling thread itself, once it has taken every event that is
ready: a hand-over to another thread costs more than the run. Longer runs go to runner threads, so that
polling goes on and several batches use the cores at once. Both call the same `DynamicBatcher.run_once`.

Models share the runner threads by their weights: next is the one that has had least of them (start-time fair
queueing: Goyal, Vin and Cheng 1996). Where all are taken, one that has no run going may use a spare thread,
of which there are as many, unless it has had more for its weight than those that run: the operating system
shares the cores.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from penstock.messages import Flush
from penstock.scheduling.batcher import DynamicBatcher

FAR_TOO_LONG = 10  # times the border: a run on the polling thread that worked so long was a mistake
STOOD_SECONDS = 0.1  # a run that took so long without working waited for something, such as a device
GATHER_SECONDS = 0.0005
"""So long the polling thread may run batches one after another before streams send what has gathered, since
a message costs as much as 50 predictions. What came in one message leaves in one, if its model is quick."""
READ_SECONDS = 0.0005  # between readings of the thread's CPU clock, at least
AWAY_SECONDS = 1.0
MOST_AWAY_SECONDS = 3600.0
FORGIVEN_SECONDS = 60.0  # after which the next time away is a short one again


PATIENCE = 4
"""A run that takes so many times longer than expected has had more than was counted for it."""
LOOK_SECONDS = 0.005  # how often is looked whether one has


class _Turn(NamedTuple):
    """A run that goes on.

    Attributes:
        batcher: whose it is.
        turn: when its turn was, in the time that is counted by what models have had for their weights.
        seconds: how long it is expected to take.
        began: when it began, by `time.monotonic()`.
    """

    batcher: DynamicBatcher
    turn: float
    seconds: float
    began: float

    def end(self, now: float) -> float:
        """When its model's next turn is."""
        seconds = max(self.seconds, (now - self.began) / PATIENCE)
        return self.turn + _counted(self.batcher, seconds)


def _counted(batcher: DynamicBatcher, seconds: float) -> float:
    """By how much a run moves its model's next turn."""
    policy = batcher.policy
    return seconds * policy.cores / policy.weight


class _Worked:
    """How long the polling thread has worked, by its CPU clock.

    Reading that clock takes longer than much else that is done for a small batch, so a reading is kept for
    a while, which makes what is found since too large by no more than that.
    """

    __slots__ = ("_read_at", "_seconds")

    def __init__(self) -> None:
        self._read_at = -math.inf
        self._seconds = 0.0

    def note(self, now: float) -> None:
        """Takes a reading, unless the last one will do."""
        if now - self._read_at > READ_SECONDS:
            self._read_at, self._seconds = now, time.thread_time()

    def too_long(self, seconds: float, limit: float) -> bool:
        """Whether a run that took so long was none for this thread.

        Not by the clock alone: on a busy machine any thread may be held up for some milliseconds.
        """
        return seconds > STOOD_SECONDS or time.thread_time() - self._seconds > limit


class Runners:
    """The polling thread's share of the work, and the pool of threads for the rest.

    Args:
        threads: the size of the pool; there are as many spare threads.
        inline_below_seconds: runs expected to take less are the polling thread's.
        failed: told of an exception that a run let out.

    Attributes:
        failed: as given.
    """

    def __init__(
        self, threads: int, inline_below_seconds: float, failed: Callable[[BaseException], None]
    ) -> None:
        self._border = inline_below_seconds
        self._far_too_long = FAR_TOO_LONG * inline_below_seconds
        self._worked = _Worked()
        self.failed = failed
        self._polling_thread: int | None = None
        self._hurry: Callable[[], None]
        self._touched: dict[DynamicBatcher, None] = {}
        self._away: dict[DynamicBatcher, tuple[float, float]] = {}  # kept off: until when, for how long
        self._work: list[tuple[float, int, DynamicBatcher]] = []  # by when each one's turn is
        self._queued: set[DynamicBatcher] = set()  # what is in _work
        self._turns = 0.0  # the turn of who began last
        self._next_turn: dict[DynamicBatcher, float] = {}  # by what each has had of the threads
        self._going: dict[int, _Turn] = {}  # the runs that go on, by their threads
        self._cores = threads
        self._timed: dict[DynamicBatcher, float] = {}  # when each that is in _delayed is to be looked at
        self._delayed: list[tuple[float, int, DynamicBatcher]] = []
        self._order = itertools.count()  # of equal times
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"penstock-runner-{index}", daemon=True)
            for index in range(2 * threads)
        ]

    def start(self, polling_thread: int | None, hurry: Callable[[], None] = lambda: None) -> None:
        """Starts the threads.

        Args:
            polling_thread: the identifier of the thread that will call `work_inline`.
            hurry: called on that thread when a full batch waits for it.
        """
        self._polling_thread = polling_thread
        self._hurry = hurry
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Ends the threads, each once it has finished its run.

        Args:
            seconds: the longest to wait for that; None for as long as it takes.

        Returns:
            Whether all have ended. A run that goes on cannot be stopped; its thread ends with the process.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if end is None else max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def touch(self, batcher: DynamicBatcher) -> None:
        """Says that a batcher has something new in its queue."""
        if threading.get_ident() == self._polling_thread:
            self._touched[batcher] = None  # until every event that is ready has been taken
            if batcher.is_full() and batcher.may_run():
                self._hurry()
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
        now = time.monotonic()
        self._worked.note(now)
        for batcher in touched:
            if self._is_long(batcher):
                self._hand_over(batcher)
                continue
            gathered: dict[Flush, None] = {}
            if self._run_inline(batcher, gathered, now + GATHER_SECONDS):
                self._touched[batcher] = None
            for flush in gathered:  # of this model: no other one's run holds up its answers
                self._guarded(flush)
        return bool(self._touched)

    def _run_inline(self, batcher: DynamicBatcher, gathered: dict[Flush, None], end: float) -> bool:
        """Runs what waits, until a time where that takes several batches.

        Returns:
            Whether more is waiting.
        """
        while True:
            started = time.monotonic()
            self._guarded(batcher.run_once, gathered)
            now = time.monotonic()
            seconds = now - started
            if seconds > self._far_too_long and self._worked.too_long(seconds, self._far_too_long):
                self._send_away(batcher)
            if not batcher.waiting_rows or not batcher.may_run():
                return False
            if now >= end or self._is_long(batcher):
                return True

    def _is_long(self, batcher: DynamicBatcher) -> bool:
        """Whether the next run is none for the polling thread."""
        if batcher.policy.max_delay_seconds or batcher.expected_seconds() > self._border:
            return True
        away = self._away.get(batcher)
        return away is not None and time.monotonic() < away[0]

    def _send_away(self, batcher: DynamicBatcher) -> None:
        """Keeps a batcher off the polling thread for a while, twice as long as last time.

        What a run costs may depend on the values it gets, which nobody can expect. One such run must not be
        followed by others that hold up every caller.
        """
        now = time.monotonic()
        until, seconds = self._away.get(batcher, (0.0, 0.0))
        forgiven = now > until + FORGIVEN_SECONDS
        seconds = AWAY_SECONDS if forgiven else min(2 * seconds, MOST_AWAY_SECONDS)
        self._away[batcher] = (now + seconds, seconds)

    def _hand_over(self, batcher: DynamicBatcher) -> None:
        """Queues a batcher for the runner threads, now or for when its delay is over."""
        if not batcher.may_run():
            return  # whoever ends a run of it looks at its queue again
        now = time.monotonic()
        due = batcher.due(now)
        with self._changed:
            if due <= now:
                if batcher in self._queued:
                    self._changed.notify()  # it may have been passed over while it was run inline
                    return
                self._queued.add(batcher)
                turn = max(self._turns, self._next_turn.get(batcher, 0.0))
                heapq.heappush(self._work, (turn, next(self._order), batcher))
            elif due < self._timed.get(batcher, math.inf):
                self._timed[batcher] = due
                heapq.heappush(self._delayed, (due, next(self._order), batcher))
            else:
                return
            self._changed.notify()

    def _serve(self) -> None:
        while (batcher := self._next()) is not None:
            if batcher.wants_another_runner():
                self._hand_over(batcher)
            self._guarded(batcher.run_once)
            with self._changed:
                del self._going[threading.get_ident()]
            if batcher.waiting_rows:
                self._hand_over(batcher)

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.failed(error)

    def _place(self) -> int | None:
        """Where in `_work` that is of which a run may begin now; None where there is nothing."""
        going = self._going.values()
        if not going or not self._work:
            return 0 if self._work else None
        running = {each.batcher for each in going}
        free = self._cores - sum([each.batcher.policy.cores for each in going])
        now = time.monotonic()
        end = min([each.end(now) for each in going])
        may_begin = [
            (turn, order, place)
            for place, (turn, order, batcher) in enumerate(self._work)
            if batcher.policy.cores <= free
            or (turn <= end and batcher not in running and not batcher.running)
        ]
        return min(may_begin)[2] if may_begin else None

    def _taken(self) -> _Turn | None:
        """Takes the batcher out whose turn it is."""
        place = self._place()
        if place is None:
            return None
        turn, _, batcher = self._work[place]
        if place:
            del self._work[place]
            heapq.heapify(self._work)
        else:
            heapq.heappop(self._work)
        self._queued.discard(batcher)
        self._turns = turn
        taken = _Turn(batcher, turn, batcher.expected_seconds(), time.monotonic())
        self._next_turn[batcher] = turn + _counted(batcher, taken.seconds)
        return taken

    def _next(self) -> DynamicBatcher | None:
        """Waits for work; None when it is time to stop."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                taken = self._taken()
                if taken is not None:
                    self._going[threading.get_ident()] = taken
                    if self._work:
                        self._changed.notify()  # another one may begin beside it
                    return taken.batcher
                now = time.monotonic()
                if not self._delayed or self._delayed[0][0] > now:
                    self._changed.wait(self._patience(now))
                    continue
                due, _, batcher = heapq.heappop(self._delayed)
                if self._timed.get(batcher) != due:
                    continue  # an earlier time took its place
                del self._timed[batcher]
            self._hand_over(batcher)  # it may have been emptied since, or be due later now

    def _patience(self, now: float) -> float | None:
        """How long to wait for whatever comes; None for ever."""
        until = self._delayed[0][0] - now if self._delayed else math.inf
        until = min(until, LOOK_SECONDS) if self._work else until
        return None if until == math.inf else until
