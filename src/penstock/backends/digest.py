"""The SHA-256 of a model version, which can be reproduced with `sha256sum`.

For a model in one file, it is that of the file. For a model with external data, it is that of the output of:

    (sha256sum < model.onnx; sha256sum weights.bin) | sha256sum

with all the files that the model names, once each, in the order of their names' bytes.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.backends.onnx_file import beside, external_files, sha256

SMALL_BYTES = 1 << 25  # hashing this takes about 20 to 80 ms
LEAST_URGENT = 19
CHANGED = (
    "changed while it was loaded: put a new version into a folder of its own, or write the new file beside "
    "the old one and rename it"
)

Stamp = tuple[tuple[int, int, int, int], ...]
_computed: dict[Stamp, str] = {}
"""Digests that were computed before a model was loaded, so that loading it need not compute them again."""


class Stamps:
    """Shows whether files have changed since: by their identity, size and time of change.

    Args:
        files: the files, which exist.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files: list[str] = []
        self._seen: list[tuple[int, int, int, int]] = []
        self.add(files)

    def add(self, files: Sequence[Path]) -> None:
        """Watches further files from now on."""
        names = [os.fspath(file) for file in files]
        self._files += names
        self._seen += map(_stamp, names)

    @property
    def sizes_bytes(self) -> Sequence[int]:
        """The bytes of each file."""
        return [size for _, _, size, _ in self._seen]

    @property
    def all(self) -> Stamp:
        """Equal for the same files as long as they do not change."""
        return tuple(self._seen)

    def changed(self) -> Path | None:
        """The first of the files that has changed; None where none has."""
        for file, before in zip(self._files, self._seen, strict=True):
            if _stamp(file) != before:
                return Path(file)
        return None


def _stamp(file: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0, 0, 0)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Digest:
    """The SHA-256 of a version's files, computed at once if they are small, else in a thread.

    Args:
        path: the model file.
        names: of the files of its external data, relative to its folder.
        stamps: of all these files.

    Attributes:
        value: in hexadecimal; "" until it is known, and for ever if the files change before that.
    """

    def __init__(self, path: Path, names: Sequence[str], stamps: Stamps) -> None:
        self.value = ""
        self._path = path
        self._names = names
        self._stamps = stamps
        self._stopped = False
        known = _computed.pop(stamps.all, "")
        if known:
            self.value = known
        elif sum(stamps.sizes_bytes) <= SMALL_BYTES:
            self._work_out()
        else:
            threading.Thread(target=self._work_out_slowly, name="penstock-sha256", daemon=True).start()

    def stop(self) -> None:
        """Stops the computation, if it is not done yet."""
        self._stopped = True

    def _work_out_slowly(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_URGENT)  # of this thread alone
        self._work_out()

    def _work_out(self) -> None:
        try:
            value = _sha256_of(self._path, self._names, lambda: self._stopped)
        except OSError:  # a file is gone
            return
        if not self._stopped and self._stamps.changed() is None:
            self.value = value


def digest_before_load(path: Path) -> tuple[str, Stamps] | None:
    """The SHA-256 of a version's files, before it is loaded; loading it then takes the same value.

    Args:
        path: the model file.

    Returns:
        As `Digest.value`, and the files as they were then; None if they cannot be read, change meanwhile, or
        are no model.
    """
    try:
        stamps = Stamps([path])  # before it is read
        names = beside(path, external_files(path))
        stamps.add([path.parent / name for name in names])
        value = _sha256_of(path, names, lambda: False)
    except (OSError, ValueError):  # loading it says in which way
        return None
    if stamps.changed() is not None:
        return None
    _computed[stamps.all] = value
    return value, stamps


def _sha256_of(path: Path, names: Sequence[str], stopped: Callable[[], bool]) -> str:
    of_model = sha256(path, stopped)
    if not names:
        return of_model
    of_weights = (
        f"{sha256(path.parent / name, stopped)}  {name}\n" for name in sorted(names, key=os.fsencode)
    )
    return hashlib.sha256(os.fsencode("".join([f"{of_model}  -\n", *of_weights]))).hexdigest()
