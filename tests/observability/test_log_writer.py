"""A log that is not read, or cannot be written, holds up no thread that logs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

from penstock.observability.log_writer import MOST_LINES, LineWriter

FLOOD = """
import logging, os, sys, threading
from penstock.config import LogConfig
from penstock.observability import logs
read, write = os.pipe()
os.dup2(write, 2)
logs.configure(LogConfig())
log = logs.logger("penstock")
for number in range(9000):
    log.info("x" * 100, number=number)
print(logs.dropped() > 0, flush=True)
if sys.argv[1] == "read":
    os.close(write)
    file = os.fdopen(read)
    def look():
        for line in file:
            if "dropped" in line:
                print("told", flush=True)
    threading.Thread(target=look, daemon=True).start()
    logs.flush()
    logs.flush()
"""


class Gate(io.StringIO):
    """A stream whose reader takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        self.opened.wait()
        return super().write(text)


def test_lines_that_do_not_fit_are_dropped_counted_and_told() -> None:
    gate = Gate()
    writer = LineWriter(gate, lambda count: f"missing {count}\n")
    for number in range(MOST_LINES + 100):
        writer.put(f"{number}\n")
    assert not writer.flush(0.01)
    assert 98 <= writer.dropped <= 100  # one line is being written, and does not wait
    gate.opened.set()
    assert writer.flush(30)
    lines = gate.getvalue().splitlines()
    assert lines.count(f"missing {writer.dropped}") == 1
    lines.remove(f"missing {writer.dropped}")
    assert lines == [str(number) for number in range(MOST_LINES + 100 - writer.dropped)]


def test_a_stream_that_fails_is_counted_and_ends_nothing() -> None:
    closed = io.StringIO()
    writer = LineWriter(closed, str)
    writer.put("1\n")
    assert writer.flush(30)
    closed.close()
    writer.put("2\n")
    assert writer.flush(30)
    assert writer.dropped == 1


def run(how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FLOOD, how], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_ends_although_its_log_is_not_read() -> None:
    ended = run("leave")
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def test_what_is_missing_is_told_once_the_log_is_read() -> None:
    ended = run("read")
    assert (ended.returncode, ended.stdout) == (0, "True\ntold\n")
    assert os.linesep not in ended.stderr
