"""Pacing: decides when requests are sent, in a closed or an open loop.

A closed loop keeps a number of requests in flight: each answer triggers the next request. It measures the
highest throughput of a server. It says little about the latency of users, because a slow server gets fewer
requests.

An open loop sends at fixed times, whatever the server does, and counts every latency from the intended send
time. So a stall counts for all requests that users would have sent during it, not only for those in flight.
Otherwise the measurement has an error known as coordinated omission:
Gil Tene, "How NOT to Measure Latency", talk, Strange Loop 2015.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, process_time, thread_time
from typing import Literal, TypeAlias

import numpy as np

from penstock_bench.calls import Calls, Job
from penstock_bench.tally import Outcome, Tally, Usage

Arrivals: TypeAlias = Literal["uniform", "poisson"]

GRACE_SECONDS = 5.0
"""How long after its timeout the last request may still be answered."""

HIGHEST_RATE = 1e9
"""Most requests per second of an open loop: the monotonic clock counts nanoseconds."""

INTERRUPTED_SECONDS = 1.0
"""How long to wait for answers after an interruption."""

_BLOCK = 1024
_NAP_SECONDS = 0.2
_AT_ONCE = 16
_UNANSWERED = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Load:
    """One level of load, or one process's share of it.

    Attributes:
        concurrency: closed loop: requests in flight; 0 for an open loop.
        rate: open loop: requests per second; 0 for a closed loop.
        arrivals: open loop: at equal intervals, or at random ones as independent users make them.
        offset: open loop: the position of the first request in the interval, from 0 to 1.
        max_in_flight: open loop: most unanswered requests; at this limit sending pauses.
        warmup: seconds under load before the measured time.
        duration: the measured time in seconds; None if `requests` sets the end.
        requests: the number of requests to measure; None for no limit besides the duration.
        timeout: of a request, in seconds.
        seed: equal seeds give equal random arrivals.
    """

    concurrency: int = 0
    rate: float = 0.0
    arrivals: Arrivals = "uniform"
    offset: float = 0.0
    max_in_flight: int = 10_000
    warmup: float = 1.0
    duration: float | None = 10.0
    requests: int | None = None
    timeout: float = 30.0
    seed: int = 0

    @property
    def idle(self) -> bool:
        """Whether this share has no requests."""
        return (not self.concurrency and not self.rate) or self.requests == 0


class Run:
    """One level in one process: starts jobs, receives their outcomes, and keeps the tally.

    Args:
        load: the level.
        calls: sends the requests.
        rows: the rows of each payload.
        first: the number of the first payload.
    """

    def __init__(self, load: Load, calls: Calls, rows: Sequence[int], first: int = 0) -> None:
        self.tally = Tally()
        self.in_flight = 0
        self._load = load
        self._calls = calls
        self._rows = rows
        self._index = first - 1
        self._budget = math.inf if load.requests is None else load.requests
        self._start = self._last_answer = monotonic() + load.warmup
        self._end = math.inf if load.duration is None else self._start + load.duration
        self._measured_in_flight = 0
        self._interrupted = False
        self._over = asyncio.Event()  # nothing more is sent
        self._quiet = asyncio.Event()  # nothing is unanswered
        self._room = asyncio.Event()
        self._marks: list[Usage] = []  # at the start and at the end of the measured time

    async def run(self) -> Tally:
        """Makes the load and returns its results."""
        self._calls.settle = self._settle_closed if self._load.concurrency else self._settle_open
        loop = asyncio.get_running_loop()
        timers = [loop.call_at(self._start, self._mark)]
        if math.isfinite(self._end):
            timers.append(loop.call_at(self._end, self._mark))
        await (self._closed() if self._load.concurrency else self._open())
        await self._wait_for_answers()
        for timer in timers:
            timer.cancel()
        self._close_window()
        await self._give_up()
        return self.tally

    def interrupt(self) -> None:
        """Stops sending."""
        self._interrupted = True
        if self._end > (now := monotonic()):
            self._end = now
            self._mark()
        self._over.set()
        self._room.set()
        asyncio.get_running_loop().call_later(INTERRUPTED_SECONDS, self._quiet.set)

    async def _closed(self) -> None:
        """Sends the first requests; each answer triggers the next, until the time or the requests end."""
        for _ in range(self._load.concurrency):
            job = self._job(monotonic())
            if job is not None:
                self._calls.start(job)
        await _until(self._over, self._end)

    async def _open(self) -> None:
        """Sends every request at its time, or as soon as possible after it."""
        if await self._send(self._times(self._start - self._load.warmup), until=self._start):
            await self._send(self._times(self._start), until=self._end)

    async def _send(self, times: Iterator[float], until: float) -> bool:
        """Sends the requests that are due before a time; returns whether there are later ones.

        Late requests of the warm-up are dropped when it ends: at a rate that is far too high they would never
        end.
        """
        at_once = 0
        for due in times:
            at_once = 0 if await self._sleep_until(min(due, until)) else at_once + 1
            if due >= until:
                return True
            if at_once % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # answers get their turn even if sending cannot keep up
            await self._wait_for_room(until)
            now = monotonic()
            if now >= until and not self._interrupted:
                if until == self._end:
                    self._count_unsent(due)
                return True
            job = self._job(due)
            if job is None:
                return False
            if due >= self._start:
                self.tally.send_lag.add(max(0.0, now - due))
            self._calls.start(job)
        return False

    async def _sleep_until(self, due: float) -> bool:
        """Waits until a request is due; returns whether it had to."""
        wait = due - monotonic()
        if wait > _NAP_SECONDS:
            await _until(self._over, due)  # an interruption ends the wait
        elif wait > 0:
            await asyncio.sleep(wait)
        return wait > 0

    async def _wait_for_room(self, until: float) -> None:
        while self.in_flight >= self._load.max_in_flight and monotonic() < min(until, self._end):
            self.tally.crowded = True
            self._room.clear()
            await _until(self._room, min(until, self._end))

    def _count_unsent(self, due: float) -> None:
        """Counts the requests that were due in the measured time but were not sent."""
        self.tally.unsent = max(1, math.ceil((self._end - due) * self._load.rate - 1e-6))

    def _times(self, first: float) -> Iterator[float]:
        """The send times from a time on; random ones are independent of earlier ones."""
        load = self._load
        if load.arrivals == "uniform":
            origin = self._start - load.warmup
            passed = max(0, math.ceil((first - origin) * load.rate - load.offset - 1e-6))
            for number in range(1 << 62):
                yield max(first, origin + (passed + number + load.offset) / load.rate)
        random = np.random.default_rng([load.seed, int(first == self._start)])
        while True:
            gaps = random.exponential(1 / load.rate, _BLOCK)
            yield from (first + np.cumsum(gaps)).tolist()
            first += float(gaps.sum())

    def _job(self, due: float) -> Job | None:
        """The job that is due at a time; None if there are no more."""
        if due >= self._end or self._interrupted:
            return None
        if due >= self._start:
            if self._budget <= 0:
                self._over.set()
                return None
            self._budget -= 1
            self._measured_in_flight += 1
        self.in_flight += 1
        self._index = (self._index + 1) % len(self._rows)
        return due, self._index

    def _settle_closed(self, job: Job, outcome: Outcome) -> Job | None:
        now = monotonic()
        self._count(job, outcome, now)
        following = self._job(now)
        if not self.in_flight:
            self._quiet.set()
        return following

    def _settle_open(self, job: Job, outcome: Outcome) -> Job | None:
        self._count(job, outcome, monotonic())
        self._room.set()
        if not self.in_flight:
            self._quiet.set()
        return None

    def _count(self, job: Job, outcome: Outcome, now: float) -> None:
        due, index = job
        self.in_flight -= 1
        tally, rows = self.tally, self._rows[index]
        # A number of requests counts these requests; a duration counts all answers within it.
        if not outcome.code and self._start <= (due if math.isinf(self._end) else now) < self._end:
            tally.answered_in_window += 1
            tally.rows_in_window += rows
        if due < self._start:
            return
        self._measured_in_flight -= 1
        self._last_answer = now
        if outcome.code:
            tally.missed(outcome.code, outcome.detail)
        else:
            tally.answered(now - due, rows, outcome)

    async def _wait_for_answers(self) -> None:
        """Waits until all requests are answered, or no more answers are expected."""
        if self.in_flight:
            self._quiet.clear()
            await _until(self._quiet, monotonic() + self._load.timeout + GRACE_SECONDS)

    def _mark(self) -> None:
        self._marks.append(usage())

    def _close_window(self) -> None:
        """Stores the length of the measured time and the resources used in it."""
        end = self._end if math.isfinite(self._end) else self._last_answer
        self.tally.window_seconds = max(0.0, end - self._start)
        self._mark()  # if there was no timer for the end
        self.tally.usage = self._marks[1].since(self._marks[0]) if len(self._marks) > 1 else Usage()

    async def _give_up(self) -> None:
        """Counts the requests that are still unanswered."""
        left = self._measured_in_flight
        if self._interrupted:
            self.tally.unfinished = left
        elif left:
            detail = f"no answer {self._load.timeout + GRACE_SECONDS:g} s after the last request"
            self.tally.missed(_UNANSWERED, detail, left)
        if self.in_flight:
            await self._calls.abandon()


async def _until(event: asyncio.Event, end: float) -> None:
    """Waits for an event, at most until a time of the monotonic clock."""
    try:
        async with asyncio.timeout(None if math.isinf(end) else max(0.0, end - monotonic())):
            await event.wait()
    except TimeoutError:
        return


def usage() -> Usage:
    """The resources that this process and this thread have used so far."""
    return Usage(monotonic(), process_time(), thread_time(), _waited())


def _waited() -> float:
    """Seconds that this thread has waited for a core, where the kernel says so (Linux)."""
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0
