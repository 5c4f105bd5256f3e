"""Settings that converters are known to lose, so that a refusal can name them."""

from __future__ import annotations

from typing import Any


def known_loss(original: Any) -> str:
    """Which setting of a model is probably lost, and the way out; "" if none is known."""
    for name, is_it, advice in LOSSES:
        for each in _parts(getattr(original, "model", None)):
            if type(each).__name__ in name and is_it(each):
                return f"known: {type(each).__name__} {advice}"
    return ""


def _parts(model: Any) -> list[Any]:
    from penstock.importing.estimators import parts

    try:
        return parts(model)
    except (AttributeError, TypeError):
        return [model]


LOSSES = (
    (
        ("SGDClassifier",),
        lambda model: model.loss == "modified_huber",
        "with loss='modified_huber' loses its probabilities: train with loss='log_loss'",
    ),
    (
        ("IsolationForest",),
        lambda model: True,
        "is converted with FP32 thresholds: its scores may differ; import it with --tolerance",
    ),
    (
        ("TfidfVectorizer", "CountVectorizer"),
        lambda model: True,
        "splits texts into tokens in Python: texts that the hard rows show are split otherwise; --leave-out texts "
        "accepts that",
    ),
)
