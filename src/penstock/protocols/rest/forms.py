"""The forms of a plain request: one record, many, or columns. The answer has the same form.

{"age": 42, "name": "Ada"}                        one record: a value for each input
{"instances": [{"age": 42, "name": "Ada"}, ...]}  many
{"inputs": {"age": [42, ...], "name": [...]}}     columns: each input's tensor with all its rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from penstock.core.errors import InvalidRequest
from penstock.core.names import missing
from penstock.core.tensors import Array, TensorSpec
from penstock.models.model import Model
from penstock.protocols.rest.single import reader
from penstock.protocols.rest.values import array_of, flattened
from penstock.protocols.tensors import expected_inputs, fits, shaped

INSTANCES, INPUTS = "instances", "inputs"
MOST_TRIED = 1000
"""Among at most this many records, the one that does not fit is looked for, to name it."""


class Kind(Enum):
    """The form of a request and of its answer."""

    RECORD = "record"
    INSTANCES = "instances"
    COLUMNS = "columns"


class Form(NamedTuple):
    """The form of an answer.

    Attributes:
        kind: the form.
        rows: how many records the request has; 0 if it has columns.
    """

    kind: Kind
    rows: int


RECORD = Form(Kind.RECORD, 1)


class Inputs:
    """Reads the inputs of requests for one model.

    Args:
        model: the model.

    Attributes:
        whole: the inputs that have no rows: a record has the whole tensor.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._specs = model.signature.inputs
        self._optional = model.optional_inputs
        self.whole = {*model.scalars, *model.defaults, *model.kept_inputs}
        self.whole |= {name for name, spec in self._specs.items() if not _has_rows(spec)}

        rows = {name: spec for name, spec in self._specs.items() if name not in self.whole}
        self._readers = {name: reader(spec) for name, spec in rows.items()}
        self._single = {name for name, spec in rows.items() if _is_single(spec)}

    def read(self, body: Any, what: str) -> tuple[dict[str, Array], Form]:
        """The inputs of a request in the signature's order, and the form of its answer.

        Args:
            body: the request's JSON.
            what: what it came as, for messages.

        Raises:
            InvalidRequest: it does not fit; the text names the input, what was received and what was
                expected.
        """
        if not isinstance(body, dict):
            bare = '; values without a name go into {"instances": [value, ...]}' * (len(self._specs) == 1)
            raise InvalidRequest(
                f'{what} is not an object, expected one record {{"input": value, ...}}, '
                f'{{"instances": [record, ...]}} or {{"inputs": {{"input": [...], ...}}}}{bare}'
            )
        if (inputs := self._from_record(body)) is not None:
            return inputs, RECORD
        if self._is(body, INSTANCES, list, what):
            records = [self._record(each, index) for index, each in enumerate(body[INSTANCES])]
            return self._from_records(records), Form(Kind.INSTANCES, len(records))
        if self._is(body, INPUTS, dict, what):
            return self._from_columns(body[INPUTS]), Form(Kind.COLUMNS, 0)
        return self._from_one(body), RECORD

    def _is(self, body: Mapping[str, Any], name: str, kind: type, what: str) -> bool:
        """Whether the body has this form, and is no record with an input of that name."""
        if not isinstance(body.get(name), kind) or (name in self._specs and not isinstance(body[name], dict)):
            return False
        if len(body) > 1 and name not in self._specs:
            others = ", ".join(sorted(each for each in body if each != name))
            raise InvalidRequest(f"{what} has {name} and also {others}; expected nothing beside {name}")
        return len(body) == 1

    def _record(self, given: Any, index: int) -> Mapping[str, Any]:
        if isinstance(given, dict):
            return given
        if len(self._specs) == 1:  # the only input needs no name
            return {next(iter(self._specs)): given}
        raise InvalidRequest(f"instance {index} is not an object; {expected_inputs(self._model, ())}")

    def _from_record(self, record: Mapping[str, Any]) -> dict[str, Array] | None:
        """The inputs of one record; None if it must be looked at more closely."""
        if len(record) != len(self._specs):
            return None
        arrays = {}
        for name in self._specs:
            read = self._readers.get(name)
            array = read(record[name]) if read is not None and name in record else None
            if array is None:
                return None
            arrays[name] = array
        return arrays

    def _from_one(self, record: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs of one record that has been found unusual, or does not fit."""
        try:
            return self._from_records([record])
        except InvalidRequest as error:
            lists = [each for each in self._single if isinstance(record.get(each), list)]
            if any(len(record[each]) != 1 for each in lists) and INPUTS not in str(error):
                raise InvalidRequest(f'{error}; columns go into {{"inputs": {{...}}}}') from None
            raise

    def _from_records(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
        arrays = {}
        for name, spec in self._specs.items():
            try:
                values = [each[name] for each in records]
            except KeyError:
                if self._is_left_out(name, records):
                    continue
                raise self._missing(name, records) from None
            if not values and name in self._optional:
                continue
            arrays[name] = self._whole_of(spec, values) if name in self.whole else _rows_of(spec, values)
        for index, record in enumerate(records):
            if not record.keys() <= self._specs.keys():
                raise self._unknown(record, f"instance {index}: " if len(records) > 1 else "")
        return arrays

    def _from_columns(self, columns: Mapping[str, Any]) -> dict[str, Array]:
        arrays = {}
        for name, spec in self._specs.items():
            if name in columns:
                arrays[name] = _tensor(spec, columns[name])
            elif name not in self._optional:
                raise self._missing(name, [columns])
        if not columns.keys() <= self._specs.keys():
            raise self._unknown(columns)
        return arrays

    def _is_left_out(self, name: str, records: Sequence[Mapping[str, Any]]) -> bool:
        return name in self._optional and not any(name in each for each in records)

    def _whole_of(self, spec: TensorSpec, values: Sequence[Any]) -> Array:
        """An input that is one for all rows; all records say the same."""
        if not values:
            raise InvalidRequest(f"input {spec.name} has no value, expected {spec}: send at least one record")
        if any(each != values[0] for each in values):
            raise InvalidRequest(f"input {spec} is one for all records; the records give different values")
        return _tensor(spec, values[0])

    def _missing(self, name: str, records: Sequence[Mapping[str, Any]]) -> InvalidRequest:
        index = next(index for index, each in enumerate(records) if name not in each)
        where = f" in instance {index}" if len(records) > 1 else ""
        return InvalidRequest(f"{missing([name])}{where}: {expected_inputs(self._model, records[index])}")

    def _unknown(self, sent: Mapping[str, Any], where: str = "") -> InvalidRequest:
        names = ", ".join(sorted(sent.keys() - self._specs.keys()))
        return InvalidRequest(f"{where}there is no input {names}: {expected_inputs(self._model, sent)}")


def _has_rows(spec: TensorSpec) -> bool:
    """Whether a tensor has an axis along which records may lie: of open length, or of one."""
    length = spec.shape[spec.row_axis] if spec.shape else 0
    return isinstance(length, str) or length == 1


def _is_single(spec: TensorSpec) -> bool:
    """Whether a tensor with rows has one value in each."""
    return all(length == 1 for axis, length in enumerate(spec.shape or ()) if axis != spec.row_axis)


def _tensor(spec: TensorSpec, data: Any) -> Array:
    """A whole tensor; lists in lists give its shape, and one list may leave it open as typed lists do."""
    values, shape = flattened(spec.name, data)
    axes = len(spec.shape or ())
    if spec.shape is not None and len(shape) < min(axes, 2):
        shape = ()  # to be inferred
    return shaped(array_of(spec, values), shape, spec)


def _rows_of(spec: TensorSpec, values: list[Any]) -> Array:
    """As `_rows`; an error names the record, if one of several does not fit."""
    try:
        return _rows(spec, values)
    except InvalidRequest:
        for index, value in enumerate(values[:MOST_TRIED] if len(values) > 1 else ()):
            try:
                _rows(spec, [value])
            except InvalidRequest as error:
                raise InvalidRequest(f"instance {index}: {error}") from None
        raise


def _rows(spec: TensorSpec, values: list[Any]) -> Array:
    """A tensor of one value for each record."""
    flat, shape = flattened(spec.name, values)
    assert spec.shape, "others have no rows"
    declared = spec.shape[: spec.row_axis] + spec.shape[spec.row_axis + 1 :]
    inner = shape[1:]
    if not values or (not inner and declared):
        inner = _inner_of_scalars(spec, declared, values)
    if len(inner) != len(declared):
        expected = ",".join(map(str, declared))
        raise InvalidRequest(
            f"input {spec.name} has shape {list(inner)} in a record, expected [{expected}]: {spec} without "
            'its rows; tensors with rows are sent as {"inputs": {...}}'
        )
    array = array_of(spec, flat)
    if not spec.row_axis:
        return shaped(array, (len(values), *inner), spec)
    array = np.ascontiguousarray(np.moveaxis(array.reshape(len(values), *inner), 0, spec.row_axis))
    if not fits(array.shape, spec):
        raise InvalidRequest(f"input {spec.name} has shape {list(array.shape)}, expected {spec}")
    return array


def _inner_of_scalars(
    spec: TensorSpec, declared: tuple[int | str, ...], values: Sequence[Any]
) -> tuple[int, ...]:
    """The shape of a row that one number or text fills."""
    if not values and any(isinstance(each, str) for each in declared):
        raise InvalidRequest(f"input {spec.name} has no values, expected {spec}: send at least one record")
    sizes = tuple(each if isinstance(each, int) else 1 for each in declared)
    if values and any(size != 1 for size in sizes):
        raise InvalidRequest(
            f"input {spec.name} is one value in a record, expected [{','.join(map(str, declared))}] of "
            f"{spec.datatype}"
        )
    return sizes
