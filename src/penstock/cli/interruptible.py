"""Waits so that signals are noticed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread

LOOK_SECONDS = 0.1
"""How late a signal may be noticed that the operating system gave to another thread."""


def interruptible(work: Callable[[], None]) -> None:
    """Runs `work` on another thread and waits for it, so that a signal interrupts nothing but the wait.

    Inside `work`, Ctrl-C could leave a lock of gRPC locked, and the exit would hang.

    Python runs the handlers of signals on the main thread, whichever thread a signal is given to. A wait
    without an end does not notice one that came to another thread, or just before this one fell asleep.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the thread continues.
        Exception: whatever `work` raises.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name="penstock-work", daemon=True).start()
    while not wait((done,), LOOK_SECONDS).done:
        pass
    done.result()
