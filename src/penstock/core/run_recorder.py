"""Records which models are being run, in memory that another process can read after this one has crashed.

A model can end the whole process with a signal. Then no Python code runs any more, so the names of the
models that were being run must already be in memory that outlives the process: a memory file that the parent
creates (`create_page`), the child writes to (`RunRecorder`) and the parent reads once the child has died
(`running_models`).

Each loaded version has an entry: how many runs are going on, and its name. A run writes only the number,
which takes less than 0.1 µs; the name is written when the model is loaded.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from threading import Lock

ENTRY_BYTES = 256
ENTRIES = 4096
PAGE_BYTES = ENTRY_BYTES * ENTRIES
"""Address space; memory is taken only by the entries in use."""

_HEAD = struct.Struct("=II")  # the runs going on, and the bytes of the name that follows
_NAME_BYTES = ENTRY_BYTES - _HEAD.size


def create_page() -> int:
    """Creates a memory file without a name, for one child process. Linux only.

    Returns:
        The file descriptor. A child inherits it only through `pass_fds`.

    Raises:
        OSError: the system cannot create a memory file.
    """
    descriptor = os.memfd_create("penstock-runs", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, PAGE_BYTES)
    return descriptor


def running_models(descriptor: int) -> list[str]:
    """The models that are being run, or were when the process that writes to the page died.

    Args:
        descriptor: of the page.

    Returns:
        The names that were given to `RunRecorder.counter`, in alphabetical order.
    """
    page = os.pread(descriptor, PAGE_BYTES, 0)
    names = set()
    for start in range(0, len(page), ENTRY_BYTES):
        runs, length = _HEAD.unpack_from(page, start)
        if runs:
            begin = start + _HEAD.size
            names.add(page[begin : begin + min(length, _NAME_BYTES)].decode(errors="replace"))
    return sorted(names)


class RunRecorder:
    """Gives every loaded version its counter of runs. May be used by several threads at once.

    Args:
        descriptor: of a page that another process reads (see `create_page`). With None, the counters are
            in memory of this process only.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._page = mmap.mmap(-1 if descriptor is None else descriptor, PAGE_BYTES)
        self._lock = Lock()
        self._free = list(range(PAGE_BYTES - ENTRY_BYTES, -1, -ENTRY_BYTES))  # where free entries start
        self._taken: dict[str, list[int]] = {}

    def counter(self, model: str) -> ctypes.c_uint32:
        """Takes an entry of the page for a loaded version.

        Args:
            model: what `running_models` calls it; cut after 248 bytes of UTF-8.

        Returns:
            The counter, whose `value` is to be the number of runs going on. If all entries of the page are
            taken, it lies elsewhere and is not read.
        """
        name = model.encode()[:_NAME_BYTES]
        with self._lock:
            if not self._free:
                return ctypes.c_uint32()
            start = self._free.pop()
            self._taken.setdefault(model, []).append(start)
            _HEAD.pack_into(self._page, start, 0, len(name))
            self._page[start + _HEAD.size : start + _HEAD.size + len(name)] = name
            return ctypes.c_uint32.from_buffer(self._page, start)

    def forget(self, model: str) -> None:
        """Frees the oldest entry of a model, whose counter is not written any more; never an error."""
        with self._lock:
            starts = self._taken.get(model)
            if not starts:
                return
            start = starts.pop(0)
            if not starts:
                del self._taken[model]
            _HEAD.pack_into(self._page, start, 0, 0)
            self._free.append(start)
