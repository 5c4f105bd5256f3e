"""Reads the rows of CSV, TSV and JSON Lines files one by one, so files may be larger than memory."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from penstock.row_files.fields import Field, Invalid, shown
from penstock.row_files.lines import MOST_CHARACTERS, Lines, plain_lines

Format: TypeAlias = Literal["csv", "tsv", "jsonl"]

DELIMITERS = {"csv": ",", "tsv": "\t"}

_UNREADABLE = "line"
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
"""How a byte order mark comes out of a file that is read as UTF-8, its other bytes kept as they are."""
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True)
class Row:
    """One row of the file.

    Attributes:
        line: the line it starts on, from 1.
        names: the names of its values.
        values: the values: texts in CSV, any JSON value in JSON Lines.
        error: why it cannot be read; "" if it can be read.
    """

    line: int
    names: Sequence[str]
    values: Sequence[object]
    error: str = ""


class RowReader(Protocol):
    """A file of rows.

    Attributes:
        format: the format of the file.
    """

    format: Format

    @property
    def columns(self) -> Sequence[str] | None:
        """The names in a CSV header, or in the first object; None for an empty file."""

    def __iter__(self) -> Iterator[Row]: ...

    def reader(self, fields: Sequence[Field]) -> Callable[[Row], Mapping[str, object]]:
        """A function that reads the inputs of a prediction from a row; it raises `Invalid`.

        Raises:
            Invalid: the columns of an input are missing.
        """


def source(lines: Iterable[str], format: Format | None) -> RowReader:
    """The rows of these lines.

    Args:
        lines: the lines with their original line ends.
        format: their format; None to detect it by the first line.

    Raises:
        Invalid: the header of a CSV file cannot be used, or it is UTF-16 or a JSON list.
    """
    numbered = enumerate(lines, 1)
    start, first = next(((i, line) for i, line in numbered if line.strip()), (1, ""))
    rest = (line for _, line in numbered)
    if first.startswith(_UTF_16):
        raise Invalid("it is UTF-16, not UTF-8")
    format = format or _format_of(first)
    if format == "jsonl":
        return JsonLinesReader(start, first, rest)
    ahead = lines if isinstance(lines, Lines) else None
    return CsvReader(start, first, rest, format, ahead)


def _format_of(first: str) -> Format:
    """The format of lines that begin with this one."""
    text = first.strip()
    if "".join(text.split())[:2] in ("[", "[{", "[["):
        raise Invalid("it is a JSON list; JSON Lines have an object on every line")
    if text.startswith("{"):
        return "jsonl"
    return "tsv" if "\t" in text and "," not in text else "csv"


@dataclass(slots=True)
class CsvRows:
    """Rows of a CSV file that have all their cells.

    Attributes:
        line: the line the first one starts on, from 1.
        names: the names of the columns.
        values: the cells of each.
    """

    line: int
    names: Sequence[str]
    values: list[list[str]]

    def __len__(self) -> int:
        return len(self.values)

    def columns(self) -> list[Sequence[str]]:
        """The cells of each column."""
        return list(zip(*self.values, strict=True))

    def rows(self) -> list[Row]:
        """The rows as objects."""
        line, rows = self.line, []
        for values in self.values:
            rows.append(Row(line, self.names, values))
            line += _lines(values)
        return rows


@dataclass(slots=True)
class PlainRows:
    """Rows of a CSV file that have all their cells, and no cell in quotes: each row is a line.

    Attributes:
        line: the line the first one starts on, from 1.
        names: the names of the columns.
        lines: the rows as they stand in the file, without the ends of the lines.
        delimiter: what is between cells.
    """

    line: int
    names: Sequence[str]
    lines: list[str]
    delimiter: str

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def values(self) -> list[list[str]]:
        """The cells of each row."""
        return [line.split(self.delimiter) for line in self.lines]

    def columns(self) -> list[Sequence[str]]:
        """The cells of each column."""
        cells, count = self.delimiter.join(self.lines).split(self.delimiter), len(self.names)
        return [cells[place::count] for place in range(count)]

    def rows(self) -> list[Row]:
        """The rows as objects."""
        return [Row(line, self.names, values) for line, values in enumerate(self.values, self.line)]


class CsvReader:
    """The rows of a CSV or TSV file with a header.

    Args:
        start: the number of the header's first line.
        first: the header's first line; "" for an empty file.
        rest: the lines after it.
        format: "csv" for commas, "tsv" for tabs.
        ahead: where `rest` comes from, if lines can be looked at before they are taken.

    Raises:
        Invalid: the header cannot be read.
    """

    def __init__(
        self,
        start: int,
        first: str,
        rest: Iterable[str],
        format: Literal["csv", "tsv"] = "csv",
        ahead: Lines | None = None,
    ) -> None:
        csv.field_size_limit(MOST_CHARACTERS)
        self.format: Format = format
        self._ahead = ahead
        self._before = start - 1
        lines = itertools.chain([first] if first else [], rest)
        self._reader = csv.reader(lines, strict=True, delimiter=DELIMITERS[format])
        try:
            self.columns: Sequence[str] | None = next(self._reader, None)
        except csv.Error as error:
            raise Invalid(f"the header, in line {start}: {error}") from None

    def __iter__(self) -> Iterator[Row]:
        names = self.columns or []
        while True:
            line = self._before + self._reader.line_num + 1
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(line, (), (), f"it cannot be read: {error}{self._extent(line)}")
                continue
            if len(values) == len(names):
                yield Row(line, names, values)
            elif values:
                yield Row(line, names, _padded(values, len(names)), _wrong_count(values, names))

    def groups(self, size: int) -> Iterator[Sequence[Row] | CsvRows | PlainRows]:
        """The rows in groups of up to `size`, without an object for each if all have all their cells.

        Args:
            size: the most rows of a group.
        """
        count = len(self.columns or ())
        while True:
            while (plain := self._plain(size)) is not None:
                yield plain
            line = self._before + self._reader.line_num + 1
            values: list[list[str]] = []
            try:
                values.extend(itertools.islice(self._reader, size))
            except csv.Error as error:
                rows = self._rows(line, values)
                last = line + sum(map(_lines, values))
                yield [*rows, Row(last, (), (), f"it cannot be read: {error}{self._extent(last)}")]
                continue
            if not values:
                return
            if all(map(count.__eq__, map(len, values))):
                yield CsvRows(line, self.columns or (), values)
            elif rows := self._rows(line, values):
                yield rows

    def _plain(self, size: int) -> PlainRows | None:
        """The next rows, if the parser is not needed for them."""
        if self._ahead is None or not self.columns or not (lines := self._ahead.ahead(size)):
            return None
        delimiter = DELIMITERS[self.format]
        rows = plain_lines(lines, delimiter, len(self.columns))
        if rows is None:
            return None
        line = self._before + self._reader.line_num + 1
        self._ahead.skip(len(lines))
        self._before += len(lines)
        return PlainRows(line, self.columns, rows, delimiter)

    def _rows(self, line: int, all_values: Sequence[list[str]]) -> list[Row]:
        names = self.columns or ()
        rows = []
        for values in all_values:
            if len(values) == len(names):
                rows.append(Row(line, names, values))
            elif values:
                rows.append(Row(line, names, _padded(values, len(names)), _wrong_count(values, names)))
            line += _lines(values)
        return rows

    def reader(self, fields: Sequence[Field]) -> Callable[[Row], Mapping[str, object]]:
        """A function that reads the inputs of a prediction from a row."""
        # An empty file has no header, so no column can be missing.
        places = [(field, self.places(field)) for field in fields if self.columns is not None]

        def read(row: Row) -> Mapping[str, object]:
            texts: Sequence[str] = row.values  # type: ignore[assignment]  # this class only makes texts
            return {
                field.name: field.cell(texts[place])
                if isinstance(place, int)
                else field.cells([texts[i] for i in place])
                for field, place in places
            }

        return read

    def places(self, field: Field) -> int | list[int]:
        """The place of an input's column, or of the columns of its vector."""
        whole = self._named(field.name)
        if whole:
            return self._only(field.name, whole)
        if field.is_vector:
            parts = list(
                itertools.takewhile(bool, (self._named(f"{field.name}.{i}") for i in itertools.count()))
            )
            if parts and len(parts) == (field.length or len(parts)):
                return [self._only(f"{field.name}.{i}", part) for i, part in enumerate(parts)]
        raise Invalid(f'no column for input "{field.name}" {field.info}{self._hint(field)}; {self._listed()}')

    def _named(self, name: str) -> list[int]:
        return [i for i, column in enumerate(self.columns or ()) if column == name]

    def _only(self, name: str, places: list[int]) -> int:
        if len(places) > 1:
            raise Invalid(f'there are {len(places)} columns "{name}"')
        return places[0]

    def _hint(self, field: Field) -> str:
        if not field.is_vector:
            return ""
        last = "…" if field.length is None else f"{field.name}.{field.length - 1}"
        return f', nor columns "{field.name}.0" to "{last}"'

    def _listed(self) -> str:
        names = self.columns or ()
        listed = f"the columns are: {', '.join(shown(_legible(name)) for name in names)}"
        return listed if all(map(is_utf8, names)) else f"the header is not UTF-8; {listed}"

    def _extent(self, line: int) -> str:
        last = self._before + self._reader.line_num
        return f", lines {line} to {last}" if last > line else ""


