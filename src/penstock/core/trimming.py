"""Memory that the allocator keeps for later, although nothing uses it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress


def _found() -> Callable[[int], int]:
    """The function of the C library that gives free memory back; one that does nothing if it has none."""
    with suppress(OSError, AttributeError):
        return ctypes.CDLL(None).malloc_trim
    return lambda _: 0


_trim = _found()


def give_back() -> None:
    """Gives free memory back to the operating system. May take some milliseconds; other threads go on."""
    _trim(0)
