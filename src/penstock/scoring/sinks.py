"""The files that are written. Each can be cut at an earlier position and continued there."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from penstock.core.tensors import DataType
from penstock.row_files.fields import Field, Invalid, dumps, is_one_value
from penstock.row_files.readers import Format, Row, is_utf8
from penstock.scoring import arrow_files, files
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.outputs import OutputColumns, unused
from penstock.scoring.writers import Columns, json_fields, row_writer
from penstock_client import TensorInfo


class Sink(Protocol):
    """An output."""

    def write(self, chunk: Chunk, scored: Scored) -> dict[int, str]:
        """Writes the rows of a chunk that have answers; returns why the others have none, by their place."""

    def position(self) -> int:
        """Where the output ends now; all of it has reached the disk."""

    def finish(self) -> None:
        """The last row is written."""

    def close(self) -> None:
        """Ends without finishing: what was written since the last position may be lost."""


class File:
    """A file of bytes that is cut at a position and continued.

    Args:
        path: the file; None for standard output, which cannot be cut.
        start: where it is cut: 0 begins a new file with the first write.

    Raises:
        Invalid: the file is shorter than that.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path | None, start: int) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._at = start
        if path is not None and start:
            file = self._file = open(path, "r+b")  # noqa: SIM115 - closed by `close`
            if os.fstat(file.fileno()).st_size < start:
                file.close()
                raise Invalid(f"{path} is shorter than it was at the checkpoint; --restart begins again")
            file.truncate(start)
            file.seek(start)

    def write(self, text: str) -> None:
        """Adds text. The first one opens a new file, and replaces what was there."""
        if self._file is None:
            path = self._path
            self._file = open(1, "wb", closefd=False) if path is None else open(path, "wb")  # noqa: SIM115
        data = text.encode("utf-8", "surrogateescape")
        self._file.write(data)
        self._at += len(data)

    def position(self) -> int:
        """The length, after everything has reached the disk."""
        if self._file is not None:
            self._file.flush()
            if self._path is not None:
                os.fsync(self._file.fileno())
        return self._at

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


class TextSink:
    """CSV, TSV or JSON Lines.

    Args:
        file: the file.
        format: the format.
        source: where the rows come from.
        fields: the inputs of the model.
        answers: the outputs to write.
        start: the position where it is continued; 0 for a new file, which gets a header.
    """

    def __init__(  # noqa: PLR0913 - what decides about the columns
        self,
        file: File,
        format: Format,
        source: Columns,
        fields: Sequence[Field],
        answers: Sequence[OutputColumns],
        start: int,
    ) -> None:
        self._file = file
        self._text = io.StringIO()
        self._writer = row_writer(self._text, format, source, fields, answers, with_error=False)
        self._header = "" if start else self._text.getvalue()
        self._clear()

    def write(self, chunk: Chunk, scored: Scored) -> dict[int, str]:
        """Writes the rows of a chunk that have answers."""
        errors = self._writer.chunk(chunk, scored, with_failed=False)
        text = self._text.getvalue()
        if text:  # an earlier output stays until there is a row to replace it
            self._file.write(self._header + text)
            self._header = ""
        self._clear()
        return errors

    def position(self) -> int:
        """The length of the file."""
        return self._file.position()

    def finish(self) -> None:
        """Closes the file."""
        self._file.write(self._header)
        self._file.position()
        self._file.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _clear(self) -> None:
        self._text.seek(0)
        self._text.truncate()


