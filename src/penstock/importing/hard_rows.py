"""Rows made to be hard, from the rows of the sample: what a service will meet and a sample does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.importing.table import Column, are_booleans, as_tensor

TEXTS = (
    "CAFÉ À LA CARTE",
    "naïve señor Ångström straße",
    "don't re-read e-mail_2 3.14 a b",
    "  two  spaces\tand a tab ",
    "日本語 テキスト",
    "Ελληνικά Σίσυφος",
    "emoji 🙂 x",
    "UPPER lower MiXeD",
)
BASES = 3
"""Each hard row is made from this many rows of the sample."""


def hard_rows(
    frame: Any, columns: Sequence[Column], left_out: Sequence[str] = (), na_texts: Sequence[str] = ()
) -> Iterator[tuple[str, Any]]:
    """Hard rows, a table at a time, with what is hard about it.

    Args:
        frame: the sample.
        columns: the inputs.
        left_out: kinds that are not made.
        na_texts: the texts that stand for missing ones.
    """
    bases = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, BASES).astype(int))]
    for each in columns:
        made = (_lists if each.shape else _single)(each, frame[each.name], na_texts)
        for kind, values in made.items():
            for value in values if kind not in left_out else ():
                if (table := _with(bases, each, value)) is not None:
                    yield f"{kind} in {each.name}", table


def _missing(values: Any) -> Any:
    """A missing value as the column has them: None, or NaN among booleans that were read from a CSV."""
    missing = values[values.isna()]
    return missing.iloc[0] if values.dtype == "object" and len(missing) else None


def _single(column: Column, values: Any, na_texts: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """The hard values of a column of single values, by kind."""
    return {
        "missing": [] if column.flag else [_missing(values), *(na_texts if column.text else ())],
        "unseen": ["never seen before", "\u00e9t\u00e9"] if column.text else [],
        "texts": list(TEXTS) if column.text else [],
        "extremes": [] if column.text else _extremes(values),
    }


def _lists(column: Column, values: Any, na_texts: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """Lists of numbers: one of which one number is missing, and some of one number everywhere."""
    array = as_tensor(values, np.float32).astype(np.float64)
    first = array[0].copy()
    first.flat[0] = np.nan
    numbers = array[np.isfinite(array)]
    made = _ends(float(numbers.min()), float(numbers.max())) if len(numbers) else []
    return {"missing": [first], "extremes": [np.full(column.shape, each) for each in made]}


def _extremes(values: Any) -> list[float]:
    if are_booleans(values):
        return [False, True]
    numbers = values.dropna().astype(float)
    if not len(numbers):
        return []
    return _ends(float(numbers.min()), float(numbers.max()))


def _ends(low: float, high: float) -> list[float]:
    width = (high - low) or 1.0
    return [low, high, low - width, high + width, 0.0, low - 100 * width, high + 100 * width]


def _with(bases: Any, column: Column, value: object) -> Any:
    """The rows with one value instead of their own; None if the column cannot hold it."""
    import pandas as pd

    made = bases.copy()
    old = made[column.name]
    if column.shape:
        made[column.name] = pd.Series([value] * len(made), index=made.index, dtype=object)
        return made
    if isinstance(old.dtype, pd.CategoricalDtype):
        if value is not None and value not in old.cat.categories:
            return None
        made[column.name] = pd.Categorical([value] * len(made), dtype=old.dtype)
    elif column.flag or column.text or old.dtype in ("object", "boolean"):
        made[column.name] = pd.Series([value] * len(made), index=made.index, dtype=old.dtype)
    elif value is None:
        made[column.name] = np.full(len(made), np.nan)
    else:
        is_whole = pd.api.types.is_integer_dtype(old) and float(str(value)).is_integer()
        made[column.name] = np.full(len(made), value, np.int64 if is_whole else np.float64)
    return made
