"""The C library's allocator: memory that it keeps for later, although nothing uses it. glibc only."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from contextlib import suppress

ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h
HUGE_PAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
CHOSEN = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
"""Variables by which an operator chooses for himself."""


def _found(name: str) -> Callable[..., int]:
    """A function of the C library; one that does nothing if it has none of this name."""
    with suppress(OSError, AttributeError):
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
        return function
    return lambda *_: 0


_trim, _set, _advise = _found("malloc_trim"), _found("mallopt"), _found("madvise")


def use_one_arena() -> None:
    """Lets all threads that begin from now on share one pool of free memory.

    By itself glibc gives threads pools of their own. What one thread frees, no other one can use: an answer
    that runs were made for by one thread, encoded by another and sent by a third took its memory up to five
    times. Python lets one thread at a time allocate in any case, so threads hardly wait for each other.
    """
    if not any(os.environ.get(each) for each in CHOSEN):
        _set(ARENA_MAX, 1)


def use_huge_pages(address: int, size: int) -> None:
    """Lets new memory, which nothing has been written to yet, consist of huge pages. Linux only.

    Where the system gives huge pages only if asked (`madvise`), each 4 KiB of new memory cost a fault, on a
    virtual machine 4 µs: more than to copy as much. Where it gives none, this does nothing.
    """
    if HUGE_PAGE is not None:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            _advise(ctypes.c_void_p(start), ctypes.c_size_t(length), HUGE_PAGE)


def give_back() -> None:
    """Gives free memory back to the operating system. May take some milliseconds; other threads go on."""
    _trim(0)
