"""How Python's interpreter and a core are shared by the threads of a server."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

SWITCH_SECONDS = 0.0005
"""A thread that waits for the interpreter asks for it after this time, and gets it at the other's next step
of Python. The thread that polls gRPC waits three or four times for a request. By itself Python lets others
wait for 5 ms each time: beside four callers of 250,000 typed integers, a call of another model took 9.4 ms in
the median, and 3.5 ms so. Threads that give the interpreter back earlier, as all do for small requests, never
notice."""


def share_fairly() -> None:
    """Lets no thread wait longer than `SWITCH_SECONDS` for another one that runs Python code."""
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))


LESS_URGENT, LEAST_URGENT = 5, 19
"""Steps of `nice`. Linux divides a core equally among the threads that want it. The thread that polls gRPC
often wants half of it. Where workers and runner threads want the rest, it waited for milliseconds, ready to
run: three quarters of the time of the slowest calls beside large messages. With 5 steps a worker counts as a
third of a thread."""


def less_urgent() -> Callable[[], None]:
    """What makes the thread that calls it less urgent than the one that calls this; nothing on other systems.

    It cannot be undone, and threads that this thread starts are as it is then.
    """
    if sys.platform != "linux":  # elsewhere `nice` is that of the whole process
        return lambda: None
    steps = min(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + LESS_URGENT, LEAST_URGENT)

    def step_back() -> None:
        with suppress(OSError):  # not permitted here
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), steps)

    return step_back
