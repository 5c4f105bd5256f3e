"""How much CPU the calling thread has used for its own work."""

from __future__ import annotations

import time

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # another system than Linux
    getrusage = None  # type: ignore[assignment]


def own_seconds() -> float:
    """CPU time that the calling thread has used, in seconds, without what the system did for it.

    Whether the system has to give it new memory depends on what was freed before. That can take longer than
    the work in this memory: 64 MiB took 90 ms on a virtual machine. Elsewhere than on Linux, this is all CPU
    time of the thread.
    """
    return time.thread_time() if getrusage is None else getrusage(RUSAGE_THREAD).ru_utime
