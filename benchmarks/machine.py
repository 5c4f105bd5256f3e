"""The machine: its cores, what a process on it has used, and how to describe it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of Linux's posix-timers.h, in the number of another process's clock


def cores() -> tuple[int, int]:
    """The core for the server and the core for the load.

    Raises:
        SystemExit: this process may use fewer than two cores, or cannot be pinned.
    """
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        raise SystemExit("the benchmarks pin processes to cores: they need Linux and taskset (util-linux)")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("the benchmarks need two cores, one for the server and one for the load")
    return usable[0], usable[1]


def on_cores(*numbers: int) -> list[str]:
    """The beginning of a command that is to run on these cores only."""
    return ["taskset", "-c", ",".join(map(str, numbers))]


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, _text(children).split())
    return found


def cpu_seconds(pid: int) -> float:
    """The user and system time that a process and its living descendants have used, to the nanosecond."""
    return sum(map(_cpu_seconds, tree(pid)))


def resident_bytes(pid: int) -> int:
    """The memory of a process and its descendants that is in RAM; what they share counts for each."""
    return PAGE_BYTES * sum(int((_text(Path(f"/proc/{p}/statm")) or "0 0").split()[1]) for p in tree(pid))


def description() -> str:
    """The processor, the number of cores, and the operating system."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _cpu_seconds(pid: int) -> float:
    """By the clock that Linux keeps for each process: /proc/PID/stat counts in steps of 10 ms only."""
    try:
        return time.clock_gettime(~pid << 3 | PROCESS_CLOCK)
    except OSError:  # it has just ended
        return 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""


def _processor() -> str:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
