"""The supervisor's handle of a worker process: starts it, sends messages, and waits for its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from threading import Lock

from penstock.core.blocked_signals import blocked
from penstock.core.run_recorder import create_page, running_models
from penstock.processes.messages import Assignment

COMMAND = (sys.executable, "-P", "-m", "penstock.processes")
SUPERVISOR_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that the supervisor acts on; a terminal sends them to the workers as well."""
EXIT_SECONDS = 5.0


class WorkerProcess:
    """A process that has been started. Main thread only, except `send`.

    Args:
        assignment: what it has to serve.

    Attributes:
        number: the worker's; a process that takes its place has the same number.
        pid: the process's.
        started: when it was started, by `time.monotonic()`.
        connection: gives its messages, and EOFError once it has ended.
        ready: whether it takes calls.
        told_to_end: whether it was told to end.
        hung: the names of its models that hang.
        is_blocked: whether these keep the whole process from being ready.
        was_running: the versions that were being loaded or run when it ended; known after `reap`.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.number
        self.started = time.monotonic()
        self.ready = self.told_to_end = False
        self.hung: frozenset[str] = frozenset()
        self.is_blocked = False
        self.was_running: list[str] = []
        self.connection, theirs = Pipe()
        self._lock = Lock()
        self._run_page = _create_page()
        passed = () if self._run_page is None else (self._run_page,)
        with theirs, blocked(SUPERVISOR_SIGNALS):
            # Standard output belongs to the supervisor. Standard error is inherited.
            self._process = subprocess.Popen(COMMAND, stdin=theirs.fileno(), stdout=2, pass_fds=passed)
        self.pid = self._process.pid
        self.send(replace(assignment, run_page=self._run_page))

    def send(self, message: object) -> None:
        """Sends it a message; from any thread. Does nothing if it has ended, or has long read nothing.

        Small messages only: there is room for one of them whenever the system says that there is room.
        """
        with self._lock, suppress(OSError):
            # Of one that is stopped, the buffer fills up: to wait for room might be to wait for ever.
            room = select.poll()
            room.register(self.connection, select.POLLOUT)
            if room.poll(0):
                self.connection.send(message)

    def reap(self) -> int:
        """Waits for the end of a process whose connection has ended, and sets `was_running`.

        Returns:
            The exit code; negative for the signal that ended it.
        """
        with self._lock:
            self.connection.close()
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._run_page is not None:
            self.was_running = running_models(self._run_page)
            os.close(self._run_page)
            self._run_page = None
        return code

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()


def _create_page() -> int | None:
    """The page for a new process; None if the system has none: then the log cannot name the running model."""
    try:
        return create_page()
    except OSError:
        return None
