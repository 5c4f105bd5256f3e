"""A real server in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from . import commands, forked

START_SECONDS = 60.0
STOP_SECONDS = 30.0
SCRIPT = commands.CONSOLE_SCRIPT
"""What starts servers; some tests put a script of theirs in its place."""


class RunningServer:
    """A server process, from its first line to its last.

    Args:
        path: a model file or a folder of models.
        flags: more of the command line of `penstock serve`.
        env: variables added to the environment of this process.
        fresh: whether it must be started by the console script, and not by a fork: see `support.forked`.

    Attributes:
        process: the server's process.
        pid: its process id.
        target: where it serves gRPC, as "host:port"; "" until it is ready.
        ops: where it serves operations, as "http://host:port"; "" until it is ready.
        http: where it serves predictions over HTTP, in the same form; "" also if it does not.
    """

    def __init__(
        self, path: Path | str, *flags: str, env: Mapping[str, str] | None = None, fresh: bool = False
    ) -> None:
        command = [str(SCRIPT), "serve", str(path), "--port", "0", "--ops-port", "0", *flags]
        self.process = _started(command, {**os.environ, **(env or {})}, fresh)
        self.pid = self.process.pid
        self.target = self.ops = self.http = ""
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._open = len(self._lines)
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(name,), name=f"server-{name}", daemon=True)
            for name in self._lines
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        with self._changed:
            return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> list[str]:
        """The lines of its log so far."""
        with self._changed:
            return [line.rstrip("\n") for line in self._lines["stderr"]]

    def wait_until_ready(self) -> None:
        """Waits for the addresses and sets `target` and `ops`.

        Raises:
            AssertionError: it did not start.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._addresses() or not self._reading(), START_SECONDS)
            found = self._addresses()
        if found is None:
            raise AssertionError(f"the server did not start: {self.stdout}{self._log()}")
        self.target, self.ops, self.http = found

    def wait_for_log(self, text: str, seconds: float = 20.0) -> str:
        """Waits for a line of the log that holds `text`, and returns it."""
        with self._changed:
            lines = self._lines["stderr"]
            self._changed.wait_for(
                lambda: any(text in line for line in lines) or not self._reading(), seconds
            )
            found = [line for line in lines if text in line]
        assert found, f"no {text!r} in the log: {self._log()}"
        return found[0].rstrip("\n")

    def stop(self, signals: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, if the process still runs, and waits for its end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signals)
        return self.wait()

    def wait(self) -> int:
        """Waits for the process to end and returns the exit code."""
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop: {self._log()}") from None
        for reader in self._readers:
            reader.join()
        return code

    def close(self) -> None:
        """Ends the process whatever it is doing, and lets go of its pipes."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        for line in stream:
            with self._changed:
                self._lines[name].append(line)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _reading(self) -> bool:
        return self._open > 0

    def _addresses(self) -> tuple[str, str, str] | None:
        text = "".join(self._lines["stdout"])
        grpc = re.search(r"^gRPC +(\S+)", text, re.MULTILINE)
        ops = re.search(r"^operations +(\S+).*\n", text, re.MULTILINE)
        http = re.search(r"^HTTP +(\S+)", text, re.MULTILINE)
        return (grpc[1], ops[1], http[1] if http else "") if grpc and ops else None

    def _log(self) -> str:
        return "\n".join(self.stderr)


@contextmanager
def running_server(
    path: Path | str,
    *flags: str,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
    exit_code: int | None = 0,
) -> Iterator[RunningServer]:
    """Serves `path` on free ports of 127.0.0.1 until the `with` statement ends; then stops it with SIGTERM.

    Args:
        path: a model file or a folder of models.
        flags: more of the command line of `penstock serve`.
        env: variables added to the environment of this process.
        fresh: as for `RunningServer`.
        exit_code: what the process must end with; None for whatever, where a test kills it.
    """
    server = RunningServer(path, *flags, env=env, fresh=fresh)
    try:
        server.wait_until_ready()
        yield server
        code = server.stop()
        assert exit_code is None or code == exit_code, f"exit code {code}: {server._log()}"
    finally:
        server.close()


def _started(
    command: list[str], environment: Mapping[str, str], fresh: bool
) -> subprocess.Popen[str] | forked.ForkedProcess:
    pipe = subprocess.PIPE
    return commands.popen(
        command,
        env=environment,
        fresh=fresh,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
    )


def full_pipe() -> tuple[int, int]:
    """A pipe into which nothing more can be written, and that is not read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    for size in (1024, 1):  # to the last byte
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"." * size)
    os.set_blocking(write, True)
    return read, write
