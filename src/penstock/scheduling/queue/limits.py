"""Limits of the queues: rows and bytes that may wait, for one model and for all models together."""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from penstock.core.errors import QueueFull
from penstock.core.names import are
from penstock.core.request import Request


class QueueLimits(NamedTuple):
    """How much may wait.

    Attributes:
        rows: rows. A single request of more rows is accepted if nothing else waits; see `LargeRequest`.
        bytes: bytes of the messages. A single larger request is accepted if nothing else waits.
    """

    rows: int
    bytes: int = 2**63

    def why_full(
        self, where: str, waiting: Waiting, rows: int, size: int, large: LargeRequest | None = None
    ) -> QueueFull | None:
        """Why a request does not fit into the limits, together with the requests that wait; None if it does.

        Args:
            where: the first words of the error.
            waiting: how much waits.
            rows: of the request.
            size: of the request, in bytes.
            large: a part of what waits that does not count.
        """
        if waiting.rows + rows > self.rows or waiting.bytes + size > self.bytes:
            uncounted_rows, uncounted_bytes = (0, 0) if large is None else (large.rows, large.bytes)
            if waiting.rows + rows - uncounted_rows > self.rows:
                said = _waiting(waiting.rows, "row", uncounted_rows)
                return QueueFull(f"{where}: {said}, {rows} more arrived, the limit is {self.rows}")
            if waiting.bytes + size - uncounted_bytes > self.bytes:
                said = _waiting(waiting.bytes, "byte", uncounted_bytes)
                return QueueFull(f"{where}: {said}, {size} more arrived, the limit is {self.bytes}")
        return None

    def half_of_least(self, other: QueueLimits) -> QueueLimits:
        """Half of the lower of two limits."""
        return QueueLimits(min(self.rows, other.rows) // 2, min(self.bytes, other.bytes) // 2)

    def missing(self, waiting: Waiting, rows: int, size: int, large: LargeRequest | None) -> tuple[int, int]:
        """By how many rows and bytes a request exceeds the limits; not above 0 if it does not."""
        if large is not None:
            rows, size = rows - large.rows, size - large.bytes
        return waiting.rows + rows - self.rows, waiting.bytes + size - self.bytes


class Waiting(Protocol):
    """How much waits: for one model, or for all together.

    Attributes:
        rows: in rows; a request of no rows counts as one.
        bytes: in bytes of the messages.
    """

    rows: int
    bytes: int


class Limited(Waiting, Protocol):
    """What waits, and how much may.

    Attributes:
        limits: how much may wait.
        large: the part of a request above the limits that does not count.
    """

    limits: QueueLimits
    large: LargeRequest


class LimitedOfAll(Limited, Protocol):
    """The same of one model, among others.

    Attributes:
        total: what waits for all models.
    """

    total: QueueTotal


class QueueTotal:
    """How much waits for all models together.

    Args:
        limits: how much may wait.

    Attributes:
        rows: in rows.
        bytes: in bytes of the messages.
        limits: as given.
        large: the part of a request above the limits that does not count.
        lock: shared by all queues that add to this total; they hold it only for short steps.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self.rows = self.bytes = 0
        self.limits = limits
        self.large = LargeRequest(limits)
        self.lock = threading.Lock()

    def add(self, rows: int, size: int) -> None:
        """Adds requests that wait outside of a queue; negative numbers subtract."""
        with self.lock:
            self.rows += rows
            self.bytes += size

    def missing(self, queue: Limited, rows: int, size: int) -> tuple[int, int]:
        """By how many rows and bytes a request exceeds the limits of a model's queue or these, at most."""
        missing = [each.limits.missing(each, rows, size, each.large) for each in (queue, self)]
        return max(rows for rows, _ in missing), max(size for _, size in missing)

    def note_large(self, queue: Limited, request: Request) -> None:
        """Notes a request that was just added to a model's queue, where it is above a limit."""
        queue.large.note(request, queue)
        self.large.note(request, self)

    def why_full(self, rows: int, size: int) -> QueueFull | None:
        """Why a request does not fit, together with what waits for all models; None if it does."""
        return self.limits.why_full("the queues of all models are full", self, rows, size, self.large)


class LargeRequest:
    """The waiting request that is above a limit, if there is one: it was accepted since nothing else waited.

    It counts as half of the limit, rounded up, so the other half is left for others. Otherwise every request
    of others would be rejected until it is run. As it is accepted only if nothing else waits, there is at
    most one.

    Args:
        limits: the limits.

    Attributes:
        request: the request.
        rows: how many of its rows do not count.
        bytes: how many of its bytes do not count.
    """

    __slots__ = ("_limits", "bytes", "request", "rows")

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self.request: Request | None = None
        self.rows = self.bytes = 0

    def note(self, request: Request, waiting: Waiting) -> None:
        """Notes a request that was just added to what waits, if it is above a limit.

        Only one that waits alone is: so it need not be called while less than half of a limit is used.
        """
        limits, rows = self._limits, request.rows or 1
        if waiting.rows > rows:
            return
        if rows > limits.rows:
            self.request, self.rows = request, rows - (limits.rows + 1) // 2
        if request.size > limits.bytes:
            self.request, self.bytes = request, request.size - (limits.bytes + 1) // 2

    def left(self, request: Request) -> None:
        """A request does not wait any more."""
        if request is self.request:
            self.request = None
            self.rows = self.bytes = 0


def why_full(queue: LimitedOfAll, rows: int, size: int) -> QueueFull | None:
    """Why a request does not fit into a queue, or into all queues together; None if it does."""
    full = None
    if queue.rows:
        full = queue.limits.why_full("the queue is full", queue, rows, size, queue.large)
    return queue.total.why_full(rows, size) if full is None else full


class LastFull:
    """Why the last request did not fit: while nothing changes, the next one gets the same error.

    A full queue rejects one request after another, and making an error takes longer than deciding.
    """

    __slots__ = ("_error", "_state")

    def __init__(self) -> None:
        self._state: object = None
        self._error: QueueFull | None = None

    def of(self, queue: LimitedOfAll, request: Request, runs: int) -> QueueFull | None:
        """Why a request does not fit; None if it does.

        Args:
            queue: the queue.
            request: the request.
            runs: how many runs there were: how long the queue takes to empty depends on them.
        """
        rows, size, total = request.rows or 1, request.size, queue.total
        large, of_all = queue.large, total.large
        state = (
            queue.rows, queue.bytes, total.rows, total.bytes, rows, size, runs,
            large.rows, large.bytes, of_all.rows, of_all.bytes,
        )  # fmt: skip
        if state != self._state:
            self._state, self._error = state, why_full(queue, rows, size)
        return self._error


def counted(request: Request, *large: LargeRequest) -> tuple[int, int]:
    """How many rows and bytes of a waiting request count: the least, if it is above several limits."""
    parts = [each for each in large if each.request is request]
    rows, size = max((each.rows for each in parts), default=0), max((each.bytes for each in parts), default=0)
    return (request.rows or 1) - rows, request.size - size


def _waiting(waiting: int, noun: str, uncounted: int) -> str:
    counted = f", of which {uncounted} do not count" if uncounted else ""
    return f"{are(waiting, noun)} waiting{counted}"
