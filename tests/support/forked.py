"""Starts programs of Penstock by a fork of a process that has imported their code: see `fork_server`."""

from __future__ import annotations

import io
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from . import fork_server

START_SECONDS = 60.0
OTHERS = ("PENSTOCK_", "PYTEST_", "GRPC_EXPERIMENTS", "GRPC_VERBOSITY")
"""How variables begin that no library reads when it is loaded, or that Penstock's own imports set."""
COMMANDS = (
    "penstock.cli.group",
    "penstock.cli.serve",
    "penstock.cli.predict.command",
    "penstock.cli.score.command",
    "penstock.server",
    "penstock.processes.supervisor",
    "structlog",
)
"""What the commands that tests start most import."""
IMPORTING = (
    "penstock.importing.child",
    "penstock.importing.scikit_learn",
    "penstock.importing.verifying",
    "penstock.importing.writing",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.impute",
    "sklearn.linear_model",
    "skl2onnx",
)
"""What imports of models of scikit-learn import."""


class ForkServer:
    """The process that is forked. It starts with the first request, and runs until `close`.

    Args:
        modules: what it imports.
        changes: variables of its environment that differ from those of the tests.
    """

    def __init__(self, modules: Sequence[str], **changes: str) -> None:
        self._modules = modules
        self._changes = changes
        self._environment: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def note_environment(self) -> None:
        """The process is to have the variables that there are now."""
        self._environment = {**os.environ, **self._changes}

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process that is forked is like a new one with this environment.

        Python and libraries read their variables when they are loaded, Penstock reads its own when it starts.
        """
        return sys.platform == "linux" and _of_libraries(environment) == _of_libraries(self._environment)

    def start(self, request: fork_server.Request, files: Sequence[int]) -> int:
        """Starts a process with these standard and further files; returns the descriptor of its reports."""
        reports, report = os.pipe()
        try:
            with self._lock:
                data = json.dumps(request).encode()
                socket.send_fds(self._connection(), [data], [*files, report])
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
                program = [sys.executable, "-P", fork_server.__file__, str(theirs.fileno()), *self._modules]
                self._process = subprocess.Popen(
                    program, stdin=subprocess.DEVNULL, env=self._environment, pass_fds=(theirs.fileno(),)
                )
        return self._control


server = ForkServer(COMMANDS)
"""The one of this process for the console script."""
importer = ForkServer(IMPORTING, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
"""The one for the child processes of `penstock import`, with the variables that they have."""


def note_environment() -> None:
    """All processes that are forked are to have the variables that there are now."""
    for each in (server, importer):
        each.note_environment()


def close() -> None:
    """Ends the processes that are forked."""
    for each in (server, importer):
        each.close()


class ForkedProcess:
    """A process of a fork server, in the form of a `subprocess.Popen`.

    Args:
        arguments: the command line, the program's name first.
        environment: all of its variables.
        text, encoding, errors, cwd, pass_fds, start_new_session: as for `subprocess.Popen`.
        stdin: PIPE, a descriptor, or None, which stands for DEVNULL here.
        stdout: PIPE, DEVNULL, a descriptor, or None for that of the tests; so for `stderr`.
        module: what is run in place of the console script.
        by: the fork server.

    Attributes:
        args: the command line.
        pid: the process id.
        returncode: the exit code, negative for the signal that ended it; None until `poll` or `wait` sees it.
        stdin: what it reads, if that is a pipe.
        stdout: what it prints; so for `stderr`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        cwd: str | Path | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
        module: str = "",
        by: ForkServer = server,
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._lock = threading.Lock()
        how = {"encoding": encoding, "errors": errors} if text or encoding or errors else None
        request = fork_server.Request(
            self.args,
            dict(environment),
            str(cwd or Path.cwd()),
            module,
            list(pass_fds),
            new_session=start_new_session,
        )
        opened: list[int] = []
        given = subprocess.DEVNULL if stdin is None else stdin
        self.stdin, taken = _file(given, 0, opened, how)
        self.stdout, out = _file(stdout, 1, opened, how)
        self.stderr, err = _file(stderr, 2, opened, how)
        try:
            self._reports = by.start(request, [taken, out, err, *pass_fds])
        finally:
            for each in opened:
                os.close(each)
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

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Writes to it, reads all that it writes, and waits for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        found: list[Any] = [None, None]

        def read(place: int, stream: IO[Any]) -> None:
            found[place] = stream.read()
            stream.close()

        threads = [
            threading.Thread(target=read, args=(place, stream), daemon=True)
            for place, stream in enumerate((self.stdout, self.stderr))
            if stream is not None and not stream.closed
        ]
        for thread in threads:
            thread.start()
        if self.stdin is not None and not self.stdin.closed:
            with suppress(BrokenPipeError):
                if input:
                    self.stdin.write(input)
            with suppress(BrokenPipeError):
                self.stdin.close()
        self.wait(timeout)
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

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


def _file(
    wanted: int | None, standard: int, opened: list[int], text: Mapping[str, Any] | None
) -> tuple[Any, int]:
    """Our end of a standard file, if it is a pipe, and its own; notes in `opened` what is to be closed."""
    if wanted is None or wanted == subprocess.DEVNULL:
        if wanted is None:
            return None, standard
        opened.append(os.open(os.devnull, os.O_RDWR))
        return None, opened[-1]
    if wanted != subprocess.PIPE:
        return None, wanted if isinstance(wanted, int) else wanted.fileno()
    read, write = os.pipe()
    ours, theirs = (write, read) if standard == 0 else (read, write)
    opened.append(theirs)
    if text is None:
        return open(ours, "wb" if standard == 0 else "rb"), theirs
    if standard == 0:
        return io.TextIOWrapper(open(ours, "wb"), write_through=True, **text), theirs
    return open(ours, **text), theirs


def _of_libraries(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OTHERS)}
