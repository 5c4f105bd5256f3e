"""Starts `penstock serve` by a fork of a process that has imported its code: see `support.fork_server`."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import fork_server

START_SECONDS = 60.0
OTHERS = ("PENSTOCK_", "PYTEST_", "GRPC_EXPERIMENTS", "GRPC_VERBOSITY")
"""How variables begin that no library reads when it is loaded, or that Penstock's own imports set."""


class ForkServer:
    """The process that is forked. It starts with the first request, and runs until `close`."""

    def __init__(self) -> None:
        self._environment: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def note_environment(self) -> None:
        """The process is to have the variables that there are now."""
        self._environment = dict(os.environ)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process that is forked is like a new one with this environment.

        Python and libraries read their variables when they are loaded, Penstock reads its own when it starts.
        """
        return sys.platform == "linux" and _of_libraries(environment) == _of_libraries(self._environment)

    def start(self, request: fork_server.Request, out: int, err: int) -> int:
        """Starts a process, and returns the descriptor of its reports."""
        reports, report = os.pipe()
        try:
            with self._lock:
                data = json.dumps(request).encode()
                socket.send_fds(self._connection(), [data], [out, err, report])
        finally:
            os.close(report)
        return reports

    def close(self) -> None:
        """Ends the process. Those that were forked go on."""
        with self._lock:
            if self._process and self._control:
                self._control.close()
                self._process.wait()
                self._process = self._control = None

    def _connection(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", fork_server.__file__, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    pass_fds=(theirs.fileno(),),
                )
        return self._control


server = ForkServer()
"""The one of this process."""


class ForkedProcess:
    """A process of `server`, in the form of a `subprocess.Popen` whose standard output and error are pipes.

    Args:
        arguments: the command line, the program's name first.
        environment: all of its variables.

    Attributes:
        args: the command line.
        pid: the process id.
        returncode: the exit code, negative for the signal that ended it; None until `poll` or `wait` sees it.
        stdout: what it prints.
        stderr: its log.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._lock = threading.Lock()
        request = fork_server.Request(self.args, dict(environment), str(Path.cwd()))
        self.stdout, out = _pipe()
        self.stderr, err = _pipe()
        try:
            self._reports = server.start(request, out, err)
        finally:
            os.close(out)
            os.close(err)
        weakref.finalize(self, os.close, self._reports)
        assert self._reported(START_SECONDS), "the process to fork did not start"
        self.pid = self._report()

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        with self._lock:
            if self.returncode is None and self._reported(0):
                self.returncode = self._report()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end, and returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        self._reported(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reported(self, seconds: float | None) -> bool:
        """Waits until something is reported, or all has been, for some seconds at most."""
        watch = select.poll()
        watch.register(self._reports, select.POLLIN)
        return bool(watch.poll(None if seconds is None else seconds * 1000))

    def _report(self) -> int:
        """The next report. Without one, the process to fork has ended."""
        data = os.read(self._reports, fork_server.NUMBER.size)
        assert data, "the process to fork has ended"
        return int(fork_server.NUMBER.unpack(data)[0])


def _pipe() -> tuple[IO[str], int]:
    """What is read from a pipe as text, and the end to write to."""
    read, write = os.pipe()
    return os.fdopen(read, encoding="utf-8"), write


def _of_libraries(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OTHERS)}
