"""Writes rows with their answers as CSV, TSV or JSON Lines."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from penstock.row_files.fields import Field, Invalid, dumps
from penstock.row_files.readers import DELIMITERS, Format, PlainRows, Row
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.outputs import OutputColumns, cell, json_value, unused
from penstock.scoring.text_files import TextChunk
from penstock_client import Prediction

ERROR = "error"
"""The column with the reason why a row has no answer."""


class RowWriter(Protocol):
    """Writes rows and their answers in the order of the file."""

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer.

        Raises:
            Invalid: the answer cannot be written; nothing was written.
        """

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""

    def chunk(self, chunk: Chunk, scored: Scored, with_failed: bool) -> dict[int, str]:
        """Writes the rows of a chunk.

        Args:
            chunk: the rows.
            scored: their answers.
            with_failed: whether those without an answer are written as well.

        Returns:
            Why rows have no answer, by their place.
        """


class Columns(Protocol):
    """Where rows come from.

    Attributes:
        format: its format.
        columns: the names of its columns; None for an empty file.
    """

    @property
    def format(self) -> str:
        """The format."""

    @property
    def columns(self) -> Sequence[str] | None:
        """The names of the columns; None for an empty file."""


def check(source: Columns, format: Format) -> None:
    """Checks that the columns of a source can be written in this format.

    Raises:
        Invalid: they cannot be written.
    """
    if format in DELIMITERS:
        _ = source.columns
    elif source.format in DELIMITERS and len(set(source.columns or ())) < len(source.columns or ()):
        raise Invalid("two columns have the same name, which JSON cannot hold; use --format csv")


def row_writer(  # noqa: PLR0913 - what decides about the columns
    stream: TextIO,
    format: Format,
    source: Columns,
    fields: Sequence[Field],
    answers: Sequence[OutputColumns],
    with_error: bool = True,
) -> RowWriter:
    """A writer to `stream`.

    Args:
        stream: the output, which is not closed.
        format: the output format.
        source: where the rows come from; see `check`.
        fields: the model's inputs.
        answers: the outputs to write.
        with_error: whether CSV has a column for the reason why a row has no answer.
    """
    if format in DELIMITERS:
        return CsvWriter(stream, source, fields, answers, format, with_error)
    return JsonLinesWriter(stream, answers, of_numbers(source, fields))


