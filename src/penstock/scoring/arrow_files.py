"""Chunks of Parquet and Arrow files, and such files as output. The only user of pyarrow, an extra."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from penstock.core.tensors import Array, DataType
from penstock.row_files.fields import Field, Invalid, is_one_value
from penstock.row_files.readers import Row
from penstock_client import TensorInfo

GROUP_ROWS = 1 << 17
"""Rows of a row group of a Parquet file that is written."""


def library() -> Any:
    """The package pyarrow.

    Raises:
        Invalid: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Invalid(
            "Parquet and Arrow files need pyarrow: pip install '.[score]' in Penstock's checkout"
        ) from None
    return pyarrow


class ArrowChunk:
    """Rows of a record batch.

    Args:
        batch: the rows.
        fields: the inputs of the model.
        start: the number of the first row in its file, from 1.
    """

    def __init__(self, batch: Any, fields: Sequence[Field], start: int) -> None:
        self.batch = batch
        self._fields = fields
        self._start = start

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def unreadable(self) -> dict[int, str]:
        """None: the columns have datatypes; what does not fit the model, the client says."""
        return {}

    def inputs(self) -> Mapping[str, Any]:
        """The inputs of a request with all rows."""
        found: dict[str, Any] = {}
        names = self.batch.schema.names
        for field in self._fields:
            parts = [field.name] if field.name in names else vector_columns(field.name, names)
            for part in parts:
                found[part] = _values(self.batch.column(part))
        return found

    def some(self, places: Sequence[int]) -> ArrowChunk:
        """The rows at these places."""
        is_range = places[-1] - places[0] + 1 == len(places)
        batch = self.batch.slice(places[0], len(places)) if is_range else self.batch.take(list(places))
        return ArrowChunk(batch, self._fields, self._start + places[0])

    def rows(self) -> Sequence[Row]:
        """The rows as values of Python."""
        names = self.batch.schema.names
        columns = [column.to_pylist() for column in self.batch.columns]
        start = self._start
        return [Row(start + place, names, values) for place, values in enumerate(zip(*columns, strict=True))]


def _values(column: Any) -> Any:
    """A column for the client: lists of numbers of equal lengths as an array of two axes."""
    arrow = library()
    kind = column.type
    types = arrow.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return column
    if column.null_count:
        raise Invalid("a list is missing")
    flat = column.flatten()
    if flat.null_count or len(column) == 0 or len(flat) % len(column) or not _are_equal(column):
        return column.to_pylist()
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _are_equal(column: Any) -> bool:
    if library().types.is_fixed_size_list(column.type):
        return True
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return bool((lengths == lengths[0]).all())


def vector_columns(name: str, names: Sequence[str]) -> list[str]:
    """The columns `name.0`, `name.1` and so on."""
    found: list[str] = []
    while f"{name}.{len(found)}" in names:
        found.append(f"{name}.{len(found)}")
    return found


class ArrowReader:
    """A Parquet or Arrow file.

    Args:
        file: its bytes, which can be sought.
        is_parquet: whether it is a Parquet file; Arrow's own files and streams are told apart by their
            beginning.
        name: of the file, for errors.

    Attributes:
        columns: the names of the columns.
        count: the number of rows; None if only reading tells.

    Raises:
        Invalid: it is not such a file, or two columns have the same name.
    """

    def __init__(self, file: IO[bytes], is_parquet: bool, name: str) -> None:
        self._arrow = library()
        self._is_parquet = is_parquet
        self.count: int | None = None
        try:
            self._open(file)
        except self._arrow.ArrowInvalid as error:
            raise Invalid(f"{name}: {error}") from None
        self.columns: Sequence[str] = list(self.schema.names)
        if len(set(self.columns)) < len(self.columns):
            raise Invalid(f"{name}: two columns have the same name")

    def _open(self, file: IO[bytes]) -> None:
        ipc = self._arrow.ipc
        if self._is_parquet:
            self._file = self._arrow.parquet.ParquetFile(file, pre_buffer=False)
            self.schema, self.count = self._file.schema_arrow, self._file.metadata.num_rows
            return
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        self._file = ipc.open_file(file) if is_file else ipc.open_stream(file)
        self.schema = self._file.schema

    def chunks(self, fields: Sequence[Field], size: int) -> Iterator[ArrowChunk]:
        """The rows in chunks.

        Args:
            fields: the inputs of the model.
            size: the most rows of a chunk.

        Raises:
            Invalid: the columns of an input are missing.
        """
        for field in fields:
            if field.name not in self.columns and not vector_columns(field.name, self.columns):
                listed = ", ".join(self.columns)
                raise Invalid(f'no column for input "{field.name}" {field.info}; the columns are: {listed}')
        at = 0
        is_dictionary = self._arrow.types.is_dictionary
        dictionaries = [i for i, kind in enumerate(self.schema.types) if is_dictionary(kind)]
        at = 0
        for batch in self._batches():
            if dictionaries:  # each batch may have another one
                columns = [
                    column.dictionary_decode() if i in dictionaries else column
                    for i, column in enumerate(batch.columns)
                ]
                batch = self._arrow.RecordBatch.from_arrays(columns, names=self.columns)  # noqa: PLW2901
            for place in range(0, batch.num_rows, size):
                yield ArrowChunk(batch.slice(place, size), fields, at + place + 1)
            at += batch.num_rows

    def _batches(self) -> Iterator[Any]:
        """The record batches, one at a time in memory."""
        if self._is_parquet:
            yield from self._file.iter_batches(1 << 13, use_threads=False)
        elif hasattr(self._file, "num_record_batches"):
            yield from (self._file.get_batch(number) for number in range(self._file.num_record_batches))
        else:
            yield from self._file


