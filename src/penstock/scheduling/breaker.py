"""Keeps requests from a model that fails whatever it is given.

A batch that failed to the last request counts, and any run without a failure takes the count back: as long
as others get answers, one caller's bad data shuts out nobody. Where the count reaches the bound, data may
still be to blame, as that of the only caller there is. So the model is tried on input that it could run when
it was loaded (see `Execution`): only if it fails on that, too, it is shut off.

The pattern is that of M. Nygard, "Release It!" (2007). The packages for it wrap a call and take a lock for it
(pybreaker, purgatory) or want an event loop (aiobreaker). Here a request is let in on one thread and run on
another, later and together with others; what is asked of every request is one attribute.
"""

from __future__ import annotations

import threading

from penstock.errors import Unavailable

LONGEST_SECONDS = 60.0


class Breaker:
    """The breaker of one model, which is handed the time. May be used by several threads at once.

    Args:
        failures: failed batches in a row after which the model is suspected; 0 for never.
        open_seconds: how long it is left alone then; twice as long after every further failure.

    Attributes:
        is_open: whether requests are refused.
    """

    __slots__ = ("_bound", "_first_seconds", "_lock", "_probing", "_row", "_seconds", "_until", "is_open")

    def __init__(self, failures: int = 0, open_seconds: float = 1.0) -> None:
        self._bound = failures
        self._first_seconds = self._seconds = open_seconds
        self._row = 0  # failures since the last success
        self._until = 0.0  # where it is open: when the next request is let through
        self._probing = False
        self._lock = threading.Lock()
        self.is_open = False

    def admit(self, now: float) -> None:
        """Lets a request in; while open, one each time that the model has been left alone for long enough.

        That it will be run is not sure: if nothing is heard of it for as long again, another one is let in.

        Raises:
            Unavailable: the model is left alone; says for how long.
        """
        if not self.is_open:
            return
        with self._lock:
            left = self._until - now
            if left <= 0.0:
                self._probing, self._until = True, now + self._seconds
                return
        error = Unavailable(
            "the model fails on whatever it is given, and is left alone for a while; the log says why"
        )
        error.retry_after_seconds, error.shut_off = left, True
        raise error

    def failed(self) -> bool:
        """A batch failed, every request of it.

        Returns:
            Whether the model itself is now suspected: then `open` or `succeeded` is to follow.
        """
        with self._lock:
            self._row += 1
            if self.is_open:
                was_probing, self._probing = self._probing, False
                return was_probing
            return self._bound > 0 and self._row % self._bound == 0

    def open(self, now: float) -> float:
        """Shuts the model off, for twice as long as before where it is already.

        Returns:
            For how many seconds; 0 where it is not shut off, since a run has succeeded in the meantime.
        """
        with self._lock:
            if not self._row:
                return 0.0
            self._seconds = min(2 * self._seconds, LONGEST_SECONDS) if self.is_open else self._first_seconds
            self._until = now + self._seconds
            self.is_open = True
            return self._seconds

    def succeeded(self) -> bool:
        """A run has not failed.

        Returns:
            Whether requests were refused until now.
        """
        if not self._row:  # `open` shuts nothing off without a failure
            return False
        with self._lock:
            self._row, was_open = 0, self.is_open
            self._probing = self.is_open = False
            return was_open
