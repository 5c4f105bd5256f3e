"""Keeps signals from a child process until it is prepared for them."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """A process that is started meanwhile gets these signals only once it unblocks them, if it ever does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
