"""Rows with their answers, written as CSV or JSON Lines."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Protocol, TextIO

from penstock.cli.answers import Answer, cell, unused
from penstock.cli.cells import Bad, Field, dumps
from penstock.cli.rows import Format, Row, Source
from penstock_client import Prediction

ERROR = "error"
"""Where it stands why a row has no answer."""


class Sink(Protocol):
    """What takes rows and their answers, in the order of the file."""

    def answered(self, row: Row, prediction: Prediction) -> None:
        """Writes a row with its answer.

        Raises:
            Bad: the answer cannot be written; nothing was.
        """

    def failed(self, row: Row, why: str) -> None:
        """Writes a row that has no answer."""


def check(source: Source, format: Format) -> None:
    """Makes sure that the columns of a source can be written in this format.

    Raises:
        Bad: they cannot.
    """
    if format == "csv":
        _ = source.columns
    elif source.format == "csv" and len(set(source.columns or ())) < len(source.columns or ()):
        raise Bad("two columns have the same name, which JSON cannot hold; use --format csv")


def sink(
    stream: TextIO, format: Format, source: Source, fields: Sequence[Field], answers: Sequence[Answer]
) -> Sink:
    """What writes to `stream`.

    Args:
        stream: is written to, not closed.
        format: how rows are written.
        source: where the rows come from; see `check`.
        fields: the model's inputs.
        answers: the outputs to write.
    """
    if format == "csv":
        return CsvSink(stream, source, fields, answers)
    return JsonSink(stream, answers)


class CsvSink:
    """Writes the columns of the source, then those of the answers, then `error`.

    A source without a single row gives an empty file. The columns for rows of JSON are the names in the
    first; a row with others is an error of that row, as nothing may get lost.
    """

    def __init__(
        self, stream: TextIO, source: Source, fields: Sequence[Field], answers: Sequence[Answer]
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
            raise Bad(f"no column for {', '.join(extra)}: the columns are the names in the first row")


class JsonSink:
    """Writes an object a row: its own names and values, then the answers, or `error`."""

    def __init__(self, stream: TextIO, answers: Sequence[Answer]) -> None:
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
    """The text with what UTF-8 cannot hold written out: JSON may hold half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
