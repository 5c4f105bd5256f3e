"""The runs that are going on: for whom, since when, on which thread, and how to end them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from penstock.backends.backend import Stop
from penstock.messages import InferRequest


class Going:
    """A run that is going on.

    Attributes:
        batch: whose it is; nobody's where the model is only tried.
        started: when it began, by `time.monotonic()`.
        stop: ends it.
        hung: whether it has gone on for too long.
    """

    __slots__ = ("batch", "hung", "started", "stop")

    def __init__(self, batch: Sequence[InferRequest], started: float) -> None:
        self.batch = batch
        self.started = started
        self.stop = Stop()
        self.hung = False

    def is_abandoned(self, now: float) -> bool:
        """Whether nobody waits for it any more."""
        return bool(self.batch) and all(each.cancelled or each.deadline <= now for each in self.batch)


class Running:
    """The runs of one model. The threads that run note them, another one watches.

    A thread has no more than one at a time. Nothing here takes a lock: each step on the dictionary is one
    that Python does in one piece.

    Args:
        hung_seconds: after how long a run is said to hang; 0 for never.
    """

    def __init__(self, hung_seconds: float = 0.0) -> None:
        self._hung_seconds = hung_seconds
        self._going: dict[int, Going] = {}

    def begin(self, batch: Sequence[InferRequest], now: float) -> Going:
        """This thread begins a run."""
        going = self._going[threading.get_ident()] = Going(batch, now)
        return going

    def end(self) -> None:
        """This thread's run is over."""
        del self._going[threading.get_ident()]

    def hung_threads(self) -> list[int]:
        """The threads whose runs hang, by their identifiers."""
        return [thread for thread, going in list(self._going.items()) if going.hung]

    def stop_abandoned(self, now: float) -> None:
        """Ends the runs that nobody waits for."""
        for going in list(self._going.values()):
            if not going.stop.asked and going.is_abandoned(now):
                going.stop.ask()

    def newly_hung(self, now: float) -> list[Going]:
        """The runs that have gone on for too long, each once."""
        if not self._hung_seconds:
            return []
        found = [
            each
            for each in list(self._going.values())
            if not each.hung and now - each.started > self._hung_seconds
        ]
        for each in found:
            each.hung = True
        return found
