"""The benchmark of tables runs, and compares what it says."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.servers import ROOT

NAMES = ["score", "loop, csv", "loop, in memory", "loop, pandas", "one vector", "60 columns"]


def test_it_measures_all_lines_and_their_ratios() -> None:
    command = [sys.executable, "-m", "benchmarks.tabular", "--rounds", "1", "--rows", "600"]
    command += ["--streamed", "300"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    lines = dict(re.findall(r"(?m)^(\S.*?)  +([\d.]+) s  .* CPU +[\d.]+ s$", done.stdout))
    assert [*lines] == NAMES
    assert all(float(seconds) > 0 for seconds in lines.values())
    ratios = re.findall(r"(?m)^(.* over .*): (time|CPU) [\d.]+ \([\d.]+ to [\d.]+\)$", done.stdout)
    assert len(ratios) == 8
