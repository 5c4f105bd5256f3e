"""Which columns scikit-learn's estimators were fitted with as texts, or with None: a CSV does not say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def texts_of(model: Any, names: Sequence[str]) -> Iterator[str]:
    """The columns that hold texts for certain: an encoder knows texts of them, an imputer, or a vectorizer.

    Args:
        model: fitted.
        names: the columns that it takes, in order.
    """
    return _with_values(model, names, lambda value: isinstance(value, str))


def nones_of(model: Any, names: Sequence[str]) -> Iterator[str]:
    """The columns in which an encoder knows None: their missing values are None, and not NaN.

    Args:
        model: fitted.
        names: the columns that it takes, in order.
    """
    return _with_values(model, names, lambda value: value is None)


def _with_values(model: Any, names: Sequence[str], is_meant: Callable[[Any], bool]) -> Iterator[str]:
    if hasattr(model, "steps"):
        for _, step in model.steps:
            yield from _with_values(step, names, is_meant)
            if not _keeps_columns(step, names):
                return
    elif hasattr(model, "transformers_"):
        for _, step, taken in model.transformers_:
            yield from _with_values(step, chosen(taken, names), is_meant)
    elif hasattr(model, "transformer_list"):
        for _, step in model.transformer_list:
            yield from _with_values(step, names, is_meant)
    elif hasattr(model, "build_analyzer"):
        yield from names if len(names) == 1 and is_meant("") else ()
    elif getattr(model, "_preprocessor", None) is not None:  # a histogram-based boosting with categories
        yield from _with_values(model._preprocessor, names, is_meant)
    else:
        yield from _known_to(model, names, is_meant)


def _known_to(model: Any, names: Sequence[str], is_meant: Callable[[Any], bool]) -> Iterator[str]:
    """The columns of whose values an encoder or an imputer has kept some that are meant."""
    kept = getattr(model, "categories_", None)
    if not isinstance(kept, list):
        statistics = getattr(model, "statistics_", None)
        kept = [] if statistics is None else [[each] for each in statistics]
    if len(kept) == len(names):
        for name, values in zip(names, kept, strict=True):
            if any(is_meant(each) for each in np.asarray(values, object).ravel()):
                yield name


def _keeps_columns(step: Any, names: Sequence[str]) -> bool:
    """Whether a step of a pipeline gives the columns that it takes."""
    if step is None or step == "passthrough":
        return True
    return hasattr(step, "statistics_") and len(step.get_feature_names_out(list(names))) == len(names)


def chosen(taken: Any, names: Sequence[str]) -> list[str]:
    """The names of the columns that a transformer takes, however they were given."""
    if isinstance(taken, str):
        return [taken]
    if isinstance(taken, int | np.integer):
        return [names[int(taken)]]
    if isinstance(taken, slice):
        return list(names)[taken]
    values = list(taken)
    if values and isinstance(values[0], bool | np.bool_):
        return [name for name, is_taken in zip(names, values, strict=True) if is_taken]
    return [each if isinstance(each, str) else names[each] for each in values]
