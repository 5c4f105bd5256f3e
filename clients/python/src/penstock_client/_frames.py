"""The inputs of a request as people have them: a DataFrame, an Arrow table, a list of records.

Nothing is imported for it: whatever names its columns and gives each of them by its name is a table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count, takewhile
from typing import Any, Literal, TypeAlias

import numpy as np

from penstock_client._errors import InvalidInput

Extra: TypeAlias = Literal["error", "ignore"]
"""What happens to columns that the model does not take."""

_MOST_NAMED = 20


class Loose:
    """Inputs of which those that the model does not take are left out.

    Args:
        inputs: as the caller gave them.
    """

    __slots__ = ("inputs",)

    def __init__(self, inputs: object) -> None:
        self.inputs = inputs


def loose(inputs: Any, extra: Extra) -> Any:
    """The inputs, marked if those that the model does not take are left out.

    Raises:
        ValueError: `extra` is unknown.
    """
    if extra == "ignore":
        return Loose(inputs)
    if extra != "error":
        raise ValueError(f'extra is "error" or "ignore", not {extra!r}')
    return inputs


def check_items(items: object) -> None:
    """Checks that the items of a stream are not the inputs of one prediction.

    Iterating over a table or a dict would give its names.

    Raises:
        TypeError: they are, or they are a text.
    """
    if isinstance(items, str | bytes | Mapping):
        hint = "[inputs] is a stream of one prediction"
    elif hasattr(items, "to_dicts"):  # polars
        hint = "table.to_dicts() gives its rows"
    elif hasattr(items, "to_pylist") and hasattr(items, "column_names"):  # pyarrow
        hint = "table.to_pylist() gives its rows"
    elif hasattr(items, "to_dict") and hasattr(items, "columns"):  # pandas
        hint = 'table.to_dict("records") gives its rows'
    else:
        return
    raise TypeError(
        f"a stream takes an iterable, of which each item is the inputs of one prediction, not "
        f"{type(items).__name__}; {hint}"
    )


def columns_of(inputs: Any, names: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Any]:
    """Inputs by name.

    A vector input `x` may be given as columns `x.0`, `x.1`, and so on.

    Args:
        inputs: a mapping, a DataFrame, an Arrow table or record batch, a list of records, or `Loose` with one
            of these.
        names: of the model's inputs.
        optional: those that may be left out.

    Raises:
        InvalidInput: it is none of these, two columns have the same name, or records differ in their names.
    """
    is_loose = isinstance(inputs, Loose)
    if isinstance(inputs, Loose):
        inputs = inputs.inputs
    found = inputs if isinstance(inputs, Mapping) else _of_table(inputs, names, optional)
    if found is None:
        empty = " (this one is empty)" if isinstance(inputs, list | tuple) and not inputs else ""
        raise InvalidInput(
            f"inputs are a dict by name, not {type(inputs).__name__}; a DataFrame, an Arrow table or a list "
            f"of records will do as well{empty}"
        )
    missing = [name for name in names if name not in found]
    if missing:
        found = _with_vectors(found, missing)
    if is_loose:
        found = {name: value for name, value in found.items() if name in names}
    return found


def _of_table(inputs: Any, names: Collection[str], optional: Collection[str]) -> Mapping[str, Any] | None:
    if hasattr(inputs, "column_names") and hasattr(inputs, "column"):  # pyarrow
        return _named(list(inputs.column_names), inputs.column, by_place=True)
    if hasattr(inputs, "collect_schema") and hasattr(inputs, "collect"):  # polars
        raise InvalidInput("a LazyFrame has no values yet: send what its collect() gives")
    if hasattr(inputs, "columns") and hasattr(inputs, "__getitem__"):  # pandas, polars
        return _named(list(inputs.columns), inputs.__getitem__, by_place=False)
    if isinstance(inputs, Sequence) and inputs and all(isinstance(each, Mapping) for each in inputs):
        return _of_records(inputs, names, optional)
    return None


def _named(columns: list[Any], get: Any, by_place: bool) -> dict[str, Any]:
    if len(set(columns)) < len(columns):
        twice = sorted({repr(each) for each in columns if columns.count(each) > 1})
        raise InvalidInput(f"several columns have the same name: {', '.join(twice[:_MOST_NAMED])}")
    return {name: get(place if by_place else name) for place, name in enumerate(columns)}


def _of_records(
    records: Sequence[Mapping[str, Any]], names: Collection[str], optional: Collection[str]
) -> dict[str, Any]:
    """The values of records as lists. A record without a value that another one has is an error."""
    found: dict[str, Any] = {}
    keys = dict.fromkeys(key for record in records for key in record)
    for key in keys:
        for index, record in enumerate(records):
            if key not in record and key in names and key not in optional:
                raise InvalidInput(
                    f"record {index} has no value for {key!r}; a missing number is None or NaN"
                )
        found[key] = [record.get(key) for record in records]
    return found


def _with_vectors(found: Mapping[str, Any], missing: list[str]) -> Mapping[str, Any]:
    """The inputs with the vectors put together whose values have columns of their own."""
    made = dict(found)
    for name in missing:
        parts = list(takewhile(made.__contains__, (f"{name}.{place}" for place in count())))
        if parts:
            columns = [np.asarray(made.pop(part)) for part in parts]
            if len({column.shape for column in columns}) > 1:
                raise InvalidInput(f"the columns {parts[0]} to {parts[-1]} are not of equal lengths")
            made[name] = np.stack(columns, axis=-1)
    return made
