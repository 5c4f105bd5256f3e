"""Servers under test: started on their cores, watched, and stopped with all they started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).parents[1]
START_SECONDS = 60
STOP_SECONDS = 30
STANDSTILL_SECONDS = 0.05
ADDRESS = re.compile(r"^gRPC +(\S+).*\n", re.MULTILINE)
ANSWERED = re.compile(r'^penstock_requests_total\{[^}]*code="OK"[^}]*\} (\S+)$', re.MULTILINE)
OPERATIONS = re.compile(r"^operations +(?:http://)?(\S+)/?\s", re.MULTILINE)


class ServerError(Exception):
    """A server did not start, or has ended; the message holds the end of what it wrote."""


@dataclass(frozen=True)
class Server:
    """A server under test.

    Attributes:
        process: the process that was started.
        output: the file that takes what it writes.
        target: where it serves gRPC, "host:port".
        operations: where Penstock serves its metrics, "host:port"; "" for any other server.
    """

    process: subprocess.Popen[bytes]
    output: Path
    target: str
    operations: str = ""

    def cpu_seconds(self) -> float:
        """The CPU time it has used so far, that of the processes it started included."""
        self.check()
        return machine.cpu_seconds(self.process.pid)

    def resident_bytes(self) -> int:
        """Its memory, that of the processes it started included."""
        self.check()
        return machine.resident_bytes(self.process.pid)

    def predictions(self) -> int | None:
        """How many predictions Penstock has answered without an error; None where no metrics say so.

        It counts a call when it is over, which may be just after the client has its answer: so this asks
        until the count stands still.
        """
        if not self.operations:
            return None
        before, now = -1, self._counted()
        while now != before:
            time.sleep(STANDSTILL_SECONDS)
            before, now = now, self._counted()
        return now

    def _counted(self) -> int:
        with urllib.request.urlopen(f"http://{self.operations}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return int(sum(float(count) for count in ANSWERED.findall(text)))

    def check(self) -> None:
        """Raises ServerError if it has ended."""
        if self.process.poll() is not None:
            raise ServerError(f"the server ended with {self.process.returncode}:\n{_end(self.output)}")


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], cores: Sequence[int], variables: Mapping[str, str | None] | None = None
) -> Iterator[Server]:
    """Runs a server until the block ends.

    Args:
        command: what to run, in the project's folder; it prints a line "gRPC  host:port" once it serves.
        cores: the cores it may use.
        variables: of its environment; None takes one away.

    Raises:
        ServerError: it did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        with launched(command, cores, variables or {}, output) as process:
            yield _ready(process, output)


@contextlib.contextmanager
def launched(
    command: Sequence[object],
    cores: Sequence[int],
    variables: Mapping[str, str | None],
    output: Path = Path(os.devnull),
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process on its cores, with all that it writes in a file, until the block ends."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*machine.on_cores(*cores), *map(str, command)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(variables),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with some variables changed, and those that are None left out."""
    merged = {**os.environ, **variables}
    return {name: value for name, value in merged.items() if value is not None}


def _ready(process: subprocess.Popen[bytes], output: Path) -> Server:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        text = output.read_text(errors="replace")
        if found := ADDRESS.search(text):
            operations = OPERATIONS.search(text)
            return Server(process, output, found[1], operations[1] if operations else "")
        time.sleep(0.01)
    raise ServerError(f"{process.args!r} did not start:\n{_end(output)}")


def _end(output: Path) -> str:
    return "\n".join(output.read_text(errors="replace").splitlines()[-20:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a server, and then whatever is left of the session that it was started as the leader of."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
