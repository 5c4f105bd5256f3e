"""Reads the rows of all files, one file after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from penstock.row_files.fields import Field, Invalid
from penstock.row_files.lines import Lines
from penstock.row_files.readers import RowReader, source
from penstock.scoring.arrow_files import ArrowReader
from penstock.scoring.chunk import Chunk
from penstock.scoring.sources import BINARY, FileFormat, Source, is_regular
from penstock.scoring.text_files import text_chunks, text_lines
from penstock_client import ModelInfo


@dataclass(slots=True)
class Placed:
    """A chunk and where it comes from.

    Attributes:
        chunk: the rows.
        source: the name of their file.
    """

    chunk: Chunk
    source: str


class Opened(Protocol):
    """An open file of rows."""

    format: FileFormat
    columns: Sequence[str] | None

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        """Its rows in chunks."""

    def close(self) -> None:
        """Closes it."""


class _Text:
    """An open text file."""

    def __init__(self, file: IO[bytes], form: FileFormat | None, is_regular: bool) -> None:
        lines = self._lines = Lines(file) if is_regular else text_lines(file)
        assert form not in BINARY
        self.reader: RowReader = source(lines, form)  # type: ignore[arg-type]  # just checked
        self.format: FileFormat = self.reader.format
        self.columns = self.reader.columns
        self._is_regular = is_regular

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        return text_chunks(self.reader, fields, size, self._is_regular)

    def close(self) -> None:
        if self._is_regular:
            self._lines.close()


class _Arrow:
    """An open Parquet or Arrow file."""

    def __init__(self, file: IO[bytes], form: FileFormat, name: str) -> None:
        self._file = file
        self.reader = ArrowReader(file, form == "parquet", name)
        self.format = form
        self.columns: Sequence[str] | None = self.reader.columns

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[Chunk]:
        return self.reader.chunks(fields, size)

    def close(self) -> None:
        self._file.close()


class Reading:
    """Reads files, and knows how much has been read.

    Args:
        sources: the files, at least one.
        info: the model.
        size: the most rows of a chunk.

    Attributes:
        first: the first file with a header, open; the last one if none has. What has no header has no rows,
            and is passed over.
        fields: the model's inputs that the files have values for.
        total: the number of rows of all files; None if only reading tells.

    Raises:
        Invalid: a file cannot be used.
        OSError: it cannot be opened.
    """

    def __init__(self, sources: Sequence[Source], info: ModelInfo, size: int) -> None:
        self._sources = sources
        self._size = size
        self._file: IO[bytes] | None = None
        self._open_now: Opened | None = None
        self._read_bytes = 0
        self.first = self._open(sources[0])
        while _is_blank(self.first) and len(self._sources) > 1:
            self.close()
            self._sources = self._sources[1:]
            self.first = self._open(self._sources[0])
        columns = self.first.columns or ()
        self.fields = [Field(spec) for spec in info.inputs if not spec.optional or _has(columns, spec.name)]
        counted = len(self._sources) == 1 and isinstance(self.first, _Arrow)
        self.total = self.first.reader.count if counted and isinstance(self.first, _Arrow) else None

    def chunks(self, skip: int = 0) -> Iterator[Placed]:
        """The rows of all files in chunks.

        Args:
            skip: how many rows are left out at the beginning.

        Raises:
            Invalid: a file has other columns than the first one, or cannot be read.
            OSError: a file cannot be read.
        """
        left = skip
        for number, each in enumerate(self._sources):
            opened = self.first if number == 0 else self._open(each)
            try:
                if number:
                    self._check(opened, each)
                for chunk in opened.chunks(self.fields, self._size):
                    if left >= len(chunk):
                        left -= len(chunk)
                    else:
                        yield Placed(chunk.some(range(left, len(chunk))) if left else chunk, each.name)
                        left = 0
            except Invalid as error:
                raise _naming(each.name, error) from None
            self.close()
            self._read_bytes += each.size or 0

    def check_others(self, with_addresses: bool) -> None:
        """Checks the columns of all files after the first one, which costs opening each.

        Args:
            with_addresses: whether those at addresses are opened, too, which may cost a request or more each.

        Raises:
            Invalid: a file has other columns than the first one, or cannot be read.
            OSError: a file cannot be opened.
        """
        for each in self._sources[1:]:
            if is_regular(each) and (with_addresses or "://" not in each.name):
                opened = _opened(each, each.open())
                try:
                    self._check(opened, each)
                finally:
                    opened.close()

    def close(self) -> None:
        """Closes the open file, unless that could wait for another program."""
        if self._open_now is not None:
            self._open_now.close()
            self._open_now = None

    def share(self) -> float | None:
        """How much of the bytes has been read, 0 to 1; None if that is unknown."""
        total = sum(each.size or 0 for each in self._sources)
        if not total or any(each.size is None for each in self._sources):
            return None
        try:
            at = 0 if self._file is None or self._file.closed else self._file.tell()
        except (OSError, ValueError):
            at = 0
        return min(1.0, (self._read_bytes + at) / total)

    def _open(self, each: Source) -> Opened:
        self._file = each.open()
        self._open_now = _opened(each, self._file)
        return self._open_now

    def _check(self, opened: Opened, each: Source) -> None:
        """Checks that a further file has the columns of the first one, or nothing at all."""
        if _is_blank(opened):
            return
        kinds = self.first.format, opened.format
        if kinds[0] != kinds[1]:
            raise Invalid(f"{each.name}: it is {kinds[1]}, and {self._sources[0].name} is {kinds[0]}")
        if opened.format != "jsonl" and list(opened.columns or ()) != list(self.first.columns or ()):
            raise Invalid(f"{each.name}: it has other columns than {self._sources[0].name}")


def _is_blank(opened: Opened) -> bool:
    """Whether a text file has no header."""
    return isinstance(opened, _Text) and opened.format != "jsonl" and not opened.columns


def _opened(each: Source, file: IO[bytes]) -> Opened:
    try:
        if each.format in BINARY:
            assert each.format is not None
            return _Arrow(file, each.format, each.name)
        return _Text(file, each.format, is_regular(each))
    except Invalid as error:
        file.close()
        raise _naming(each.name, error) from None


def _naming(name: str, error: Invalid) -> Invalid:
    text = str(error)
    return error if text.startswith(name) else Invalid(f"{name}: {text}")


def _has(columns: Sequence[str], name: str) -> bool:
    """Whether a file has values for an input."""
    return any(column == name or column.startswith(f"{name}.") for column in columns)
