"""`penstock predict --file`: opens the input and the output, and shows the progress."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from penstock.cli.interruptible import interruptible
from penstock.cli.predict.scoring import Counts, Scoring
from penstock.cli.predict.streaming import OrderedWriter, RowRequest, predict_rows
from penstock.core.names import many
from penstock.row_files.fields import Field, Invalid
from penstock.row_files.lines import Lines
from penstock.row_files.readers import Format, source
from penstock.scoring.outputs import OutputColumns
from penstock.scoring.sending import rows_of_requests
from penstock.scoring.text_files import text_chunks, text_lines
from penstock.scoring.writers import check, row_writer
from penstock_client import Client, ModelInfo, PenstockError

STANDARD = "-"
"""Standard input or output instead of a file."""

FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl")
_FORMATS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The flags for a file of rows.

    Attributes:
        path: the input file; "-" for standard input.
        output: the output file; "-" for standard output.
        format: the output format; None to use the output's suffix, or else the format of the input.
        fail_fast: stop at the first row that fails.
    """

    path: str
    output: str
    format: Format | None
    fail_fast: bool


def predict_file(
    client: Client, info: ModelInfo, request: RowRequest, options: FileOptions
) -> Counts | OrderedWriter:
    """Predicts the rows of a file, and writes each row with its answer.

    Rows are scored as by `penstock score`, but for the steps of a sequence, which are sent one by one.

    Args:
        client: the connection.
        info: the model.
        request: the options of each row's request.
        options: the files.

    Returns:
        The number of rows, and the number that failed.

    Raises:
        Invalid: the file cannot be used, or a row failed with `fail_fast`.
        PenstockError: the connection was lost; earlier answers are written.
        OSError: a file cannot be opened, read or written.
    """
    answers = [
        OutputColumns(spec)
        for spec in info.outputs
        if request.outputs is None or spec.name in request.outputs
    ]
    path = options.path
    with _reading(path) as file, _naming("standard input" if path == STANDARD else path):
        is_regular = _is_regular(file)
        rows = source(Lines(file) if is_regular else text_lines(file), _format(path))
        columns = rows.columns or ()
        fields = [Field(spec) for spec in info.inputs if not spec.optional or _has(columns, spec.name)]
        read = rows.reader(fields)
        form = options.format or _format(options.output) or rows.format
        check(rows, form)  # before an existing output file is emptied
        with _writing(options.output) as stream:
            writer = row_writer(stream, form, rows, fields, answers)
            if info.kept_state is None:
                size = rows_of_requests(info)
                chunks = text_chunks(rows, fields, size, is_regular)
                scoring = Scoring(client, request, writer, stream.flush, options.fail_fast)
                with _progress(file, stream, scoring.counts), _ending(scoring.close, scoring.counts):
                    interruptible(lambda: scoring.run(chunks, size))
                return scoring.counts
            line = OrderedWriter(writer, stream.flush, options.fail_fast)
            with _progress(file, stream, line), _ending(line.close, line):
                interruptible(lambda: predict_rows(client, request, rows, read, line, are_steps=True))
    return line


def _has(columns: Sequence[str], name: str) -> bool:
    """Whether a file has values for an input."""
    return any(column == name or column.startswith(f"{name}.") for column in columns)


@contextmanager
def _ending(close: Callable[[], bool], line: Counts | OrderedWriter) -> Iterator[None]:
    """Ends after a complete row on Ctrl-C, and adds the number of written rows to an error."""
    try:
        yield
    except KeyboardInterrupt:
        if not close():
            os._exit(130)  # a write to a pipe without a reader would block forever
        raise
    except PenstockError as error:
        error.add_note(f"{many(line.rows, 'row', ',')} {'was' if line.rows == 1 else 'were'} written before")
        raise


def _format(path: str) -> Format | None:
    return _FORMATS.get(Path(path).suffix.lower())


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Adds the name of the input to an error about it."""
    try:
        yield
    except Invalid as error:
        raise Invalid(f"{name}: {error}") from None


@contextmanager
def _reading(path: str) -> Iterator[IO[bytes]]:
    if path.endswith(".gz"):
        raise Invalid(f"{path} is compressed: unpack it, or use penstock score, which reads it as it is")
    file = open(  # noqa: SIM115 - closed below, unless that could block
        0 if path == STANDARD else path, "rb", closefd=path != STANDARD
    )
    is_regular = _is_regular(file)
    try:
        yield file
    finally:
        # The client's thread may be reading from a pipe, and closing would wait for it.
        if is_regular:
            file.close()


@contextmanager
def _writing(path: str) -> Iterator[TextIO]:
    standard = path == STANDARD
    target = 1 if standard else path
    with open(
        target, "w", encoding="utf-8", errors="surrogateescape", newline="", closefd=not standard
    ) as file:
        yield file


def _is_regular(file: IO[bytes]) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


@contextmanager
def _progress(file: IO[bytes], stream: TextIO, line: Counts | OrderedWriter) -> Iterator[None]:
    """A bar on standard error, if that is a terminal and the rows are not written to it."""
    if not sys.stderr.isatty() or stream.isatty():
        yield
        return
    with _Bar(file, line):
        yield


class _Bar(Progress):
    """Shows how much of a file has been read, and how many rows are answered.

    It reads the counts a few times a second, so it adds no cost per row.
    """

    def __init__(self, file: IO[bytes], line: Counts | OrderedWriter) -> None:
        self._file = file.fileno()
        self._line = line
        size = os.fstat(self._file).st_size if _is_regular(file) else None
        super().__init__(
            BarColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.add_task("", total=size, rows=0)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The progress bar; called several times a second."""
        for task in self.tasks:
            read = None if task.total is None else os.lseek(self._file, 0, os.SEEK_CUR)
            self.update(task.id, completed=read, rows=self._line.rows)
        yield from super().get_renderables()
