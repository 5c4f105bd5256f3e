"""The sample: a table of real rows, and what of it a service takes as inputs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.encoders import MISSING_TEXT
from penstock.importing.errors import LacksColumns, Refused

VECTOR = "x"
"""The name of the one input of `--as vector`."""

NA_TEXTS = (
    *("N/A", "n/a", "NA", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None", "NaN", "nan", "-NaN"),
    *("-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""What `pandas.read_csv` takes for a missing value, besides an empty cell, unless it is told otherwise."""


class Column(NamedTuple):
    """One column that is an input.

    Attributes:
        name: as in the table.
        text: whether it holds texts.
        flag: whether it holds booleans and none is missing; all else is FP32.
        shape: of a value that is a list of numbers, or of lists; () for a single value.
        whole: whether these numbers are INT64.
    """

    name: str
    text: bool
    flag: bool = False
    shape: Sequence[int] = ()
    whole: bool = False


class Inputs(NamedTuple):
    """The inputs of the imported model.

    Attributes:
        columns: in the order of the model.
        vector: whether they are one input, `VECTOR`.
        na_texts: the texts that the graph takes as missing ones, in every column of texts.
        by_position: whether the model knows no names, and the columns of the sample are taken in their order.
    """

    columns: Sequence[Column]
    vector: bool = False
    na_texts: Sequence[str] = ()
    by_position: bool = False

    def feeds(self, frame: Any) -> dict[str, Any]:
        """The rows of a table as arrays, by input.

        They are [N, 1] each, [N, *shape] for lists of numbers, or [N, columns] for a vector.
        """
        made = {
            each.name: as_tensor(frame[each.name], np.int64 if each.whole else np.float32)
            if each.shape
            else as_input(frame[each.name], each.text, each.flag and not self.vector)
            for each in self.columns
        }
        return {VECTOR: np.concatenate(list(made.values()), axis=1)} if self.vector else made

    def as_trained(self, frame: Any) -> Any:
        """The rows of a table as the original takes them: `na_texts` are missing values."""
        if not self.na_texts:
            return frame
        texts = [each.name for each in self.columns if each.text]
        return frame.assign(
            **{name: frame[name].mask(frame[name].isin(self.na_texts)) for name in texts}  # keeps the dtype
        )


def read(path: Path) -> Any:
    """The table in a file, as a DataFrame.

    Texts are read as all other commands read them: only an empty cell is a missing one.

    Raises:
        Refused: the file cannot be read.
    """
    import pandas as pd

    readers = {
        ".csv": _separated,
        ".tsv": lambda name: _separated(name, "\t"),
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": pd.read_parquet,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise Refused(
            f"{path}: the sample's format is not known by its name; expected one of {', '.join(readers)}"
        )
    try:
        frame = readers[suffix](path)
    except (OSError, ValueError, ImportError) as error:
        raise Refused(f"{path}: {error}") from error
    if not len(frame):
        raise Refused(f"{path}: it has no rows")
    frame.columns = [str(each) for each in frame.columns]
    return frame


def _separated(path: Path, separator: str = ",") -> Any:
    """A table of CSV: numbers and booleans as pandas reads them, the columns of texts as they are."""
    import pandas as pd

    frame = pd.read_csv(path, sep=separator, low_memory=False)
    texts = [name for name in frame.columns if any(isinstance(each, str) for each in frame[name].dropna())]
    raw = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_values=[""])
    return frame.assign(**{name: raw[name].astype(frame[name].dtype) for name in texts}) if texts else frame


def _json_lines(path: Path) -> Any:
    """A table of JSON Lines; columns of quoted numbers, such as "NaN", are numbers until `as_texts`."""
    import pandas as pd

    frame = _as_written(path)
    for name in frame.columns:
        if any(isinstance(each, str) for each in frame[name].dropna()):
            values = frame[name].astype(object)
            with suppress(ValueError, TypeError):  # texts
                numbers = pd.to_numeric(values.where(values != "NaN", np.nan))
                frame = frame.assign(**{name: numbers})
    return frame


def _as_written(path: Path) -> Any:
    """A table of JSON Lines, of the types that JSON has.

    `pandas.read_json` makes numbers of texts, and times of numbers in columns with names such as created_at.
    """
    import pandas as pd

    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise Refused(f"{path}: line {number} is no JSON: {error}") from error
                if not isinstance(row, dict):
                    raise Refused(f"{path}: line {number} is no JSON object")
                rows.append(row)
    return pd.DataFrame(rows)


def as_texts(frame: Any, path: Path, names: Collection[str]) -> Any:
    """A table in which some columns hold the texts of the file, also where they look like numbers.

    Args:
        frame: what `read` gave, perhaps without some columns.
        path: of the file.
        names: of the columns.

    Raises:
        Refused: a column of the file holds numbers.
    """
    import pandas as pd

    names = [each for each in frame.columns if each in names and not column(frame, each).text]
    suffix = path.suffix.lower()
    if not names:
        return frame
    if suffix in (".csv", ".tsv"):
        separator = "," if suffix == ".csv" else "\t"
        raw = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_values=[""])
    elif suffix == ".parquet":
        raw = frame
    else:
        raw = _as_written(path)
    raw.columns = [str(each) for each in raw.columns]
    for name in names:
        known = raw[name].dropna()
        if not all(isinstance(each, str) for each in known):
            other = next(each for each in known if not isinstance(each, str))
            raise Refused(
                f'column "{name}" of the sample holds numbers or booleans ({other}) where the model was '
                "fitted with texts: write them as texts into the sample"
            )
    return frame.assign(**{name: raw[name].astype("str") for name in names})


