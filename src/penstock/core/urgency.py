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
    """Threads whose work may wait for that of all others: the ones that take calls, and that run models."""
    return ThreadPoolExecutor(count, name, initializer=lower, initargs=(WORKER_STEPS,))


def lower(steps: int) -> None:
    """Makes the calling thread less urgent by some steps of `nice`. It cannot become more urgent again."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox forbids it
            now = os.getpriority(os.PRIO_PROCESS, thread)  # of this thread alone
            os.setpriority(os.PRIO_PROCESS, thread, min(now + steps, LEAST))
