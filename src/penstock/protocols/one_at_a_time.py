"""Work that holds Python's interpreter is done by one worker at a time.

Several threads with such work get no further than one does, but the thread that polls gRPC would wait for
each of them whenever it needs the interpreter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


class OneAtATime:
    """Has the workers of a pool do work one after another, in order.

    Args:
        workers: the pool, which does other work meanwhile.
    """

    def __init__(self, workers: Callable[[], Executor]) -> None:
        self._workers = workers
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_busy = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Has `work` done; what it raises is lost."""
        with self._lock:
            self._waiting.append((work, arguments))
            if self._is_busy:
                return
            self._is_busy = True
        self._workers().submit(self._next)

    def _next(self) -> None:
        work, arguments = self._waiting.popleft()
        try:
            work(*arguments)
        finally:
            with self._lock:
                self._is_busy = is_left = bool(self._waiting)
            if is_left:  # other work of the pool has its turn
                self._workers().submit(self._next)
