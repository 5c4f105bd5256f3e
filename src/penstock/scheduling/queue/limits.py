"""Limits of the queues: rows and bytes that may wait, for one model and for all models together."""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from penstock.core.errors import QueueFull


class QueueLimits(NamedTuple):
    """How much may wait.

    Attributes:
        rows: rows. A single request of more rows is accepted if nothing else waits.
        bytes: bytes of the messages. A single larger request is accepted if nothing else waits.
    """

    rows: int
    bytes: int = 2**63

    def check(self, where: str, waiting: Waiting, rows: int, size: int) -> None:
        """Checks that a request fits into the limits, together with the requests that wait.

        Raises:
            QueueFull: it does not fit.
        """
        if waiting.rows + rows > self.rows:
            raise QueueFull(_explained(where, waiting.rows, rows, self.rows, "rows"))
        if waiting.bytes + size > self.bytes:
            raise QueueFull(_explained(where, waiting.bytes, size, self.bytes, "bytes"))


class Waiting(Protocol):
    """How much waits.

    Attributes:
        rows: in rows; a request of no rows counts as one.
        bytes: in bytes of the messages.
    """

    rows: int
    bytes: int


class QueueTotal:
    """How much waits for all models together.

    Args:
        limits: how much may wait.

    Attributes:
        rows: in rows.
        bytes: in bytes of the messages.
        limits: as given.
        lock: shared by all queues that add to this total; they hold it only for short steps.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self.rows = self.bytes = 0
        self.limits = limits
        self.lock = threading.Lock()


def _explained(where: str, waiting: int, came: int, most: int, unit: str) -> str:
    return f"{where}: {waiting} {unit} are waiting, {came} more arrived, the limit is {most}"
