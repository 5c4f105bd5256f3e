"""Golden rows: a JSON Lines file of rows with the outputs that a model has to give for them.

It is what `penstock predict MODEL --file rows.jsonl -o golden.jsonl` writes. A first line such as
`{"golden": {"tolerance": 0.001}}` may say which differences are accepted; for single outputs,
`{"golden": {"tolerance": {"score": 0.001}}}`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO

from penstock.core.tensors import Array, TensorSpec
from penstock.row_files.arrays import tensor
from penstock.row_files.differences import TOLERANCE, Tolerance
from penstock.row_files.fields import Field, Invalid, shown
from penstock.row_files.readers import Format, RowReader, source

FILE = "golden.jsonl"
"""The name of the file, in the folder of a version."""

HEADER = "golden"

ANSWER = "_answer"
"""`penstock predict` adds this to the name of an output that a column of the file has as well."""

FORMATS: Mapping[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class GoldenRow(NamedTuple):
    """One row.

    Attributes:
        inputs: by name, each with the axis of rows.
        outputs: those that are expected, by name.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Golden:
    """A file of golden rows, opened.

    Args:
        file: the file, as text.
        inputs: the model's inputs, by name.
        outputs: its outputs.
        optional: the inputs that rows may leave out.

    Attributes:
        tolerance: what the first line says.

    Raises:
        Invalid: the first line or the names cannot be used.
    """

    def __init__(
        self,
        file: TextIO,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        optional: Collection[str] = (),
    ) -> None:
        first = file.readline()
        self.tolerance, is_header = _header(first)
        unknown = [name for name in self.tolerance.of if name not in outputs]
        if unknown:
            raise Invalid(
                f"line 1: a tolerance for {', '.join(map(shown, unknown))}, which is no output; "
                f"the outputs are: {', '.join(map(str, outputs.values()))}"
            )
        lines = itertools.chain(["\n" if is_header else first], file)
        self._rows = source(lines, "jsonl")
        columns = self._rows.columns
        if columns is None:
            raise Invalid("it has no rows")
        self._inputs, self._outputs = inputs, outputs
        wanted = {name: spec for name, spec in inputs.items() if name not in optional or name in columns}
        self._wanted = {name: Field(spec) for name, spec in wanted.items()}
        self._answers = answer_columns(columns, inputs, outputs)
        if not self._answers:
            raise Invalid(
                f"no column for an output: {', '.join(map(str, outputs.values()))}; {_listed(columns)}"
            )

    def __iter__(self) -> Iterator[GoldenRow]:
        """The rows, in their order.

        Raises:
            Invalid: one cannot be read; names its line.
        """
        fields = {name: Field(self._outputs[name]) for name in self._answers}
        for row in self._rows:
            place = f"line {row.line}: "
            try:
                if row.error:
                    raise Invalid(row.error)
                values = dict(zip(row.names, row.values, strict=True))
                inputs = self._tensors("input", self._inputs, self._wanted, values, {})
                outputs = self._tensors("output", self._outputs, fields, values, self._answers)
            except Invalid as error:
                raise Invalid(f"{place}{error}", f"{place}{error.without_value}") from None
            yield GoldenRow(inputs, outputs)

    def _tensors(
        self,
        what: str,
        specs: Mapping[str, TensorSpec],
        fields: Mapping[str, Field],
        values: Mapping[str, object],
        columns: Mapping[str, str],
    ) -> Mapping[str, Array]:
        found = {}
        for name, field in fields.items():
            column = columns.get(name, name)
            if column not in values:
                raise Invalid(f'no value for "{column}" {specs[name]}')
            found[name] = tensor(specs[name], _value(field, values[column]), "", what)
        return found


def answer_columns(
    columns: Sequence[str], inputs: Collection[str], outputs: Collection[str]
) -> Mapping[str, str]:
    """The column of each output that a file has; see `ANSWER`."""
    found = {}
    for name in outputs:
        answer = f"{name}{ANSWER}"
        if answer in columns:
            found[name] = answer
        elif name in columns and name not in inputs:
            found[name] = name
    return found


def _value(field: Field, value: object) -> object:
    """One row's value; a text is a number where one is wanted: those of a CSV file are written so."""
    if isinstance(value, str) and not field.is_text:
        return field.cell(value)
    return field.one_row(field.json(value))


def _listed(columns: Sequence[str]) -> str:
    return f"the names are: {', '.join(map(shown, columns))}"


