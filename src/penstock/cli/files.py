"""`penstock predict --file`: opens what is read and written, and shows how far it is."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from penstock.cli.answers import Answer
from penstock.cli.cells import Bad, Field
from penstock.cli.rows import Format, source
from penstock.cli.sinks import check, sink
from penstock.cli.streaming import Ask, InOrder, interruptible, predict_rows
from penstock_client import Client, ModelInfo, PenstockError

STANDARD = "-"
"""Standard input or output instead of a file."""

_FORMATS: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the command line says about a file of rows.

    Attributes:
        path: what to read; "-" for standard input.
        output: what to write; "-" for standard output.
        format: how to write; None to go by the output's suffix, or else to write as the input is.
        fail_fast: stop at the first row that fails.
    """

    path: str
    output: str
    format: Format | None
    fail_fast: bool


def predict_file(client: Client, info: ModelInfo, ask: Ask, options: FileOptions) -> InOrder:
    """Writes the rows of a file with their answers beside them.

    Args:
        client: the connection.
        info: the model.
        ask: what is asked for with every row.
        options: the files.

    Returns:
        How many rows there were, and how many failed.

    Raises:
        Bad: the file cannot be used, or a row failed and that was to be the end.
        PenstockError: the server went away; what was answered before is written.
        OSError: a file cannot be opened, read or written.
    """
    answers = [Answer(spec) for spec in info.outputs if ask.outputs is None or spec.name in ask.outputs]
    path = options.path
    with _reading(path) as lines, _naming("standard input" if path == STANDARD else path):
        rows = source(lines, _format(path))
        columns = rows.columns or ()
        fields = [Field(spec) for spec in info.inputs if not spec.optional or _has(columns, spec.name)]
        read = rows.reader(fields)
        form = options.format or _format(options.output) or rows.format
        check(rows, form)  # before there is an empty file where a full one was
        with _writing(options.output) as stream:
            line = InOrder(sink(stream, form, rows, fields, answers), stream.flush, options.fail_fast)
            with _progress(lines, stream, line), _ending(line):
                are_steps = info.kept_state is not None
                interruptible(lambda: predict_rows(client, ask, rows, read, line, are_steps))
    return line


def _has(columns: Sequence[str], name: str) -> bool:
    """Whether a file has values for an input."""
    return any(column == name or column.startswith(f"{name}.") for column in columns)


@contextmanager
def _ending(line: InOrder) -> Iterator[None]:
    """Leaves whole rows behind on Ctrl-C, and adds to an error how far it went."""
    try:
        yield
    except KeyboardInterrupt:
        if not line.close():
            os._exit(130)  # a pipe that nobody reads would not let us end
        raise
    except PenstockError as error:
        error.add_note(f"{line.rows:,} rows were written before")
        raise


def _format(path: str) -> Format | None:
    return _FORMATS.get(Path(path).suffix.lower())


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Adds the name of the input to what is wrong with it."""
    try:
        yield
    except Bad as error:
        raise Bad(f"{name}: {error}") from None


@contextmanager
def _reading(path: str) -> Iterator[TextIO]:
    """The input as text, its line ends untranslated; bytes that are not UTF-8 go through unharmed."""
    file = open(  # noqa: SIM115 - closed below, where that cannot wait
        0 if path == STANDARD else path,
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
        closefd=path != STANDARD,
    )
    try:
        yield file
    finally:
        # The client's thread may be waiting for more from a pipe, and closing would wait for that.
        if _is_regular(file):
            file.close()


@contextmanager
def _writing(path: str) -> Iterator[TextIO]:
    standard = path == STANDARD
    target = 1 if standard else path
    with open(
        target, "w", encoding="utf-8", errors="surrogateescape", newline="", closefd=not standard
    ) as file:
        yield file


def _is_regular(file: TextIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


@contextmanager
def _progress(lines: TextIO, stream: TextIO, line: InOrder) -> Iterator[None]:
    """A bar on standard error, if somebody looks at it and the rows do not go to the same terminal."""
    if not sys.stderr.isatty() or stream.isatty():
        yield
        return
    with _Bar(lines, line):
        yield


class _Bar(Progress):
    """How much of a file has been read, and how many rows are answered.

    It looks for itself, a few times a second: rows cost nothing by being watched.
    """

    def __init__(self, lines: TextIO, line: InOrder) -> None:
        self._file = lines.fileno()
        self._line = line
        size = os.fstat(self._file).st_size if _is_regular(lines) else None
        super().__init__(
            BarColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.add_task("", total=size, rows=0)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, several times a second."""
        for task in self.tasks:
            read = None if task.total is None else os.lseek(self._file, 0, os.SEEK_CUR)
            self.update(task.id, completed=read, rows=self._line.rows)
        yield from super().get_renderables()
