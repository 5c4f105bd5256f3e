"""A worker, as the supervisor sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from threading import Lock

from penstock.processes.messages import Orders

COMMAND = (sys.executable, "-P", "-m", "penstock.processes")
MINE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that are the supervisor's alone; a terminal sends them to all processes in it."""
EXIT_SECONDS = 5.0


class WorkerProcess:
    """A process that has been started, from its first moment to its last. Main thread only, but for `send`.

    Args:
        orders: what it is to do.

    Attributes:
        number: the worker's; a process that takes its place has the same.
        pid: the process's.
        started: when, by `time.monotonic()`.
        connection: what it says can be received here; EOFError tells that it has ended.
        ready: whether it takes calls.
        told_to_end: whether it ends because it was told to.
        hung: the names of its models that hang.
    """

    def __init__(self, orders: Orders) -> None:
        self.number = orders.number
        self.started = time.monotonic()
        self.ready = self.told_to_end = False
        self.hung: frozenset[str] = frozenset()
        self.connection, theirs = Pipe()
        self._lock = Lock()
        with theirs, _signals_blocked():
            # Standard output belongs to the supervisor. All else is inherited, standard error too.
            self._process = subprocess.Popen(COMMAND, stdin=theirs.fileno(), stdout=2)
        self.pid = self._process.pid
        self.send(orders)

    def send(self, message: object) -> None:
        """Tells it something; from any thread. Does nothing if it has ended."""
        with self._lock, suppress(OSError):
            self.connection.send(message)

    def reap(self) -> int:
        """The exit code of a process whose connection has ended; negative for the signal that ended it."""
        with self._lock:
            self.connection.close()
        try:
            return self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started meanwhile gets none of these signals before it is prepared for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MINE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
