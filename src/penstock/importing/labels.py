"""The classes of a classifier as an output has them: INT64 or texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.importing.trees_sklearn import NotCarried


def as_labels(classes: Any) -> Any:
    """Classes or predicted labels, as INT64 or as an object array of texts, in their own shape.

    Whole numbers of a floating-point type (a column of pandas with a gap, or after a join) are INT64, and so
    are booleans.

    Raises:
        NotCarried: some are neither whole numbers that INT64 holds, nor texts.
    """
    array = np.asarray(classes)
    if array.dtype.kind in "OUST":
        known = array.ravel().tolist()
        if any(isinstance(each, str) for each in known) or not known:
            return np.array([str(each) for each in known], object).reshape(array.shape)
        array = np.array(known).reshape(array.shape)
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)) or np.abs(array).max(initial=0.0) > 2.0**53:
            raise NotCarried(
                f"the classes {_shown(array)}: a label is a whole number or a text; name the classes with "
                "texts before training"
            )
    elif array.dtype.kind not in "biu" or (array.dtype.kind == "u" and array.max(initial=0) >= 2**63):
        raise NotCarried(f"the classes {_shown(array)}: a label is an INT64 or a text")
    return array.astype(np.int64)


def with_labels(model: Any) -> None:
    """Gives a fitted classifier its classes as outputs have them; one that makes them itself stays."""
    classes = getattr(model, "classes_", None)
    if classes is None or isinstance(classes, list):
        return
    try:
        model.classes_ = as_labels(classes)
    except AttributeError:  # a property, such as that of a pipeline
        return


def _shown(array: Any) -> str:
    return ", ".join(str(each) for each in np.unique(array)[:5].tolist())