class CsvWriter:
    """Writes the columns of the source, then those of the answers, then `error`.

    A source without rows gives an empty file. The columns of JSON rows are the names in the first row; a row
    with other names is an error of that row, because no value may be lost.
    """

    def __init__(  # noqa: PLR0913 - what decides about the columns
        self,
        stream: TextIO,
        source: Columns,
        fields: Sequence[Field],
        answers: Sequence[OutputColumns],
        format: Format = "csv",
        with_error: bool = True,
    ) -> None:
        self._answers = answers
        self._is_csv = source.format in DELIMITERS
        names = list(source.columns or ())
        if not self._is_csv:
            names += [field.name for field in fields if field.name not in set(names)]
        header = names.copy()
        for answer in answers:
            header += answer.columns(header)
        self._names = names
        self._blank = [""] * (len(header) - len(names))
        if with_error:
            header.append(unused(ERROR, header))
        self._last: list[str] = [""] if with_error else []
        self._stream = stream
        self._delimiter = DELIMITERS[format]
        self._line_end = f"{self._delimiter}\n" if with_error else "\n"
        self._writer = csv.writer(stream, lineterminator="\n", delimiter=self._delimiter)
        if source.columns is not None:
            self._writer.writerow(header if self._is_csv else map(_encodable, header))

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer."""
        if not self._is_csv:
            self._check(row)
        cells = [text for answer in self._answers for text in answer.cells(prediction)]
        self._writer.writerow([*self._cells(row), *cells, *self._last])

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""
        self._writer.writerow([*self._cells(row), *self._blank, why])

    def chunk(self, chunk: Chunk, scored: Scored, with_failed: bool) -> dict[int, str]:
        """Writes the rows of a chunk."""
        plain = chunk.plain if isinstance(chunk, TextChunk) else None
        lines = None if plain is None else self._lines(plain, scored)
        if lines is None:
            return self._by_cell(chunk, scored, with_failed)
        self._stream.write(lines)
        return {}

    def _by_cell(self, chunk: Chunk, scored: Scored, with_failed: bool) -> dict[int, str]:
        errors = dict(scored.errors)
        cells_of: Sequence[Sequence[object]] | None
        cells_of = chunk.cells if isinstance(chunk, TextChunk) and self._is_csv else None
        if cells_of is None:
            rows = chunk.rows()
            cells_of = [self._cells(row) for row in rows]
        written: list[Sequence[object] | None] = [None] * len(cells_of)
        last = self._last
        for places, prediction in scored.parts:
            try:
                columns = [
                    column for answer in self._answers for column in answer.texts(prediction, len(places))
                ]
            except Invalid as error:
                errors |= dict.fromkeys(places, str(error))
                continue
            cells = zip(*columns, strict=True) if columns else [()] * len(places)
            for place, texts in zip(places, cells, strict=True):
                written[place] = [*cells_of[place], *texts, *last]
        if not self._is_csv:
            for place, row in enumerate(rows):
                try:
                    self._check(row)
                except Invalid as error:
                    errors.setdefault(place, str(error))
                    written[place] = None
        if with_failed:
            for place, why in errors.items():
                written[place] = [*cells_of[place], *self._blank, why]
        self._writer.writerows(line for line in written if line is not None)
        return errors

    def _lines(self, rows: PlainRows, scored: Scored) -> str | None:
        """The text of rows whose lines can stay as they are; None if a cell needs a closer look."""
        if rows.delimiter != self._delimiter or scored.errors or len(scored.parts) != 1:
            return None
        places, prediction = scored.parts[0]
        if len(places) != len(rows):
            return None
        columns = [rows.lines]
        for answer in self._answers:
            texts = answer.joined(prediction, len(rows), self._delimiter)
            if texts is None:
                return None
            columns.append(texts)
        end = self._line_end
        return end.join(map(self._delimiter.join, zip(*columns, strict=True))) + end

    def _cells(self, row: Row) -> Sequence[object]:
        if self._is_csv:
            return row.values or [""] * len(self._names)
        values = dict(zip(row.names, row.values, strict=True))
        return [_encodable(cell(values.get(name))) for name in self._names]

    def _check(self, row: Row) -> None:
        extra = [f'"{name}"' for name in row.names if name not in self._names]
        if extra:
            raise Invalid(f"no column for {', '.join(extra)}: the columns are the names in the first row")


class JsonLinesWriter:
    """Writes an object per row: its own names and values, then the answers, or `error`.

    Args:
        stream: the output.
        answers: the outputs to write.
        numbers: the columns of CSV that become JSON numbers, each with its input. All other cells stay
            texts: "007" may be a name.
    """

    def __init__(
        self, stream: TextIO, answers: Sequence[OutputColumns], numbers: Mapping[str, Field]
    ) -> None:
        self._stream = stream
        self._answers = answers
        self._numbers = numbers

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer."""
        fields = self._fields(row)
        for answer in self._answers:
            fields[unused(answer.name, fields)] = answer.value(prediction)
        self._stream.write(dumps(fields) + "\n")

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""
        fields = self._fields(row)
        fields[unused(ERROR, fields)] = why
        self._stream.write(dumps(fields) + "\n")

    def chunk(self, chunk: Chunk, scored: Scored, with_failed: bool) -> dict[int, str]:
        """Writes the rows of a chunk."""
        errors, rows = dict(scored.errors), chunk.rows()
        written: list[dict[str, object] | None] = [None] * len(rows)
        for places, prediction in scored.parts:
            try:
                columns = [(each.name, each.values(prediction, len(places))) for each in self._answers]
            except Invalid as error:
                errors |= dict.fromkeys(places, str(error))
                continue
            for number, place in enumerate(places):
                fields = self._fields(rows[place])
                for name, values in columns:
                    fields[unused(name, fields)] = values[number]
                written[place] = fields
        if with_failed:
            for place, why in errors.items():
                fields = self._fields(rows[place])
                fields[unused(ERROR, fields)] = why
                written[place] = fields
        self._stream.writelines(dumps(fields) + "\n" for fields in written if fields is not None)
        return errors

    def _fields(self, row: Row) -> dict[str, object]:
        return json_fields(dict(zip(row.names, row.values, strict=True)), self._numbers)


def json_fields(values: dict[str, object], numbers: Mapping[str, Field]) -> dict[str, object]:
    """The values of a row as JSON has them, changed in place; see `of_numbers`."""
    for name, field in numbers.items():
        if name in values:
            values[name] = json_value(field, str(values[name]))
    return values


def of_numbers(source: Columns, fields: Sequence[Field]) -> Mapping[str, Field]:
    """The columns of CSV that hold an input of numbers, or the values `x.0`, `x.1` of one."""
    columns = (source.columns or ()) if source.format in DELIMITERS else ()
    numbers = {field.name: field for field in fields if not field.is_text}
    found = {}
    for column in columns:
        name, _, place = column.rpartition(".")
        field = numbers.get(column) or (numbers.get(name) if place.isdecimal() else None)
        if field is not None:
            found[column] = field
    return found


def _encodable(text: str) -> str:
    """The text with characters that UTF-8 cannot encode escaped: JSON may contain half a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
