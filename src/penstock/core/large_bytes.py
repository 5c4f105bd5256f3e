"""Joins and copies large bytes while other threads go on.

Python holds its interpreter while it copies bytes, and each page of new memory costs the system a fault. With
pages of 4 KiB a copy of 64 MiB took 85 ms on a virtual machine, in which no other thread could do anything,
nor could the thread that polls gRPC. numpy lets others go on while it copies, and with huge pages the same
copy takes 25 ms.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from penstock.core.allocator import drop_pages, use_huge_pages

LARGE_BYTES = 2**20
"""Smaller bytes are copied faster by Python itself."""
HUGE_BYTES = 2**22
"""From here on huge pages are asked for, as numpy does for its arrays."""

WRITABLE = 0x200  # PyBUF_WRITE of Python's C API

_new = ctypes.pythonapi.PyBytes_FromStringAndSize
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
_address = ctypes.pythonapi.PyBytes_AsString
_address.restype, _address.argtypes = ctypes.c_void_p, (ctypes.py_object,)
_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_memory.restype, _memory.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


def joined(parts: Sequence[bytes | memoryview]) -> bytes:
    """As `b"".join(parts)`; the parts are bytes, and contiguous views of any elements."""
    sizes = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
    size = sum(sizes)
    if size < LARGE_BYTES:
        return b"".join(parts)
    # Python's C API lets bytes be written to that were just made, before anything else knows of them.
    data: bytes = _new(None, size)
    address = _address(data)
    if size >= HUGE_BYTES:
        use_huge_pages(address, size)
    view = np.frombuffer(_memory(address, size, WRITABLE), np.uint8)
    end = 0
    for part, length in zip(parts, sizes, strict=True):
        start, end = end, end + length
        if length:
            view[start:end] = np.frombuffer(part, np.uint8)
    return data


def part_of(data: bytes, start: int, end: int) -> bytes:
    """As `data[start:end]`."""
    if end - start < LARGE_BYTES:
        return data[start:end]
    return joined((memoryview(data)[start:end],))


def forget(data: bytes) -> None:
    """Gives most of the memory of bytes back, whose contents nobody reads from now on; they are lost.

    For a message that gRPC has copied: its operation keeps the bytes until the message has left, which may
    never be. So an answer that is not read takes its size once, not twice.
    """
    drop_pages(_address(data), len(data))
