"""Writes rows with their answers as CSV or JSON Lines."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Protocol, TextIO

from penstock.cli.predict.outputs import OutputColumns, cell, unused
from penstock.row_files.fields import Field, Invalid, dumps
from penstock.row_files.readers import Format, Row, RowReader
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


def check(source: RowReader, format: Format) -> None:
    """Checks that the columns of a source can be written in this format.

    Raises:
        Invalid: they cannot be written.
    """
    if format == "csv":
        _ = source.columns
    elif source.format == "csv" and len(set(source.columns or ())) < len(source.columns or ()):
        raise Invalid("two columns have the same name, which JSON cannot hold; use --format csv")


def row_writer(
    stream: TextIO,
    format: Format,
    source: RowReader,
    fields: Sequence[Field],
    answers: Sequence[OutputColumns],
) -> RowWriter:
    """A writer to `stream`.

    Args:
        stream: the output, which is not closed.
        format: the output format.
        source: where the rows come from; see `check`.
        fields: the model's inputs.
        answers: the outputs to write.
    """
    if format == "csv":
        return CsvWriter(stream, source, fields, answers)
    return JsonLinesWriter(stream, answers)


class CsvWriter:
    """Writes the columns of the source, then those of the answers, then `error`.

    A source without rows gives an empty file. The columns of JSON rows are the names in the first row; a row
    with other names is an error of that row, because no value may be lost.
    """

    def __init__(
        self, stream: TextIO, source: RowReader, fields: Sequence[Field], answers: Sequence[OutputColumns]
    ) -> None:
        self._answers = answers
        self._is_csv = source.format == "csv"
        names = list(source.columns or ())
        if not self._is_csv:
            names += [field.name for field in fields if field.name not in set(names)]
        header = names.copy()
        for answer in answers:
            header += answer.columns(header)
        self._names = names
        self._blank = [""] * (len(header) - len(names))
        header.append(unused(ERROR, header))
        self._writer = csv.writer(stream, lineterminator="\n")
        if source.columns is not None:
            self._writer.writerow(header if self._is_csv else map(_encodable, header))

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer."""
        if not self._is_csv:
            self._check(row)
        cells = [text for answer in self._answers for text in answer.cells(prediction)]
        self._writer.writerow([*self._cells(row), *cells, ""])

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""
        self._writer.writerow([*self._cells(row), *self._blank, why])

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
    """Writes an object per row: its own names and values, then the answers, or `error`."""

    def __init__(self, stream: TextIO, answers: Sequence[OutputColumns]) -> None:
        self._stream = stream
        self._answers = answers

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer."""
        fields = dict(zip(row.names, row.values, strict=True))
        for answer in self._answers:
            fields[unused(answer.name, fields)] = answer.value(prediction)
        self._stream.write(dumps(fields) + "\n")

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""
        fields = dict(zip(row.names, row.values, strict=True))
        fields[unused(ERROR, fields)] = why
        self._stream.write(dumps(fields) + "\n")


def _encodable(text: str) -> str:
    """The text with characters that UTF-8 cannot encode escaped: JSON may contain half a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