def array_of(values: Array, datatype: DataType, shape: tuple[int, ...]) -> Any:
    """Rows of an output as an Arrow array: scalars, or lists in lists.

    Args:
        values: [rows, ...].
        datatype: of the output.
        shape: of one row; () for a single value.
    """
    arrow = library()
    flat: Any = values.reshape(-1)
    if datatype is DataType.BYTES:
        texts = [
            each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each
            for each in flat.tolist()
        ]
        made = arrow.array(texts, arrow.string())
    else:
        made = arrow.array(flat if flat.dtype.kind in "biuf" else flat.astype("f4"))
    for axis in range(len(shape) - 1, -1, -1):
        lists = len(values)
        for size in shape[:axis]:
            lists *= size
        offsets = arrow.array([place * shape[axis] for place in range(lists + 1)], arrow.int32())
        made = arrow.ListArray.from_arrays(offsets, made)
    return made


def empty_schema(rows: Any, outputs: Iterable[tuple[str, TensorInfo]]) -> Any:
    """The schema of an output without rows, as the signature gives it.

    Args:
        rows: the schema of the rows.
        outputs: the outputs by the names of their columns.
    """
    arrow = library()
    fields = []
    for field in rows:
        is_dictionary = arrow.types.is_dictionary(field.type)
        fields.append(field.with_type(field.type.value_type) if is_dictionary else field)
    for name, info in outputs:
        datatype = DataType[info.datatype]
        shape = () if is_one_value(info) else tuple((info.shape or ())[1:])
        sizes = tuple(size if isinstance(size, int) else 0 for size in shape)
        is_small = datatype is DataType.BF16 or datatype.label.startswith("FP8")  # the client gives FP32
        values = np.empty((0, *sizes), np.float32 if is_small else datatype.dtype)
        fields.append(arrow.field(name, array_of(values, datatype, sizes).type))
    return arrow.schema(fields)


def write_file(parts: Iterable[Path], schema: Any, target: Path, is_parquet: bool) -> None:
    """Puts parts together, in bounded memory.

    Args:
        parts: files of Arrow streams, in their order.
        schema: of all of them.
        target: the file to write.
        is_parquet: whether it becomes a Parquet file, or else an Arrow file.
    """
    arrow = library()
    with open(target, "wb") as file:
        made = arrow.parquet.ParquetWriter(file, schema) if is_parquet else arrow.ipc.new_file(file, schema)
        with made as writer:
            held: list[Any] = []
            rows = 0
            for batch in _batches_of(parts):
                held.append(batch)
                rows += batch.num_rows
                if rows >= GROUP_ROWS:
                    writer.write_table(arrow.Table.from_batches(held, schema).combine_chunks())
                    held, rows = [], 0
            if held:
                writer.write_table(arrow.Table.from_batches(held, schema).combine_chunks())
        file.flush()
        os.fsync(file.fileno())


def _batches_of(parts: Iterable[Path]) -> Iterator[Any]:
    ipc = library().ipc
    for part in parts:
        with open(part, "rb") as file, ipc.open_stream(file) as stream:
            yield from stream
