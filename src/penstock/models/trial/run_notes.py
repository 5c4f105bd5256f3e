"""Notes what a model is doing in memory that another process can read after this one has ended."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence

from penstock.backends.backend import Backend, RunControl
from penstock.core.tensors import Array, TensorSpec

PAGE_BYTES = 1 << 14
_LENGTH = struct.Struct("=I")
MOST_BYTES = PAGE_BYTES - _LENGTH.size


def create_page() -> int:
    """Creates a file without a name for the notes of one process; returns its descriptor.

    Raises:
        OSError: the system cannot create one.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("penstock-trial", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, PAGE_BYTES)
    return descriptor


def read_note(descriptor: int) -> str:
    """The last note on a page, in words that follow "when"; "" if there is none."""
    page = os.pread(descriptor, PAGE_BYTES, 0)
    (length,) = _LENGTH.unpack_from(page)
    text = page[_LENGTH.size : _LENGTH.size + min(length, MOST_BYTES)].decode(errors="replace")
    return text if length <= MOST_BYTES else f"{text}..."


def clear_note(descriptor: int) -> None:
    """Removes the last note from a page."""
    os.pwrite(descriptor, _LENGTH.pack(0), 0)


class RunNotes:
    """Writes notes to a page.

    Args:
        descriptor: of the page.
    """

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, PAGE_BYTES)

    def write(self, text: str) -> None:
        """Replaces the note, by words that follow "when"."""
        data = text.encode()
        self._page[_LENGTH.size : _LENGTH.size + min(len(data), MOST_BYTES)] = data[:MOST_BYTES]
        _LENGTH.pack_into(self._page, 0, len(data))


class NotedRuns:
    """A backend that notes the shapes and datatypes of the inputs of a run before it begins.

    Args:
        backend: does the runs.
        notes: where they are noted.
    """

    def __init__(self, backend: Backend, notes: RunNotes) -> None:
        self._backend = backend
        self._notes = notes
        self.signature, self.file, self.providers = backend.signature, backend.file, backend.providers
        self.close = backend.close

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`."""
        self._notes.write(f"it ran on {_described(self.signature.inputs, inputs)}")
        return self._backend.run(outputs, inputs, control)


def _described(specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array]) -> str:
    tensors = (
        f"{name} {specs[name].datatype}{list(array.shape)}" if name in specs else name
        for name, array in inputs.items()
    )
    return ", ".join(tensors) or "no inputs"
