"""How much memory there is, and how much a process takes. Known on Linux; elsewhere only in part."""

from __future__ import annotations

import mmap
import os
import re
import time
from functools import cache
from pathlib import Path

OF_CGROUPS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
TRIED_BYTES, TRIES = 1 << 20, 3
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def resident_bytes(pid: int, root: Path = Path("/")) -> int:
    """The memory of a process that is in use; 0 if that is not known.

    Args:
        pid: the process.
        root: where `proc` is found.
    """
    try:
        pages = (root / f"proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def available_bytes(root: Path = Path("/")) -> int:
    """The memory that could still be taken, by what the machine has left and by a container's limit.

    This process's own memory is subtracted from the limit, that of other processes in the container is not.

    Args:
        root: where `proc` and the mounted cgroups are found.

    Returns:
        The smaller of both; 0 if neither is known.
    """
    known: list[int] = []
    try:
        found = _AVAILABLE.search((root / "proc/meminfo").read_text())
        known += [int(found[1]) * 1024] if found else []
    except OSError:
        pass
    for name in OF_CGROUPS:
        try:
            known.append(max(int((root / name).read_text()) - resident_bytes(os.getpid(), root), 0))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(known, default=0)


@cache
def new_memory_seconds() -> float:
    """How long the system takes to give a thread a byte of memory that the process did not have, in seconds.

    It is measured at the first call, which takes a millisecond or a few: the shortest of `TRIES`.
    """
    tries = []
    for _ in range(TRIES):
        with mmap.mmap(-1, TRIED_BYTES) as memory:
            before = time.thread_time()
            memory[:: mmap.PAGESIZE] = bytes(TRIED_BYTES // mmap.PAGESIZE)
            tries.append(time.thread_time() - before)
    return min(tries) / TRIED_BYTES
