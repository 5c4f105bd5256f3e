"""Signals end a wait, whichever thread the operating system gives them to."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from penstock.cli.interruptible import interruptible

PROGRAM = """
    import os, signal, threading, time
    from penstock.cli.interruptible import interruptible

    handler = {handler}
    if handler is not None:
        signal.signal(signal.{name}, handler)

    def work():
        time.sleep(0.5)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.{name})
        threading.Event().wait()

    try:
        interruptible(work)
    except KeyboardInterrupt:
        os._exit(7)
"""


@pytest.mark.parametrize(("name", "handler"), [("SIGINT", "None"), ("SIGTERM", "lambda *_: os._exit(7)")])
def test_a_signal_that_another_thread_was_given_is_noticed(name: str, handler: str) -> None:
    program = textwrap.dedent(PROGRAM).format(name=name, handler=handler)
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=20).returncode == 7


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        interruptible(work)
