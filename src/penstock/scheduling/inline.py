"""What waits for a thread that takes calls and makes short runs itself: see `runners`."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from penstock.scheduling.batcher import DynamicBatcher

TURNS_SECONDS = 0.001
"""How long the thread may take turns of work on messages before it takes further events."""
READ_SECONDS = 0.0005
"""The least time between two readings of the thread's CPU clock: each takes longer than most other steps for
a small batch. A reading that is used again is too small by at most as much."""
SUSPENDED_SECONDS = 1.0
MOST_SUSPENDED_SECONDS = 3600.0
FORGIVEN_SECONDS = 60.0  # this long after a suspension, the next one is short again


class Inline:
    """The work of one thread. Only that thread changes it.

    Args:
        flush_now: called when a full batch waits.
        wake: called when the first batch or turn comes; None if the thread looks by itself after every event.

    Attributes:
        flush_now: as given.
        wake: as given.
        notified: the batchers that have something to run.
        turns: of messages that are handled in turns.
        cpu_seconds: how much CPU the thread had used shortly before a run; see `READ_SECONDS`.
        cpu_read_at: when that was read, by `time.monotonic()`.
    """

    __slots__ = ("cpu_read_at", "cpu_seconds", "flush_now", "notified", "turns", "wake")

    def __init__(
        self, flush_now: Callable[[], None] = lambda: None, wake: Callable[[], None] | None = None
    ) -> None:
        self.flush_now = flush_now
        self.wake = wake
        self.notified: dict[DynamicBatcher, None] = {}
        self.turns: deque[Callable[[], bool]] = deque()
        self.cpu_read_at, self.cpu_seconds = -math.inf, 0.0

    def wake_first(self) -> None:
        """Called before something is added."""
        if self.wake is not None and not self.notified and not self.turns:
            self.wake()

    def take_turns(self) -> None:
        """Takes turns for a moment, of each piece of work one at most."""
        end = time.monotonic() + TURNS_SECONDS
        for _ in range(len(self.turns)):
            turn = self.turns.popleft()
            if turn():
                self.turns.append(turn)
            if time.monotonic() >= end:
                return


class Suspended(dict[DynamicBatcher, tuple[float, float]]):
    """The batchers that are kept off the threads that take calls: until when, and for how long in all."""

    def suspend(self, batcher: DynamicBatcher) -> None:
        """Keeps a batcher off them for a while, twice as long as last time.

        Its run used little CPU. It may have waited for something, such as a device; or the whole process may
        have stood still.
        """
        now = time.monotonic()
        until, seconds = self.get(batcher, (0.0, 0.0))
        forgiven = now > until + FORGIVEN_SECONDS
        seconds = SUSPENDED_SECONDS if forgiven else min(2 * seconds, MOST_SUSPENDED_SECONDS)
        self[batcher] = (now + seconds, seconds)
