"""A program that has imported what others import, and is forked for each process that a test starts.

To import it takes most of the CPU of a start, and the tests start hundreds of servers and commands. From the
`main` of `penstock.cli` on, such a process does what the console script does; other programs run as
`python -m` runs them. A forked supervisor has its workers forked, too. `support.forked` runs this program.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

MAX_BYTES = 2**20
MOST_FILES = 16
NUMBER = struct.Struct("q")
"""The form of a report."""
HIGH = 500
"""Descriptors from here on are in nobody's way."""
SET_NAME = 15
"""Of prctl: what `/proc/PID/comm` has."""
WORKER_NAME = "of-{}"
"""The name of a worker's process; with the process id of its supervisor, which is not its parent here."""


class Request(NamedTuple):
    """A process to start. With it come descriptors: for its standard files, for reports, and those it keeps.

    The reports are two numbers: the process id, and once the process has ended, its exit code.

    Attributes:
        arguments: the command line, the program's name first.
        environment: all of its variables.
        folder: the folder it runs in.
        module: what is run in place of the console script, as by `python -m`.
        kept: the numbers that its further descriptors have.
        blocked: the signals that are blocked at first.
        new_session: whether it leads a session of its own.
        supervisor: the process id of the supervisor that has asked for a worker.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    module: str = ""
    kept: Sequence[int] = ()
    blocked: Sequence[int] = ()
    new_session: bool = False
    supervisor: int = 0


def main() -> None:
    """Forks until its parent ends or closes the connection. In each forked process, runs the program."""
    for name in sys.argv[2:]:
        import_module(name)
    gc.freeze()  # otherwise the collector would write to memory that all these processes share
    from_children, to_parent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control = socket.socket(fileno=int(sys.argv[1]))
    request = _next_request([control, from_children])
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv[:] = request.arguments
    if request.module:
        to_parent.close()
        runpy.run_module(request.module, run_name="__main__")
        sys.exit()
    from penstock.cli import main

    if (supervising := sys.modules.get("penstock.processes.worker_process")) is not None:
        Worker.connection = to_parent
        vars(supervising)["subprocess"] = Worker
    sys.exit(main())


def _next_request(controls: list[socket.socket]) -> Request:
    """Waits for requests, and forks for each. Returns in the forked processes only, each with its request."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([*controls, woken], [], [])
        if woken in ready:
            os.read(woken, MAX_BYTES)
            _report_ended(reports)
        for control in (each for each in controls if each in ready):
            data, descriptors, _, _ = socket.recv_fds(control, MAX_BYTES, MOST_FILES)
            if not data:
                for pid in reports:  # of tests that were killed
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            request = Request(*json.loads(data))
            *files, report = descriptors
            with warnings.catch_warnings(action="ignore"):  # numpy's threads are prepared for a fork
                pid = os.fork()
            if not pid:
                for each in (woken, wake, report, *reports.values()):
                    os.close(each)
                for connection in controls:
                    connection.close()
                _become_the_program(files, request)
                return request
            reports[pid] = report
            _write(report, pid)
            for each in files:
                os.close(each)


def _become_the_program(files: Sequence[int], request: Request) -> None:
    """Gives a forked process the signals and files that a program starts with."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
    if request.new_session:
        os.setsid()
    if request.supervisor:
        name = WORKER_NAME.format(request.supervisor).encode()
        ctypes.CDLL(None).prctl(SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in files]
    for each in files:
        os.close(each)
    for number, each in zip((0, 1, 2, *request.kept), high, strict=True):
        os.dup2(each, number)
        os.close(each)
    # Python's own files remember whether they could be rewound, when they were others.
    sys.stdin = sys.__stdin__ = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115 - open until the end
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, sys.stderr.encoding, "backslashreplace", closefd=False)  # noqa: SIM115


class Worker:
    """What `penstock.processes` needs of `subprocess`: a process, of which it is told by reports.

    Attributes:
        pid: the process id.
    """

    TimeoutExpired = subprocess.TimeoutExpired
    connection: socket.socket

    def __init__(self, command: Sequence[str], *, stdin: int, stdout: int, pass_fds: Sequence[int]) -> None:
        *_, module = command
        blocked = [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        request = Request(
            [*command], dict(os.environ), os.getcwd(), module, pass_fds, blocked, supervisor=os.getpid()
        )  # fmt: skip
        self._reports, report = os.pipe()
        files = [stdin, stdout, 2, *pass_fds, report]
        socket.send_fds(self.connection, [json.dumps(request).encode()], files)
        os.close(report)
        self._code: int | None = None
        self.pid = self._report()

    Popen: Any

    def wait(self, timeout: float) -> int:
        """Waits for its end, and returns the exit code."""
        if self._code is None:
            if not select.select([self._reports], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a worker", timeout)
            self._code = self._report()
            os.close(self._reports)
        return self._code

    def kill(self) -> None:
        if self._code is None and not select.select([self._reports], [], [], 0)[0]:
            os.kill(self.pid, signal.SIGKILL)

    def _report(self) -> int:
        return int(NUMBER.unpack(os.read(self._reports, NUMBER.size))[0])


Worker.Popen = Worker


def _report_ended(reports: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            report = reports.pop(pid)
            _write(report, os.waitstatus_to_exitcode(status))
            os.close(report)


def _write(report: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test has ended
        os.write(report, NUMBER.pack(number))


if __name__ == "__main__":
    main()
