"""The C library's allocator: memory that it keeps for later, although nothing uses it. glibc only."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress

OWN_BYTES = 16 * 2**20
"""Blocks of this size are mappings of their own, which go back to the system when they are freed."""
HUGE_PAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
DROPPED: int | None = getattr(mmap, "MADV_DONTNEED", None)
POOL = (
    ("arena_max", "MALLOC_ARENA_MAX", -8, 1),
    ("mmap_threshold", "MALLOC_MMAP_THRESHOLD_", -3, OWN_BYTES),
    ("trim_threshold", "MALLOC_TRIM_THRESHOLD_", -1, 2 * OWN_BYTES),
)
"""How memory is pooled: a setting's name in `GLIBC_TUNABLES`, its variable, its number in malloc.h (`M_...`),
and the value. The last follows from the one before, as glibc does it."""


def _found(name: str) -> Callable[..., int]:
    """A function of the C library; one that does nothing if it has none of this name."""
    with suppress(OSError, AttributeError):
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
        return function
    return lambda *_: 0


_trim, _set, _advise = _found("malloc_trim"), _found("mallopt"), _found("madvise")


def use_one_arena() -> None:
    """Lets all threads that begin from now on share one pool of free memory, in which no large blocks lie.

    By itself glibc gives threads pools of their own. What one thread frees, no other one can use: an answer
    that runs were made for by one thread, encoded by another and sent by a third took its memory up to five
    times. Python lets one thread at a time allocate in any case, so threads hardly wait for each other.

    Once a block of up to 32 MiB was freed, glibc puts later ones into the pool. There a freed one stays
    until it is asked to give memory back, and one that is a little larger lies behind it: answers of 32 MB
    took four times their size, not three.

    What an operator has set by variables stays; see `POOL`.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    for name, variable, number, value in POOL:
        if name not in tunables and not os.environ.get(variable):
            _set(number, value)


def use_huge_pages(address: int, size: int) -> None:
    """Lets new memory, which nothing has been written to yet, consist of huge pages. Linux only.

    Where the system gives huge pages only if asked (`madvise`), each 4 KiB of new memory cost a fault, on a
    virtual machine 4 µs: more than to copy as much. Where it gives none, this does nothing.
    """
    _advise_pages(address, size, HUGE_PAGE)


def drop_pages(address: int, size: int) -> None:
    """Gives the whole pages of a block back to the system: what was in them is lost. Linux only."""
    if sys.platform == "linux":  # elsewhere the same advice keeps the contents, or does nothing
        _advise_pages(address, size, DROPPED)


def _advise_pages(address: int, size: int, advice: int | None) -> None:
    if advice is not None:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            _advise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)


def give_back() -> None:
    """Gives free memory back to the operating system. May take some milliseconds; other threads go on."""
    _trim(0)
