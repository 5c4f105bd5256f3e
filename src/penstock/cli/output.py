"""Prints the output of commands safely: standard output may be closed, full, a broken pipe, or ASCII."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing_extensions import Buffer

STANDARD_FILES = (0, 1, 2)
INTERRUPTED = 130  # the exit code that shells report after Ctrl-C
SHOW_SECONDS = 1.0
NO_READER = 141  # the exit code that shells report after SIGPIPE


class _StandardOutput(io.FileIO):
    """Standard output that remembers why it could not be written.

    Attributes:
        error: the last error; None if there was none.
    """

    error: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def prepare() -> None:
    """Prepares the standard files of the process.

    Closed ones become the null device: otherwise the next socket or file would get the number of one of them,
    and output would be written into it. Characters that the encoding lacks are escaped.
    """
    for number in STANDARD_FILES:
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets this number, the lowest free one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - open until the process ends
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_StandardOutput(1, "w", closefd=False)),
        encoding=sys.stdout.encoding if sys.stdout else None,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )


def say(text: str) -> None:
    """Prints the result of a command.

    Unlike click's `echo` it respects an ASCII encoding of standard output.

    Raises:
        OSError: standard output cannot be written; `explaining` turns it into a message.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def show(text: str) -> None:
    """Prints optional output; never fails."""
    try:
        say(text)
    except (OSError, ValueError):
        drop()


def show_in_time(text: str) -> None:
    """As `show`, but waits `SHOW_SECONDS` at most: a program may start a server and not read what it prints.

    What is not written by then is written later, unless the process ends. The text does not pass through the
    buffer of standard output: a thread that waits within it would keep the process from ending.
    """
    data = text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")
    with suppress(OSError, ValueError):
        number = sys.stdout.fileno()
        sys.stdout.flush()
        writing = Thread(target=_write, args=(number, data), name="penstock-output", daemon=True)
        writing.start()
        writing.join(SHOW_SECONDS)


def _write(number: int, data: bytes) -> None:
    with suppress(OSError):
        while data:
            data = data[os.write(number, data) :]


def is_encodable(text: str) -> bool:
    """Whether standard output can encode this text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def explaining() -> Iterator[None]:
    """Context manager: turns output errors into one message, and ends quietly on Ctrl-C.

    Raises:
        click.ClickException: standard output is full or broken.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        drop()
        sys.exit(NO_READER)
    except OSError as error:
        reason = _reason(error)
        if not reason:
            raise
        drop()
        raise click.ClickException(f"standard output: {reason}") from None


def drop() -> None:
    """Discards unwritten output; otherwise Python would report an error at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    """Why standard output cannot be written; "" if the error has another cause."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    is_it = isinstance(raw, _StandardOutput) and raw.error is error
    return (error.strerror or str(error)) if is_it else ""
