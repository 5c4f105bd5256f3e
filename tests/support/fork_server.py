"""A program that has imported what `penstock serve` imports, and is forked for each server a test starts.

To import it takes most of the CPU of a start, and the tests start hundreds of servers. From the `main` of
`penstock.cli` on, such a process does what the console script does. `support.forked` runs this program.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

MODULES = (
    "penstock.cli.group",
    "penstock.cli.serve",
    "penstock.server",
    "penstock.processes.supervisor",
    "structlog",
)
MAX_BYTES = 2**20
NUMBER = struct.Struct("q")
"""The form of a report."""


class Request(NamedTuple):
    """A process to start. With it come descriptors for standard output, standard error and reports.

    The reports are two numbers: the process id, and once the process has ended, its exit code.

    Attributes:
        arguments: the command line, the program's name first.
        environment: all of its variables.
        folder: the folder it runs in.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str


def main() -> None:
    """Forks until its parent ends or closes the connection. In each forked process, runs the command line."""
    for name in MODULES:
        import_module(name)
    gc.freeze()  # otherwise the collector would write to memory that all these processes share
    request = _next_request(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv[:] = request.arguments
    from penstock.cli import main

    sys.exit(main())


def _next_request(control: socket.socket) -> Request:
    """Waits for requests, and forks for each. Returns in the forked processes only, each with its request."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, MAX_BYTES)
            _report_ended(reports)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(control, MAX_BYTES, 3)
            if not data:
                for pid in reports:  # of tests that were killed
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            out, err, report = descriptors
            with warnings.catch_warnings(action="ignore"):  # numpy's threads are prepared for a fork
                pid = os.fork()
            if not pid:
                _become_the_program(out, err)
                control.close()
                for each in (woken, wake, report, *reports.values()):
                    os.close(each)
                return Request(*json.loads(data))
            reports[pid] = report
            _write(report, pid)
            os.close(out)
            os.close(err)


def _become_the_program(out: int, err: int) -> None:
    """Gives a forked process the signals and standard files that a program starts with."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, each in ((1, out), (2, err)):
        os.dup2(each, standard)
        os.close(each)
    # Python's own files remember whether they could be rewound, when they were others.
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115 - open until the end
    sys.stderr = open(2, "w", 1, sys.stderr.encoding, "backslashreplace", closefd=False)  # noqa: SIM115


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
