"""How much may wait, before one model and before all of them together."""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from penstock.errors import QueueFull


class Bounds(NamedTuple):
    """How much may wait.

    Attributes:
        rows: rows. A single request of more is let in alone.
        bytes: bytes of the messages. A single larger one is let in alone.
    """

    rows: int
    bytes: int = 2**63

    def check(self, where: str, held: Held, rows: int, size: int) -> None:
        """Makes sure that there is room for a request beside what is held already.

        Raises:
            QueueFull: there is none.
        """
        if held.rows + rows > self.rows:
            raise QueueFull(_words(where, held.rows, rows, self.rows, "rows"))
        if held.bytes + size > self.bytes:
            raise QueueFull(_words(where, held.bytes, size, self.bytes, "bytes"))


class Held(Protocol):
    """How much waits.

    Attributes:
        rows: in rows; a request of no rows counts as one.
        bytes: in bytes of the messages.
    """

    rows: int
    bytes: int


class Total:
    """How much waits before all models together.

    Args:
        bounds: the most that may.

    Attributes:
        rows: in rows.
        bytes: in bytes of the messages.
        bounds: as given.
        lock: all queues that add to this share it: none of them does much while it holds it.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.rows = self.bytes = 0
        self.bounds = bounds
        self.lock = threading.Lock()


def _words(where: str, held: int, came: int, most: int, unit: str) -> str:
    return f"{where} full: {held} {unit} wait, {came} more came, {most} is the most"
