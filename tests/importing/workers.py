"""Runs tasks in processes that are replaced where one ends or takes too long: one bad task is one bad row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

_SPAWN = get_context("spawn")
_START = 120
"""The most seconds that a process may take until it begins with its first task."""


class Ended(NamedTuple):
    """What became of a task.

    Attributes:
        place: of the task among all.
        result: what the function gave; None if there is none.
        failure: why there is none: the process ended, or time was up.
        seconds: how long it took.
    """

    place: int
    result: Any
    failure: str
    seconds: float


class _Worker:
    """A process that does one task after another."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.pipe, far = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(far, function), daemon=True)
        self._process.start()
        far.close()  # so that the end of the process is the end of the pipe
        self.place, self._since, self._limit = -1, time.monotonic(), 0.0

    def begin(self, place: int, task: Sequence[Any]) -> None:
        self.place, self._since, self._limit = place, time.monotonic(), _START
        with suppress(OSError):  # it has ended, which `ended` finds out
            self.pipe.send(task)

    @property
    def left(self) -> float:
        """The seconds until time is up."""
        return max(0.0, self._since + self._limit - time.monotonic())

    def ended(self, seconds: float) -> Ended | None:
        """The result, or why there is none; None while the task runs, which may take so many seconds."""
        if self.pipe.poll():
            return self._received(seconds)
        if self.left:
            return None
        return Ended(self.place, None, f"no result within {self._limit:g} s", self._limit)

    def _received(self, seconds: float) -> Ended | None:
        try:
            (has_ended, result), failure = self.pipe.recv(), ""
            if not has_ended:
                self._since, self._limit = time.monotonic(), seconds
                return None
        except (EOFError, OSError):
            self._process.join()
            result, failure = None, f"its process ended with status {self._process.exitcode}"
        return Ended(self.place, result, failure, time.monotonic() - self._since)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def run(
    function: Callable[..., Any], tasks: Sequence[Sequence[Any]], workers: int, seconds: float
) -> Iterator[Ended]:
    """Runs a function for each task; gives what became of each as it ends.

    Args:
        function: of a module, for other processes to import; what it gives is pickled.
        tasks: its arguments for each.
        workers: how many processes there are.
        seconds: the most that one task may take.
    """
    waiting = list(enumerate(tasks))
    busy: list[_Worker] = []
    try:
        busy += [_Worker(function) for _ in range(min(workers, len(waiting)))]
        for each in busy:
            each.begin(*waiting.pop(0))
        while busy:
            wait([each.pipe for each in busy], min(each.left for each in busy))
            for each in list(busy):
                ended = each.ended(seconds)
                if ended is None:
                    continue
                yield ended
                busy.remove(each)
                if ended.failure or not waiting:
                    each.stop()
                if waiting:
                    busy.append(_Worker(function) if ended.failure else each)
                    busy[-1].begin(*waiting.pop(0))
    finally:
        for each in busy:
            each.stop()


def _serve(pipe: Connection, function: Callable[..., Any]) -> None:
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            pipe.send((False, None))  # it has begun
            pipe.send((True, function(*task)))
