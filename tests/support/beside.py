"""What workers of pytest-xdist share: a folder, and turns for the tests that must run alone."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

_FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several that run the tests."""
    return hasattr(config, "workerinput")


def folder(config: pytest.Config) -> Path:
    """A folder for this run of the tests: the same one in all processes, until `clear`."""
    if is_worker(config):
        return Path(config.workerinput["folder"])
    if _FOLDER not in config.stash:
        config.stash[_FOLDER] = tempfile.TemporaryDirectory(
            prefix="penstock-tests-", ignore_cleanup_errors=True
        )
    return Path(config.stash[_FOLDER].name)


def clear(config: pytest.Config) -> None:
    """Removes the folder, in the process that made it."""
    if _FOLDER in config.stash:
        config.stash[_FOLDER].cleanup()


@contextmanager
def turn(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    """Waits until a test may run: beside those of other workers, or alone.

    A worker that is waiting to run alone keeps the gate shut, so that the others do not begin anything more.
    """
    if not is_worker(config):
        yield
        return
    with locked(folder(config) / "running", shared=not alone, gate=folder(config) / "gate"):
        yield


@contextmanager
def locked(path: Path, *, shared: bool = False, gate: Path | None = None) -> Iterator[None]:
    """Holds the lock that a file stands for; `gate` is a lock that is only held while waiting."""
    with path.open("w") as file:
        with locked(gate) if gate else nullcontext():
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a process that a test has forked may hold the file, too.
            fcntl.flock(file, fcntl.LOCK_UN)