def _header(line: str) -> tuple[Tolerance, bool]:
    """The tolerance, and whether the line is a header."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # the reader of rows says what is wrong
        return Tolerance(), False
    if not isinstance(value, dict) or [*value] != [HEADER] or not isinstance(value[HEADER], dict):
        return Tolerance(), False
    unknown = [key for key in value[HEADER] if key != "tolerance"]
    if unknown:
        raise Invalid(f"line 1: {', '.join(map(shown, unknown))} in the header, expected only tolerance")
    given = value[HEADER].get("tolerance", TOLERANCE)
    single = given if isinstance(given, dict) else {}
    usual = TOLERANCE if isinstance(given, dict) else given
    for each in (usual, *single.values()):
        if isinstance(each, bool) or not isinstance(each, int | float) or not 0 <= each < float("inf"):
            raise Invalid(f"line 1: tolerance {shown(each)}, expected a number of at least 0")
    return Tolerance(float(usual), {name: float(each) for name, each in single.items()}), True


def rewritten(
    lines: Iterable[str], tolerance: Mapping[str, float], left_out: Collection[int] = ()
) -> Iterator[str]:
    """The lines of a file of golden rows, with another tolerance.

    Args:
        lines: those of the file, of which each row is known to be right.
        tolerance: of each output that has one.
        left_out: the rows to leave out, counted from 1.
    """
    yield json.dumps({HEADER: {"tolerance": dict(tolerance)}} if tolerance else {HEADER: {}}) + "\n"
    rest = iter(lines)
    first = next(rest, "")
    kept = itertools.chain([] if _header(first)[1] else [first], rest)
    for number, line in enumerate((line for line in kept if line.strip()), 1):
        if number not in left_out:
            yield line if line.endswith("\n") else f"{line}\n"


class InputRows(NamedTuple):
    """The rows of a file.

    Attributes:
        columns: the names of the columns of a CSV file, or in the first row of a JSON Lines file.
        rows: the inputs of each row.
    """

    columns: Sequence[str]
    rows: Iterator[Mapping[str, Array]]


def input_rows(
    file: TextIO, path: Path, inputs: Mapping[str, TensorSpec], optional: Collection[str] = ()
) -> InputRows:
    """The inputs of each row of a CSV or JSON Lines file; other columns are passed over.

    Args:
        file: the file. It may be a pipe, which can be read only once.
        path: its name, for its format.
        inputs: the model's inputs, by name.
        optional: those that the file may lack.

    Raises:
        Invalid: the columns of an input are missing, or a row cannot be read; names its line.
    """
    rows = source(file, FORMATS.get(path.suffix.lower()))
    columns = rows.columns or ()
    found = {name: name for name in inputs if name not in optional or _has(columns, name)}
    return InputRows(columns, _tensors(rows, inputs, found, "input"))


def expected_rows(
    file: TextIO, path: Path, outputs: Mapping[str, TensorSpec], others: Collection[str] = ()
) -> Iterator[Mapping[str, Array]]:
    """The expected outputs of each row of a CSV or JSON Lines file, of which it has at least one.

    Args:
        file: the file.
        path: its name, for its format.
        outputs: the model's outputs, by name.
        others: the columns that it may have besides, such as those of the rows.

    Raises:
        Invalid: no column is an output, one is neither an output nor among the others, or a row cannot be
            read; names its line.
    """
    rows = source(file, FORMATS.get(path.suffix.lower()))
    columns = rows.columns or ()
    found = {
        name: column for name in outputs for column in (name, f"{name}{ANSWER}") if _has(columns, column)
    }
    if not found:
        listed = ", ".join(map(str, outputs.values()))
        raise Invalid(f"{path}: no column is an output: {listed}; {_listed(columns)}")
    known = {*found.values(), *others}
    # pandas writes an index without a name as a column without one.
    unknown = [each for each in columns if each and each not in known and _vector_of(each) not in known]
    if unknown:
        listed = ", ".join(map(str, outputs.values()))
        raise Invalid(
            f"{path}: {', '.join(map(shown, unknown))}: neither an output nor a column of the rows; "
            f"the outputs are: {listed}"
        )
    return _tensors(rows, outputs, found, "output")


def _vector_of(column: str) -> str:
    """The name of the vector of which a column has one value; "" if it has none."""
    name, _, place = column.rpartition(".")
    return name if place.isdecimal() else ""


def _has(columns: Sequence[str], name: str) -> bool:
    return any(each == name or each.startswith(f"{name}.") for each in columns)


def _tensors(
    rows: RowReader, specs: Mapping[str, TensorSpec], columns: Mapping[str, str], what: str
) -> Iterator[Mapping[str, Array]]:
    """Each row as arrays by name, where a tensor may have another name in the file."""
    read = rows.reader([Field(replace(specs[name], name=column)) for name, column in columns.items()])
    for row in rows:
        place = f"line {row.line}: "
        try:
            if row.error:
                raise Invalid(row.error)
            values = read(row)
            yield {name: tensor(specs[name], values[column], "", what) for name, column in columns.items()}
        except Invalid as error:
            raise Invalid(f"{place}{error}", f"{place}{error.without_value}") from None
