"""Counts the instructions of a server, by Valgrind's callgrind.

The times of two processes differ by several percent even on a quiet machine. The same calls take as many
instructions, but for a few in a thousand, whatever else the machine does. A server under callgrind is some
fifty times slower, so what a thread does by the clock, and what a timed run decides, is not what it is
otherwise.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import load, servers
from benchmarks.servers import Server

START_SECONDS = 600
DUMP_SECONDS = 30.0
TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
SAME = {"PYTHONHASHSEED": "0", "PENSTOCK_RUNNERS__INLINE_BELOW_SECONDS": "1"}
"""What makes two processes do the same: under callgrind, some runs would seem too long to be made at once."""


class Counted:
    """A server whose instructions are counted.

    Args:
        server: the server.
        folder: where callgrind writes.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._folder = folder

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Counts what the server does meanwhile; gives the instructions of each thread, most first."""
        found: list[int] = []
        self._control("--zero")
        self._control("--instr=on")
        try:
            yield found
        finally:
            self._control("--dump")
            self._control("--instr=off")
        end = time.monotonic() + DUMP_SECONDS
        while not found and time.monotonic() < end:
            time.sleep(0.1)
            for each in self._folder.glob("counts.*"):
                found += map(int, TOTAL.findall(each.read_text()))
                each.unlink()
        found.sort(reverse=True)
        if not found:
            raise SystemExit("callgrind has written nothing")

    def _control(self, word: str) -> None:
        command = ["callgrind_control", word, str(self.server.process.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=load.LIMIT_SECONDS)


def start(
    stack: ExitStack, command: Sequence[str | Path], core: int, variables: Mapping[str, str | None] = SAME
) -> Counted:
    """Starts a server, a Python script with its interpreter, under callgrind."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]
    valgrind += [f"--callgrind-out-file={folder}/counts", f"--log-file={folder}/log"]
    servers.START_SECONDS = START_SECONDS
    return Counted(stack.enter_context(servers.started([*valgrind, *command], [core], variables)), folder)


def require() -> None:
    """Ends the command where callgrind is not installed."""
    if shutil.which("valgrind") is None:
        raise SystemExit("this needs callgrind (Debian: apt install valgrind)")
