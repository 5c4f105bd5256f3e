"""A circuit breaker: rejects requests for a while if a model fails on every input.

A batch in which every request failed counts as a failure, and any successful run resets the count: as long as
some callers get answers, bad data of another caller affects only that one. When the count reaches the limit,
the data may still be the cause, for instance if there is only one caller. So the model is tried on input that
worked when it was loaded (see `Execution`). Only if it fails on that, too, the breaker opens.

The pattern is that of M. Nygard, "Release It!" (2007). The packages for it wrap a call and take a lock for it
(pybreaker, purgatory) or need an event loop (aiobreaker). Here a request is accepted on one thread and run on
another, later and together with others. The cost per request is reading one attribute.
"""

from __future__ import annotations

import threading

from penstock.core.errors import Unavailable

LONGEST_SECONDS = 60.0


class Breaker:
    """The breaker of one model, which is given the time. May be used by several threads at once.

    Args:
        failures: failed batches in a row after which the model is tried on known input; 0 for never.
        open_seconds: for how long requests are rejected then; doubled after every further failure.

    Attributes:
        is_open: whether requests are rejected.
        failures_in_row: failed batches since the last success.
    """

    __slots__ = (
        "_first_seconds", "_limit", "_lock", "_probing", "_seconds", "_until", "failures_in_row", "is_open",
    )  # fmt: skip

    def __init__(self, failures: int = 0, open_seconds: float = 1.0) -> None:
        self._limit = failures
        self._first_seconds = self._seconds = open_seconds
        self.failures_in_row = 0
        self._until = 0.0  # while open: when the next request is let through as a probe
        self._probing = False
        self._lock = threading.Lock()
        self.is_open = False

    def admit(self, now: float) -> None:
        """Accepts a request. While open, one request is accepted as a probe whenever the time is over.

        This probe may never be run: if it has no result after the same time again, another one is accepted.

        Raises:
            Unavailable: requests are rejected; says for how long.
        """
        if not self.is_open:
            return
        with self._lock:
            error = self.why_rejected(now)
            if error is None:
                self._probing, self._until = True, now + self._seconds
        if error is not None:
            raise error

    def why_rejected(self, now: float) -> Unavailable | None:
        """Why `admit` would reject a request while the breaker is open; None if it would be a probe."""
        left = self._until - now
        if left <= 0.0:
            return None
        error = Unavailable(
            "the model fails on every input; requests are rejected for now (circuit breaker open); "
            "see the server's log"
        )
        error.retry_after_seconds, error.shut_off = left, True
        return error

    def failed(self) -> bool:
        """Notes that every request of a batch has failed.

        Returns:
            Whether the model itself may be the cause: then the caller must call `open` or `succeeded`.
        """
        with self._lock:
            self.failures_in_row += 1
            if self.is_open:
                was_probing, self._probing = self._probing, False
                return was_probing
            return self._limit > 0 and self.failures_in_row % self._limit == 0

    def open(self, now: float) -> float:
        """Opens the breaker; for twice as long as before, if it is open already.

        Returns:
            For how many seconds; 0 if it stays closed because a run has succeeded in the meantime.
        """
        with self._lock:
            if not self.failures_in_row:
                return 0.0
            self._seconds = min(2 * self._seconds, LONGEST_SECONDS) if self.is_open else self._first_seconds
            self._until = now + self._seconds
            self.is_open = True
            return self._seconds

    def succeeded(self) -> bool:
        """Notes a successful run, and closes the breaker.

        Returns:
            Whether the breaker was open until now.
        """
        if not self.failures_in_row:  # without a failure, the breaker cannot be open
            return False
        with self._lock:
            self.failures_in_row, was_open = 0, self.is_open
            self._probing = self.is_open = False
            return was_open
