"""How urgent a thread is to the system's scheduler. Linux only; elsewhere all threads stay as they are."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

LEAST = 19
WORKER_STEPS = 5
"""A thread with so many steps less gets a third of the time of another one, if both want all of a core."""


def pool(count: int, name: str) -> ThreadPoolExecutor:
    """Threads whose work may wait for that of all others: the ones that take calls, and that run models.

    They are less urgent than the thread that makes the pool, whichever thread begins them.
    """
    return ThreadPoolExecutor(count, name, initializer=become, initargs=(less_urgent(WORKER_STEPS),))


def less_urgent(steps: int) -> int:
    """The niceness that is some steps less urgent than the calling thread; `LEAST` at most."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox forbids it
            return min(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + steps, LEAST)
    return LEAST


def become(niceness: int) -> None:
    """Gives the calling thread this niceness, unless it has more: it cannot become more urgent again.

    Not by some steps: a thread begins as urgent as the one that begins it, which may be another worker.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox forbids it
            if os.getpriority(os.PRIO_PROCESS, thread) < niceness:  # of this thread alone
                os.setpriority(os.PRIO_PROCESS, thread, niceness)
