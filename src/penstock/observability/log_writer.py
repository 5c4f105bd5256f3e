"""Writes the lines of the log on a thread of its own: a log that is not read holds up nothing else."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import TextIO

MOST_LINES = 4096
"""The most lines that wait to be written, about 1 MiB of usual ones. More are dropped and counted."""
POLL_SECONDS = 1.0


class LineWriter:
    """Writes lines to a stream, in order.

    Args:
        stream: where to.
        dropped_line: makes the line that says how many lines are missing, once there is room again.

    Attributes:
        dropped: how many lines did not fit, or could not be written.
    """

    def __init__(self, stream: TextIO, dropped_line: Callable[[int], str]) -> None:
        self.dropped = 0
        self._stream = stream
        self._dropped_line = dropped_line
        self._told = 0  # how many of these have been reported
        self._lines: SimpleQueue[str | Event] = SimpleQueue()  # may be used in a signal handler
        self._thread: Thread | None = None

    def put(self, line: str) -> None:
        """Has a line written soon, or drops it. Never waits. Not for two threads at once."""
        if self._lines.qsize() >= MOST_LINES:
            self.dropped += 1
            return
        self._lines.put(line)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Waits until the lines so far are written, for at most `seconds`.

        Returns:
            Whether they are.
        """
        if self._thread is None:
            return True
        reached = Event()
        self._lines.put(reached)
        return reached.wait(seconds)

    def _run(self) -> None:
        while True:
            item = self._lines.get()
            if isinstance(item, Event):
                item.set()
                continue
            self._write(item)
            if self.dropped != self._told and self._lines.qsize() < MOST_LINES // 2:
                missing, self._told = self.dropped - self._told, self.dropped
                self._write(self._dropped_line(missing))

    def _write(self, line: str) -> None:
        try:
            if self._stream is sys.__stderr__:
                _write_all(self._stream, line)
            else:
                self._stream.write(line)
                self._stream.flush()
        except Exception:  # a closed, full or broken stream must not end the thread
            self.dropped += 1
            self._told += 1  # there is no use in writing that it cannot be written


def _write_all(stream: TextIO, line: str) -> None:
    """Writes past the stream's buffer: a thread that waits within it would keep the process from ending."""
    number, data = stream.fileno(), line.encode(stream.encoding or "utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:  # another process has made the pipe non-blocking
            with suppress(ValueError):  # select takes small numbers only
                select.select([], [number], [], POLL_SECONDS)
