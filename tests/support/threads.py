"""The threads that a test begins: those that were there before it are no concern of its own."""

from __future__ import annotations

import threading


class NewThreads:
    """The threads that have begun since this was made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def named(self, part: str) -> list[threading.Thread]:
        """Those that still run, with `part` in their names."""
        return [each for each in set(threading.enumerate()) - self._before if part in each.name]