class RejectsSink:
    """The rows without an answer, and why, as JSON Lines.

    Args:
        path: the file, which is made when there is a row for it.
        start: where it is continued.
        numbers: the columns of CSV that become JSON numbers, as in the output.
    """

    def __init__(self, path: Path, start: int, numbers: Mapping[str, Field]) -> None:
        self._numbers = numbers
        self._path = path
        self._start = start
        self._file = File(path, start)

    def begin(self) -> None:
        """Deletes what an earlier run left, if this one begins a new file."""
        if not self._start:
            self._path.unlink(missing_ok=True)

    def write(self, row: Row, number: int, source: str, why: str) -> None:
        """Adds a row.

        Args:
            row: the row.
            number: its number in the whole run, from 1.
            source: the name of its file.
            why: why it has no answer.
        """
        values = json_fields(dict(zip(row.names, row.values, strict=False)), self._numbers)
        said = {"row": number, "file": source, "line": row.line, "error": why, "values": values}
        self._file.write(dumps(said) + "\n")

    def position(self) -> int:
        """The length of the file."""
        return self._file.position()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class ArrowSink:
    """Parquet or an Arrow file. Parts are written beside it, and put together at the end.

    Args:
        path: the file to write.
        is_parquet: whether it becomes a Parquet file.
        schema: of the rows.
        outputs: the outputs to write.
        start: the number of parts that are complete; others are deleted with the first write.

    Raises:
        Invalid: a complete part is gone.
    """

    def __init__(
        self, path: Path, is_parquet: bool, schema: Any, outputs: Sequence[TensorInfo], start: int
    ) -> None:
        self._arrow = arrow_files.library()
        self._path = path
        self._is_parquet = is_parquet
        self._outputs = outputs
        self._names: list[str] = []
        taken = list(schema.names)
        for info in outputs:
            self._names.append(unused(info.name, taken))
            taken.append(self._names[-1])
        self._schema = schema
        self._folder = files.beside(path, "parts")
        self._parts = start
        self._is_prepared = False
        if not all(self._part(number).exists() for number in range(start)):
            raise Invalid(f"{self._folder} lacks a part that the checkpoint counts; --restart begins again")
        self._writer: Any = None

    def write(self, chunk: Chunk, scored: Scored) -> dict[int, str]:
        """Writes the rows of a chunk that have answers."""
        errors = dict(scored.errors)
        if isinstance(chunk, arrow_files.ArrowChunk):
            batch, unwritable = chunk.batch, dict[int, str]()
        else:
            batch, unwritable = self._of_rows(chunk.rows())
        errors |= unwritable
        for all_places, prediction in scored.parts:
            picked = [number for number, place in enumerate(all_places) if place not in unwritable]
            places = [all_places[number] for number in picked] if unwritable else all_places
            if not places:
                continue
            missing = [info.name for info in self._outputs if info.name not in prediction]
            if missing:
                errors |= dict.fromkeys(places, f"the answer has no output {', '.join(missing)}")
                continue
            kept = batch if len(places) == len(chunk) else batch.take(self._arrow.array(places))
            columns = list(kept.columns)
            for info in self._outputs:
                array = prediction[info.name]
                shape = () if is_one_value(info) and array.size == len(all_places) else array.shape[1:]
                array = array.reshape(len(all_places), -1)[picked] if unwritable else array
                columns.append(arrow_files.array_of(array, DataType[info.datatype], shape))
            names = [*kept.schema.names, *self._names]
            self._add(self._arrow.RecordBatch.from_arrays(columns, names=names))
        return errors

    def position(self) -> int:
        """The number of complete parts."""
        if self._writer is not None:
            writer, file = self._writer
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._writer = None
            self._parts += 1
        return self._parts

    def finish(self) -> None:
        """Puts the parts together."""
        self.position()
        self._prepare()
        parts = [self._part(number) for number in range(self._parts)]
        if parts:
            with open(parts[0], "rb") as file:
                schema = self._arrow.ipc.open_stream(file).schema
        else:
            schema = arrow_files.empty_schema(self._schema, zip(self._names, self._outputs, strict=True))
        whole = self._folder / files.WHOLE
        arrow_files.write_file(parts, schema, whole, self._is_parquet)
        os.replace(whole, self._path)
        files.remove_parts(self._folder)

    def close(self) -> None:
        """Ends without finishing; an incomplete part is ignored later."""
        if self._writer is not None:
            self._writer[1].close()
            self._writer = None

    def _add(self, batch: Any) -> None:
        if self._writer is None:
            self._prepare()
            file = open(self._part(self._parts), "wb")  # noqa: SIM115 - closed by `position`
            self._writer = self._arrow.ipc.new_stream(file, batch.schema), file
        self._writer[0].write_batch(batch)

    def _prepare(self) -> None:
        """Makes the folder of the parts, or deletes what an earlier run left in it."""
        if not self._is_prepared:
            self._folder.mkdir(exist_ok=True)
            (self._folder / files.MARKER).touch()
            files.clear_parts(self._folder, self._parts)
            self._is_prepared = True

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.arrows"

    def _of_rows(self, rows: Sequence[Row]) -> tuple[Any, dict[int, str]]:
        """Rows of CSV, whose values are texts; and why some cannot be written, by their place."""
        errors = {
            place: "it is not UTF-8, so it cannot become Parquet or Arrow"
            for place, row in enumerate(rows)
            if not is_utf8("".join(map(str, row.values)))
        }
        names = self._schema.names
        blank = [""] * len(names)
        columns = zip(
            *[blank if i in errors else row.values or blank for i, row in enumerate(rows)], strict=True
        )
        arrays = [self._arrow.array(column, self._arrow.string()) for column in columns]
        return self._arrow.RecordBatch.from_arrays(arrays, names=list(names)), errors
