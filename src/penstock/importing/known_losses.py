"""Settings that converters are known to lose, so that a refusal can name them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.importing.hard_rows import TEXTS
from penstock.importing.network import Network

_TOKENS = "splits texts in Python: those as in the worst row become other tokens; --leave-out texts"
_OF_TEXTS: Mapping[str, str] = {"TfidfVectorizer": _TOKENS, "CountVectorizer": _TOKENS}
_SPLITS = (
    "behind a scaler splits at scaled values of the training data, in FP64, and inputs are FP32: train it "
    "without the scaler, which trees do not need"
)
_SCALERS = ("StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler")
LOSSES: Mapping[str, str] = {
    "IsolationForest": "is converted with FP32 thresholds: scores may differ; accept that with --tolerance",
}
"""For each estimator what is lost, and the way out."""


def known_loss(original: Any, worst_of_hard: Mapping[str, object]) -> str:
    """What of a model is probably lost, and the way out; "" if nothing is known.

    Args:
        original: the model.
        worst_of_hard: the inputs of the worst of the hard rows, if those differ: the way texts are split is
            named only where one of the hard texts is in it.
    """
    from penstock.importing.estimators import parts

    if isinstance(original, Network) and "NaN" in json.dumps(worst_of_hard):
        return (
            "known: operators of ONNX Runtime, such as MaxPool, ReduceMax and LSTM, make numbers of missing "
            "values, and the original does not: if requests have none, --leave-out missing"
        )
    model = getattr(original, "model", None)
    if _has_long_labels(model):
        return (
            "known: labels beyond 2,147,483,647 are cut by most converters: number the classes from 0, or "
            "name them with texts, before training"
        )
    names = [type(each).__name__ for each in parts(model)] if model is not None else []
    has_text = any(value in TEXTS for value in worst_of_hard.values() if isinstance(value, str))
    for name in names:
        if name.startswith("HistGradientBoosting") and set(names) & set(_SCALERS):
            return f"known: {name} {_SPLITS}"
        if name == "SimpleImputer" and _knows_none(model):
            return (
                "known: SimpleImputer takes None for a value and keeps it, where a request has a missing "
                "value: make NaN of None (frame.fillna(numpy.nan)) before training"
            )
        if said := LOSSES.get(name) or (_OF_TEXTS.get(name) if has_text else None):
            return f"known: {name} {said}"
    return ""


def _knows_none(model: Any) -> bool:
    """Whether an encoder was fitted with None."""
    from penstock.importing.estimators import parts

    return any(
        value is None
        for each in parts(model)
        for values in getattr(each, "categories_", ()) or ()
        for value in np.asarray(values, object).ravel()
    )


def _has_long_labels(model: Any) -> bool:
    classes = getattr(model, "classes_", None)
    array = np.asarray([] if classes is None or isinstance(classes, list) else classes)
    return array.dtype.kind in "iuf" and bool((np.abs(array.astype(float)) >= 2**31).any())
