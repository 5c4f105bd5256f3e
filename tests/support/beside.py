"""What workers of pytest-xdist share: a folder, and turns for the tests that must run alone."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

FOLDER = "PENSTOCK_TESTS_FOLDER"
"""The variable that says where that folder is, for what has no `pytest.Config`."""
_OVER = "alone-is-over"
_FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_TURN = pytest.StashKey[ExitStack]()
"""What a worker holds while it runs a test, and from one test that runs alone to the next."""


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
    """Lets others go on, and removes the folder in the process that made it."""
    _end_turn(config)
    if _FOLDER in config.stash:
        config.stash[_FOLDER].cleanup()


@contextmanager
def turn(config: pytest.Config, *, alone: bool, next_is_alone: bool) -> Iterator[None]:
    """Waits until a test may run: beside those of other workers, or alone.

    A worker that is waiting to run alone keeps the gate shut, so that the others do not begin anything more.
    It runs all such tests that follow each other before the others go on: every change of turns costs time.
    """
    if not is_worker(config):
        yield
        return
    if not alone or _TURN not in config.stash:
        _end_turn(config)
        held = config.stash[_TURN] = ExitStack()
        held.enter_context(locked(folder(config) / "running", shared=not alone, gate=folder(config) / "gate"))
    try:
        yield
    finally:
        if alone and not next_is_alone:
            (folder(config) / _OVER).touch()
        if not (alone and next_is_alone):
            _end_turn(config)


def alone_is_over(config: pytest.Config) -> bool:
    """Whether a worker has run the tests that run alone. In one process it does not matter."""
    return not is_worker(config) or (folder(config) / _OVER).exists()


def _end_turn(config: pytest.Config) -> None:
    if _TURN in config.stash:
        config.stash[_TURN].close()
        del config.stash[_TURN]


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
