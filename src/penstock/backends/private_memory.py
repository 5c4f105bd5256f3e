"""Copies memory-mapped weights, so that later changes of their file cannot affect the loaded model.

ONNX Runtime maps external data into memory. Unless it has copied a tensor elsewhere, as it does for matrix
products, the session reads the file for as long as it lives: if the file is overwritten, the answers change;
if it becomes shorter, a signal ends the process. So all that is still mapped after loading is copied, and the
copy replaces the mapping at the same addresses. docs/decisions/0013-external-weights.md has the measurements.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MAPS = Path("/proc/self/maps")
AVAILABLE = sys.platform == "linux"
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
FAILED = ctypes.c_void_p(-1).value

# 7f7a5b400000-7f7a672bc000 rw-p 00000000 fe:00 9977892   /models/m/1/weights.bin
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ +(/.*)")
_DELETED = " (deleted)"


def mapped(files: Sequence[Path]) -> Sequence[tuple[int, int]]:
    """Where these files are mapped into the memory of this process: addresses and lengths in bytes."""
    if not files or not AVAILABLE:
        return ()
    names = {os.path.realpath(file) for file in files}
    return [(start, end - start) for start, end, name in _mappings() if name in names]


def make_private(files: Sequence[Path]) -> int:
    """Replaces the mappings of files by copies of what they hold. On Linux; elsewhere it does nothing.

    Nothing may write to these addresses meanwhile; reading is safe.

    Returns:
        The bytes copied.

    Raises:
        OSError: there is not enough memory.
    """
    places = mapped(files)
    for address, length in places:
        _copy_in_place(address, length)
    return sum(length for _, length in places)


def _mappings() -> Iterator[tuple[int, int, str]]:
    """The mapped files: where each begins and ends, and its name."""
    for line in MAPS.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
        found = _LINE.fullmatch(line)
        if found:
            name = found[4].replace("\\012", "\n")  # the one character that is escaped
            yield int(found[1], 16), int(found[2], 16), name.removesuffix(_DELETED)


def _copy_in_place(address: int, length: int) -> None:
    library = _library()
    readable = mmap.PROT_READ | mmap.PROT_WRITE
    copy = library.mmap(None, length, readable, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    _check(copy)
    ctypes.memmove(copy, address, length)
    # One step to every other thread: an address leads to the file or to the copy, never to nothing.
    _check(library.mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, address))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype = library.mremap.restype = pointer
    library.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    library.mremap.argtypes = (pointer, size, size, number, pointer)
    return library


def _check(address: int | None) -> None:
    if address == FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
