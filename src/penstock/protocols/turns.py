"""Work on one message in turns, so that a message that is much work does not hold up everything else.

The thread that polls gRPC takes one turn of about a millisecond. Then it takes the events that came
meanwhile, and then the next turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

TURN_SECONDS = 0.001


class TakesTurns(Protocol):
    """Calls for the next turn when it is time."""

    def take_turns(self, turn: Callable[[], bool]) -> None:
        """Calls `turn` now, and again later, for as long as it returns True."""


class Worker(Protocol):
    """Does work on another thread, in order."""

    def submit(self, work: Callable[..., None], *arguments: Any) -> object:
        """Has `work` done."""


class Clock:
    """Tells when a turn is over."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = time.monotonic() + TURN_SECONDS

    def is_over(self) -> bool:
        """Whether the turn is over; if so, the next one begins."""
        now = time.monotonic()
        if now < self._end:
            return False
        self._end = now + TURN_SECONDS
        return True


class Turns:
    """The work on one message.

    Args:
        turns: does one turn between two of its values. A value of True says that what follows cannot be
            divided and is much work: then a worker does the rest.
        worker: takes the rest of those turns.
        broke: called with an exception that a turn has raised; it is the last turn.
    """

    def __init__(self, turns: Iterator[bool], worker: Worker, broke: Callable[[Exception], None]) -> None:
        self._turns = turns
        self._worker = worker
        self._broke = broke
        self._on_worker = False

    def begin(self, takes: TakesTurns) -> None:
        """Takes the first turn now, and has the others taken."""
        takes.take_turns(self._turn)

    def _turn(self) -> bool:
        """Takes a turn; returns whether more are left."""
        try:
            for is_much in self._turns:
                if is_much and not self._on_worker:
                    self._on_worker = True
                    self._worker.submit(self.on_worker)
                    return False
                return True
        except Exception as error:
            self._broke(error)
        return False

    def on_worker(self) -> None:
        """Takes a turn on a worker, which takes the others later: they have no more right than other work."""
        self._on_worker = True
        if self._turn():
            self._worker.submit(self.on_worker)
