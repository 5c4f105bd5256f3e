"""Chunks of CSV, TSV and JSON Lines files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from queue import Empty, Queue
from threading import Event, Thread
from typing import IO, Any

from penstock.row_files.columns import ReadRows, columns_reader
from penstock.row_files.fields import Field, Invalid
from penstock.row_files.readers import CsvReader, CsvRows, PlainRows, Row, RowReader

_AHEAD = 512
"""Rows that are read ahead of the chunks from a pipe."""


class TextChunk:
    """Rows of a text file.

    Args:
        rows: the rows.
        read: reads the inputs from one of them.
        read_all: reads the inputs from all of them; None if a request has one row.
    """

    def __init__(
        self,
        rows: Sequence[Row] | CsvRows | PlainRows,
        read: Callable[[Row], Mapping[str, Any]],
        read_all: ReadRows | None,
    ) -> None:
        # Rows of CSV are there without an object for each, unless it is needed.
        self.plain = rows if isinstance(rows, PlainRows) else None
        self._csv = rows if isinstance(rows, CsvRows | PlainRows) else None
        self._rows = None if isinstance(rows, CsvRows | PlainRows) else rows
        self._count = len(rows)
        self._read = read
        self._read_all = read_all
        self._inputs: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def cells(self) -> list[list[str]] | None:
        """The cells of each row, if all have all of them."""
        return None if self._csv is None else self._csv.values

    def unreadable(self) -> dict[int, str]:
        """The rows that cannot be inputs of the model, by their place, and why."""
        found: dict[int, str] = {}
        for place, row in enumerate(self.rows()):
            try:
                self._read_one(row)
            except Invalid as error:
                found[place] = str(error)
        return found

    def inputs(self) -> Mapping[str, Any]:
        """The inputs of a request with all rows.

        Raises:
            Invalid: a row cannot be read.
        """
        if self._inputs is None:
            self._inputs = self._all_inputs()
        return self._inputs

    def some(self, places: Sequence[int]) -> TextChunk:
        """The rows at these places."""
        rows = self.rows()
        return TextChunk([rows[place] for place in places], self._read, self._read_all)

    def rows(self) -> Sequence[Row]:
        """The rows themselves."""
        if self._rows is None:
            assert self._csv is not None
            self._rows = self._csv.rows()
        return self._rows

    def _read_one(self, row: Row) -> Mapping[str, Any]:
        if row.error:
            raise Invalid(row.error)
        return self._read(row)

    def _all_inputs(self) -> Mapping[str, Any]:
        if self._count > 1 and self._read_all is not None:
            try:
                if self._csv is not None:
                    return self._read_all(self._csv.columns())
                if not any(row.error for row in self.rows()):
                    return self._read_all((), self.rows())
            except (ValueError, Invalid):
                pass  # row by row it becomes clear what is wrong, or how else it is read
        rows = self.rows()
        if len(rows) == 1:
            return self._read_one(rows[0])
        return _joined([self._read_one(row) for row in rows])


def _joined(inputs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The inputs of several requests of one row as those of one request."""
    return {name: [_row(each[name]) for each in inputs] for name in inputs[0]}


def _row(value: Any) -> Any:
    if isinstance(value, list):
        return value[0]
    return value.tolist()[0] if getattr(value, "ndim", 0) else value


def text_lines(file: IO[bytes]) -> io.TextIOWrapper:
    """The lines of a file, their ends untranslated; bytes that are not UTF-8 are kept as they are."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def text_chunks(
    reader: RowReader, fields: Sequence[Field], size: int, are_all_there: bool
) -> Iterator[TextChunk]:
    """The rows of a file in chunks.

    Args:
        reader: the rows.
        fields: the inputs of the model.
        size: the most rows of a chunk.
        are_all_there: whether reading never waits for another program. If not, a chunk ends where it would
            wait.

    Raises:
        Invalid: the columns of an input are missing.
    """
    read = reader.reader(fields)
    read_all = columns_reader(reader, fields) if size > 1 and reader.columns is not None else None
    groups: Iterable[Sequence[Row] | CsvRows | PlainRows]
    if are_all_there:
        groups = reader.groups(size) if isinstance(reader, CsvReader) else _sized(reader, size)
    else:
        groups = _as_they_come(reader, size)
    return (TextChunk(group, read, read_all) for group in groups)


def _sized(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(rows)
    while group := list(islice(rest, size)):
        yield group


def _as_they_come(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Groups of the rows that are there: none waits for a row that is still to be written."""
    queue: Queue[Row | BaseException | None] = Queue(_AHEAD if size > 1 else 1)
    ended = Event()

    def read() -> None:
        try:
            for row in rows:
                queue.put(row)
                if ended.is_set():
                    return
            queue.put(None)
        except BaseException as error:  # the thread that takes the rows raises it
            queue.put(error)

    Thread(target=read, name="penstock-score-lines", daemon=True).start()
    try:
        yield from _groups(queue, size)
    finally:
        ended.set()


def _groups(queue: Queue[Row | BaseException | None], size: int) -> Iterator[list[Row]]:
    while True:
        item, group = queue.get(), []
        while isinstance(item, Row):
            group.append(item)
            if len(group) >= size:
                break
            try:
                item = queue.get_nowait()
            except Empty:
                break
        if group:
            yield group
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
