"""Settings that converters are known to lose, so that a refusal can name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_TOKENS = "splits texts in Python: those as in the worst row become other tokens; --leave-out texts"
LOSSES: Mapping[str, str] = {
    "IsolationForest": "is converted with FP32 thresholds: scores may differ; accept that with --tolerance",
    "TfidfVectorizer": _TOKENS,
    "CountVectorizer": _TOKENS,
}
"""For each estimator what is lost, and the way out."""


def known_loss(original: Any) -> str:
    """What of a model is probably lost, and the way out; "" if nothing is known."""
    from penstock.importing.estimators import parts

    model = getattr(original, "model", None)
    if _has_long_labels(model):
        return (
            "known: labels beyond 2,147,483,647 are cut by most converters: number the classes from 0, or "
            "name them with texts, before training"
        )
    for each in parts(model) if model is not None else ():
        if getattr(each, "sublinear_tf", False):
            name = type(each).__name__
            return f"known: {name} with sublinear_tf=True is converted otherwise: train it without"
        if said := LOSSES.get(type(each).__name__):
            return f"known: {type(each).__name__} {said}"
    return ""


def _has_long_labels(model: Any) -> bool:
    classes = getattr(model, "classes_", None)
    array = np.asarray([] if classes is None or isinstance(classes, list) else classes)
    return array.dtype.kind in "iuf" and bool((np.abs(array.astype(float)) >= 2**31).any())