class JsonLinesReader:
    """The rows of a file with a JSON object on every line; blank lines are skipped.

    Args:
        start: the number of the first line that is not blank.
        first: that line; "" for an empty file.
        rest: the lines after it.
    """

    format: Format = "jsonl"

    def __init__(self, start: int, first: str, rest: Iterable[str]) -> None:
        self._start = start
        self._lines = itertools.chain([first], rest)
        self._first = _parsed(start, first) if first else None

    @property
    def columns(self) -> Sequence[str] | None:
        """The names in the first object; None for an empty file.

        Raises:
            Invalid: the first line is not an object.
        """
        if self._first is not None and self._first.error:
            raise Invalid(f"line {self._first.line}, which names the columns: {self._first.error}")
        return None if self._first is None else self._first.names

    def __iter__(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines, self._start):
            if line.strip():
                yield _parsed(number, line)

    def reader(self, fields: Sequence[Field]) -> Callable[[Row], Mapping[str, object]]:
        """A function that reads the inputs of a prediction from a row."""

        def read(row: Row) -> Mapping[str, object]:
            values = dict(zip(row.names, row.values, strict=True))
            missing = [f'"{field.name}" {field.info}' for field in fields if field.name not in values]
            if missing:
                raise Invalid(f"no value for input {', '.join(missing)}")
            return {field.name: field.one_row(field.json(values[field.name])) for field in fields}

        return read


def is_utf8(text: str) -> bool:
    """Whether a text of a file was UTF-8: other bytes are kept as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _legible(text: str) -> str:
    """The text with a replacement character for each byte that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if not is_utf8(text) else text


def _parsed(number: int, line: str) -> Row:
    text = line.rstrip("\r\n")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Row(number, (_UNREADABLE,), (text,), f"it is not JSON: {error}")
    if not isinstance(value, dict):
        return Row(number, (_UNREADABLE,), (value,), "it is not a JSON object")
    return Row(number, list(value), list(value.values()))


def _lines(values: Sequence[str]) -> int:
    """How many lines a row of CSV takes."""
    return 1 + sum(len(_LINE_END.findall(value)) for value in values if "\n" in value or "\r" in value)


def _padded(values: list[str], count: int) -> list[str]:
    return (values + [""] * count)[:count]


def _wrong_count(values: list[str], names: Sequence[str]) -> str:
    return f"it has {len(values)} cells, but the header has {len(names)}"
