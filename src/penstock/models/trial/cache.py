"""Keeps what was learned about models in a folder, one JSON file each, for the next start.

Several servers may use a folder at once: files appear complete or not at all, and while one server tries a
model, others that want to try the same one wait for the result. Nothing here is an error: a file that is
broken is ignored and replaced, and a folder that cannot be written is read only.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

from penstock.models.trial.learned import DIFFERED, LEARNED, Differed, Learned

try:
    import fcntl
except ImportError:  # not a Unix system: servers do not wait for each other
    fcntl = None  # type: ignore[assignment]

MOST_FILES, MOST_BYTES = 10_000, 1 << 26
"""What the folder may hold; at more, the files that were not used for longest are removed."""
LEFT_SHARE = 0.9  # how much of that is left then
USED_SECONDS = 24 * 3600.0
"""The time of a file is set when it is used, but not more often than this."""
STALE_SECONDS = 3600.0  # a temporary file of this age is left over from a process that ended
ENDING, TEMPORARY = ".json", ".tmp"
LOCKS = 1 << 20


class LearnedCache:
    """The folder of what was learned.

    Args:
        folder: the folder, which is made when it is first written to.
        not_kept: called once if nothing can be written, with the reason.
    """

    def __init__(self, folder: Path, not_kept: Callable[[str], None] = lambda reason: None) -> None:
        self._folder = folder
        self._root = f"{folder}/"  # a text: most of the time of a second start goes into many small steps
        self._not_kept = not_kept
        self._writes = True
        self._wrote = False

    def read(self, key: str) -> Learned | None:
        """What is kept under a key; None if there is nothing that can be used."""
        path = f"{self._root}{key}{ENDING}"
        try:
            data, used = _content(path)
            learned = LEARNED.load(data)
            learned.check()
        except (OSError, ValueError):
            return None
        if time.time() - used > USED_SECONDS:
            with suppress(OSError):
                os.utime(path)
        return learned

    def write(self, key: str, learned: Learned) -> None:
        """Keeps what was learned under a key."""
        self._write(self._path(key), LEARNED.dump(learned))

    def forget(self, key: str) -> None:
        """Removes what is kept under a key."""
        if self._writes:
            with suppress(OSError):
                self._path(key).unlink(missing_ok=True)

    def read_differed(self, key: str) -> Differed | None:
        """What live requests have shown of the batches of a model; None for nothing."""
        path = f"{self._root}{differed_name(key)}"
        try:
            differed = DIFFERED.load(_content(path)[0])
        except (OSError, ValueError):
            return None
        with suppress(OSError):
            os.utime(path)  # it is not removed while the model is served
        return differed

    def write_differed(self, key: str, differed: Differed) -> None:
        """Keeps what live requests have shown of the batches of a model."""
        self._write(self._folder / differed_name(key), DIFFERED.dump(differed))

    def _write(self, path: Path, data: bytes) -> None:
        if not self._writes:
            return
        temporary = path.with_suffix(f".{os.getpid()}-{get_ident()}{TEMPORARY}")
        try:
            self._make_folder()
            temporary.unlink(missing_ok=True)
            with open(temporary, "xb") as file:  # a new file, whatever there was
                file.write(data)
            temporary.replace(path)
            self._wrote = True
        except OSError as error:
            self._fail(error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Until the `with` statement ends, other processes that ask for the same key wait.

        The lock ends with the process. It is one byte of a file, so that there is one file for all keys.
        """
        descriptor = self._open_lock() if self._writes and fcntl else None
        if descriptor is None:
            yield
            return
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, int(key[:16], 16) % LOCKS)
            yield
        finally:
            os.close(descriptor)

    def trim(self) -> None:
        """Removes the files that were not used for longest, if there are too many, once some were written."""
        if not self._wrote:
            return
        self._wrote = False
        found = sorted(self._files(), key=lambda each: each[0])
        size = sum(each[1] for each in found)
        most_files, most_bytes = MOST_FILES, MOST_BYTES
        if len(found) > most_files or size > most_bytes:
            most_files, most_bytes = int(most_files * LEFT_SHARE), int(most_bytes * LEFT_SHARE)
        for left, (_, bytes_of_it, path) in zip(range(len(found), 0, -1), found, strict=True):
            if left <= most_files and size <= most_bytes:
                break
            with suppress(OSError):
                os.unlink(path)
            size -= bytes_of_it

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{ENDING}"

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _open_lock(self) -> int | None:
        try:
            self._make_folder()
            return os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._fail(error)
            return None

    def _fail(self, error: OSError) -> None:
        self._writes = False
        self._not_kept(f"{self._folder}: {error.strerror or error}")

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """When each file was last used, its size and its path; temporary files that are left over go."""
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat()
                    if entry.name.endswith(ENDING):
                        yield found.st_mtime, found.st_size, entry.path
                    elif entry.name.endswith(TEMPORARY) and time.time() - found.st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)


def _content(path: str) -> tuple[bytes, float]:
    """The content of a file, and when it was last used. What is no ordinary file is never waited for.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or larger than any that is written here.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise ValueError(f"{path} is no file, or has too many bytes: {about.st_size}")
        return os.read(descriptor, about.st_size), about.st_mtime
    finally:
        os.close(descriptor)


def differed_name(key: str) -> str:
    """The name of the file of what live requests have shown; see `LearnedCache.read_differed`."""
    return f"{key[:16]}.differed{ENDING}"


def default_folder() -> Path | None:
    """The folder for this user: `$XDG_CACHE_HOME/penstock`, or `~/.cache/penstock`; None without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "penstock"
    try:
        return Path.home() / ".cache" / "penstock"
    except RuntimeError:
        return None
