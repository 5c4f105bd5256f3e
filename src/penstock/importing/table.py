"""The sample: a table of real rows, and what of it a service takes as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.encoders import MISSING_TEXT
from penstock.importing.errors import Refused

VECTOR = "x"
"""The name of the one input of `--as vector`."""

NA_TEXTS = (
    *("N/A", "n/a", "NA", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None", "NaN", "nan", "-NaN"),
    *("-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""What `pandas.read_csv` takes for a missing value, besides an empty cell, where nobody says otherwise."""


class Column(NamedTuple):
    """One column that is an input.

    Attributes:
        name: as in the table.
        text: whether it holds texts.
        flag: whether it holds booleans and none is missing; all else is FP32.
    """

    name: str
    text: bool
    flag: bool = False


class Inputs(NamedTuple):
    """The inputs of the imported model.

    Attributes:
        columns: in the order of the model.
        vector: whether they are one input, `VECTOR`.
        na_texts: the texts that the graph takes as missing ones, in every column of texts.
    """

    columns: Sequence[Column]
    vector: bool = False
    na_texts: Sequence[str] = ()

    def feeds(self, frame: Any) -> dict[str, Any]:
        """The rows of a table as arrays, by input: [N, 1] each, or [N, columns] for a vector."""
        made = {
            each.name: as_input(frame[each.name], each.text, each.flag and not self.vector)
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
        ".jsonl": lambda name: pd.read_json(name, lines=True),
        ".ndjson": lambda name: pd.read_json(name, lines=True),
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


def na_counts(frame: Any, columns: Sequence[Column]) -> dict[str, dict[str, int]]:
    """For each column of texts that has such, the `NA_TEXTS` in it and how many there are."""
    found = {}
    for each in columns:
        if each.text:
            values = frame[each.name]
            counts = values[values.isin(NA_TEXTS)].value_counts()
            found[each.name] = {str(text): int(count) for text, count in counts.items()}
    return {name: counts for name, counts in found.items() if counts}


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
    if len(known) and all(isinstance(each, bool | np.bool_) for each in known):
        return Column(name, False)
    if not all(isinstance(each, str) for each in known):
        kinds = sorted({type(each).__name__ for each in known})
        raise Refused(f'column "{name}" holds {", ".join(kinds)}: an input has numbers or texts')
    return Column(name, True)


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
