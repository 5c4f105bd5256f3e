"""Pauses Python's garbage collector while many objects are made that live on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_pauses = 0
_was_on = False


@contextmanager
def paused() -> Iterator[None]:
    """Switches the collector off: it would look through the new objects again and again. On any thread."""
    global _pauses, _was_on  # noqa: PLW0603 - the collector is one for the process
    with _lock:
        if not _pauses:
            _was_on = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_on:
                gc.enable()


def resume_after_imports() -> None:
    """Switches the collector on, which was off while modules were imported: these stay, so it skips them.

    Looking through them again and again takes a tenth of the CPU time of a start.
    """
    gc.freeze()
    gc.enable()