def are_booleans(values: Any) -> bool:
    """Whether a column holds booleans, of which some may be missing."""
    known = values.dropna()
    return bool(len(known)) and all(isinstance(each, bool | np.bool_) for each in known)


def with_nones(frame: Any, names: Collection[str]) -> Any:
    """A table in which missing texts and booleans of some columns are None, as they were in training."""
    made = {
        each: frame[each].astype(object).where(frame[each].notna(), None)
        for each in frame.columns
        if each in names and (are_booleans(frame[each]) or column(frame, each).text)
    }
    return frame.assign(**made) if made else frame


def with_numbers(frame: Any) -> Any:
    """A table in which booleans are 0 and 1 where some are missing: many libraries take them only so."""
    made = {
        each: frame[each].astype("float64")
        for each in frame.columns
        if frame[each].isna().any() and are_booleans(frame[each])
    }
    return frame.assign(**made) if made else frame


def na_counts(frame: Any, columns: Sequence[Column]) -> dict[str, dict[str, int]]:
    """For each column of texts that has such, the `NA_TEXTS` in it and how many there are."""
    found = {}
    for each in columns:
        if each.text:
            values = frame[each.name]
            counts = values[values.isin(NA_TEXTS)].value_counts()
            found[each.name] = {str(text): int(count) for text, count in counts.items()}
    return {name: counts for name, counts in found.items() if counts}


def in_order(title: str, own: Sequence[str] | None, frame: Any) -> tuple[list[str], bool]:
    """The columns that a model takes, and whether they are those of the sample in their order.

    Args:
        title: of the model.
        own: the names that it knows; None, or `Column_0`, `0` or `f0` and so on, if it was trained on arrays.
        frame: the sample.

    Raises:
        Refused: the sample lacks columns, or has others than a model that knows no names can take.
    """
    if own and all(each in frame.columns for each in own):
        return list(own), False
    if own and any(each not in (f"Column_{i}", f"f{i}", str(i)) for i, each in enumerate(own)):
        missing = [each for each in own if each not in frame.columns]
        has = ", ".join(frame.columns)
        raise LacksColumns(
            f"the sample lacks columns of the model ({title}): {', '.join(missing)}; it has {has}", missing
        )
    return list(frame.columns), True


def column(frame: Any, name: str) -> Column:
    """What a column of a table is as an input.

    Raises:
        Refused: it holds neither numbers nor texts.
    """
    import pandas as pd

    values = frame[name]
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        if pd.api.types.is_complex_dtype(values):
            raise Refused(f'column "{name}" holds complex numbers, which no input can')
        return Column(name, False, pd.api.types.is_bool_dtype(values) and not values.isna().any())
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise Refused(f'column "{name}" holds times: make numbers of them (such as days) before training')
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Column(name, not pd.api.types.is_numeric_dtype(values.cat.categories))
    known = values.dropna()
    if are_booleans(values):
        return Column(name, False)
    if not all(isinstance(each, str) for each in known):
        kinds = sorted({type(each).__name__ for each in known})
        raise Refused(f'column "{name}" holds {", ".join(kinds)}: an input has numbers or texts')
    return Column(name, True)


def holds_lists(values: Any) -> bool:
    """Whether a column holds lists of numbers, or arrays of them."""
    known = values[values.notna()]
    return bool(len(known)) and all(isinstance(each, list | tuple | np.ndarray) for each in known)


def list_column(frame: Any, name: str) -> Column:
    """What a column of lists is as an input: FP32 of the shape that each of its values has.

    Raises:
        Refused: the values are not numbers, have different shapes, or some are missing.
    """
    values = frame[name]
    if values.isna().any():
        raise Refused(f'column "{name}" holds lists of numbers, and {int(values.isna().sum())} are missing')
    shapes = set()
    for each in values:
        try:
            shapes.add(_array(each, np.float32).shape)
        except (TypeError, ValueError) as error:
            raise Refused(f'column "{name}" holds lists that are not all numbers: {error}') from error
    if len(shapes) > 1:
        listed = ", ".join(str(list(each)) for each in sorted(shapes)[:4])
        raise Refused(f'column "{name}" holds lists of different shapes: {listed}')
    (shape,) = shapes
    if 0 in shape:
        raise Refused(f'column "{name}" holds empty lists')
    return Column(name, False, shape=shape)


def as_tensor(values: Any, kind: type[np.generic]) -> Any:
    """A column of lists of one shape as an array [N, *shape]."""
    return np.stack([_array(each, kind) for each in values])


def _array(value: Any, kind: type[np.generic]) -> Any:
    """A list of numbers as an array; Parquet has arrays of arrays."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = [_array(each, kind) for each in value]
    return np.asarray(value, kind)


def as_input(values: Any, text: bool, flag: bool = False) -> Any:
    """A column as an array [N, 1]: FP32, booleans, or texts with "" for missing ones."""
    if flag:
        return values.to_numpy(bool).reshape(-1, 1)
    if text:
        made = np.empty((len(values), 1), object)
        made[:, 0] = [
            MISSING_TEXT if absent else str(each) for each, absent in zip(values, values.isna(), strict=True)
        ]
        return made
    with np.errstate(over="ignore"):
        return (
            values.astype("object")
            .where(values.notna(), np.nan)
            .to_numpy(np.float64)
            .astype(np.float32)
            .reshape(-1, 1)
        )
