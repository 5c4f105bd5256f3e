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
