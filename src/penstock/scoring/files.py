"""Which files a run writes, and that it takes only such as are its own."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from penstock.row_files.fields import Invalid

try:
    import fcntl
except ImportError:  # Windows: two runs are not kept apart
    fcntl = None  # type: ignore[assignment]

MARKER = "made-by-penstock-score"
"""A file in the folder of the parts: without it, what is there is not ours."""
WHOLE = "whole.new"
"""The file in that folder in which parts are put together."""
_PART = re.compile(r"\d{8}\.arrows")
_REJECTED = re.compile(rb'\{"row": \d+, "file": "')
_BEGINNING_BYTES = 100
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP}


def beside(output: Path, what: str) -> Path:
    """The file or folder that a run keeps beside its output."""
    return output.with_name(f"{output.name}.{what}")


def check_paths(inputs: Iterable[str], output: Path | None, rejected: Path, was_named: bool) -> None:
    """Checks that no file has two tasks.

    Args:
        inputs: the files to read.
        output: the file to write; None for standard output.
        rejected: the file for rows without an answer.
        was_named: whether the user named it.

    Raises:
        Invalid: a file that the run writes is one of the inputs, has another task in the run, or is a
            folder.
    """
    written: list[tuple[str, Path]] = []
    for path in (output, rejected):
        if path is not None and path.is_dir():
            raise Invalid(f"{path} is a folder; name a file to write")
    if output is not None:
        written = [("--output", output)]
        for what, said in (("checkpoint", "the checkpoint"), ("done", "the record of a finished run")):
            written.append((f"{beside(output, what)}, {said},", beside(output, what)))
        written += [(f"{path}, a file of the run,", path) for path in _others(output)]
    by_name = f"--rejected {rejected}" if was_named else f"{rejected}, for rows without an answer,"
    read = [Path(name) for name in inputs if "://" not in name]
    for said, path in [*written, (by_name, rejected)]:
        if any(_same(path, each) for each in read):
            raise Invalid(f"{said} is one of the input files")
    for said, path in written:
        if _same(path, rejected):
            task = "the output" if path == output else said.partition(", ")[2].rstrip(",")
            raise Invalid(f"{by_name} is {task} as well")


def _others(output: Path) -> list[Path]:
    return [beside(output, what) for what in ("checkpoint.new", "done.new", "lock", "parts")]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def check_rejected(path: Path, restart: bool) -> None:
    """Checks that a file for rejected rows may be replaced; an empty one always may.

    Raises:
        Invalid: no run has made it, or the user did not say that it may be replaced.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with open(path, "rb") as file:
        is_ours = _REJECTED.match(file.read(_BEGINNING_BYTES)) is not None
    if not is_ours:
        raise Invalid(
            f"{path} exists, and no run of penstock score made it: name another file with --rejected"
        )
    if not restart:
        raise Invalid(f"{path} exists, of another run; --restart replaces it")


def check_parts(folder: Path) -> None:
    """Checks that a folder for parts has no file of anybody else.

    Raises:
        Invalid: it has, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Invalid(f"{folder} is where parts of the output are written, and no folder")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not (MARKER in names and _is_own(name))]
    if foreign:
        raise Invalid(f"{folder} has {foreign[0]}, which no run of penstock score made; move it away")


def _is_own(name: str) -> bool:
    return name in (MARKER, WHOLE) or _PART.fullmatch(name) is not None


def clear_parts(folder: Path, start: int = 0) -> None:
    """Deletes the parts from a number on, and nothing else."""
    for path in folder.iterdir():
        if path.name == WHOLE or (_PART.fullmatch(path.name) and int(path.stem) >= start):
            path.unlink()


def remove_parts(folder: Path) -> None:
    """Deletes all parts and their folder, unless somebody has put another file there."""
    clear_parts(folder)
    (folder / MARKER).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one run at a time writes a file. The lock ends with the process, however that ends.

    Args:
        path: the file to write; the lock is on one beside it, because this one may be replaced.

    Raises:
        Invalid: another run writes it, or it has no folder.
        OSError: its folder cannot be written.
    """
    if fcntl is None or (path.exists() and not path.is_file()):  # such as /dev/null
        yield
        return
    if not path.parent.is_dir():
        raise Invalid(f"{path}: there is no folder {path.parent}")
    name = beside(path, "lock")
    with _taken(name, path) as file:
        try:
            yield
        finally:
            if not os.fstat(file.fileno()).st_size:  # else it is somebody's file
                name.unlink(missing_ok=True)


def _taken(name: Path, path: Path) -> IO[bytes]:
    while True:
        file = open(name, "ab")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:  # a file system without locks
                return file
            file.close()
            if isinstance(error, BlockingIOError):
                raise Invalid(f"{path}: another run of penstock score is writing it") from None
            raise
        # The run that had it may have deleted it in between: then no other run would see this lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(name), os.fstat(file.fileno())):
                return file
        file.close()
