"""Two builds are compared by several servers of each, and by CPU time that is exact."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import machine
from benchmarks.paired import Values, row


def test_a_row_compares_processes_and_not_rounds() -> None:
    """Some rounds were disturbed, and one server of the earlier build is slow for all of its life."""
    before = [[10.0, 10.0, 40.0], [12.0, 12.0, 12.0], [10.0, 30.0, 10.0]]
    after = [[11.0, 50.0, 11.0], [12.0, 11.0, 12.0], [9.0, 11.0, 11.0]]
    figures = row("a line", Values(before, after)).split()
    medians, ratio, lowest = figures[2:4], figures[4], figures[5]
    assert medians == ["10.00", "11.00"]
    assert (ratio, lowest) == ("1.100", "0.900")
    assert figures[6:] == ["1.000", "to", "1.100", "1.20", "1.09"]


def test_the_cpu_of_a_process_and_of_those_it_started_is_exact() -> None:
    code = """
import subprocess, sys, time
work = "import time\\nwhile time.process_time() < 0.2: pass"
child = subprocess.Popen([sys.executable, "-c", work + "\\nprint(time.process_time(), flush=True)\\ninput()"],
                         stdin=subprocess.PIPE)
exec(work)
print(time.process_time(), flush=True)
input()
child.communicate(b"\\n")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = sum(float(process.stdout.readline()) for _ in range(2))
        found = machine.cpu_seconds(process.pid)
        process.communicate("\n")
    assert found == pytest.approx(said, abs=0.05)
    assert found >= said
    assert machine.cpu_seconds(process.pid) == 0.0  # it has ended
