"""Scalers before histogram-based boosting, folded into its thresholds.

Its thresholds are compared in FP64 with scaled values, and may be scaled values of the training data. Inputs
are FP32: scaled, a rounded value falls on either side of its own threshold. Scalers keep the order of
values. So each threshold is replaced by the largest value that scales to it or below, and the scaler is left
out; the comparison is then that of a model without a scaler, see `trees_sklearn`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

SCALERS = ("StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler")

PASSED = "passthrough"
"""What scikit-learn calls a step that gives what it takes."""

Scale: TypeAlias = Callable[[Any], Any]
"""What a scaler makes of an array of values, FP64, of one column."""


def folded(pipeline: Any) -> Any:
    """A pipeline without the scalers right before a histogram-based boosting at its end, or the same one.

    Args:
        pipeline: fitted, and a copy: its steps are replaced.
    """
    steps = list(pipeline.steps)
    last = steps[-1][1]
    if len(steps) < 2 or not type(last).__name__.startswith("HistGradientBoosting"):
        return pipeline
    before, scales = _without_scalers(steps[-2][1])
    is_plain = getattr(last, "_preprocessor", None) is None and last.is_categorical_ is None
    if not any(scales) or len(scales) != last.n_features_in_ or not is_plain:
        return pipeline
    steps[-1] = (steps[-1][0], _with_thresholds(last, scales))
    steps[-2:-1] = [] if isinstance(before, str) else [(steps[-2][0], before)]
    pipeline.steps = steps
    return pipeline


def _without_scalers(step: Any) -> tuple[Any, Sequence[Scale | None]]:
    """A transformer without the scalers that make its last columns, and the scaling of each of those.

    Returns:
        The transformer, `PASSED` if nothing is left of it, and for each of its columns what was left out;
        no columns if nothing was.
    """
    if type(step).__name__ in SCALERS:
        return PASSED, [_scale(step, i) for i in range(step.n_features_in_)]
    if hasattr(step, "steps"):
        before, scales = _without_scalers(step.steps[-1][1])
        if not any(scales):
            return step, []
        left = [*step.steps[:-1], *([] if isinstance(before, str) else [(step.steps[-1][0], before)])]
        if not left:
            return PASSED, scales
        made = copy.copy(step)
        made.steps = left
        return made, scales
    if hasattr(step, "transformers_") and hasattr(step, "output_indices_"):
        return _of_columns(step)
    return step, []


def _of_columns(step: Any) -> tuple[Any, Sequence[Scale | None]]:
    """The same of a `ColumnTransformer`."""
    places = step.output_indices_
    width = max((each.stop for each in places.values()), default=0)
    scales: list[Scale | None] = [None] * width
    transformers = []
    for name, inner, taken in step.transformers_:
        before, own = (inner, []) if isinstance(inner, str) else _without_scalers(inner)
        place = places[name]
        is_folded = len(own) == place.stop - place.start > 0
        if is_folded:
            scales[place] = own
        transformers.append((name, before if is_folded else inner, taken))
    if not any(scales):
        return step, []
    made = copy.copy(step)
    made.transformers_ = transformers
    return made, scales


def _scale(scaler: Any, column: int) -> Scale:
    """What a fitted scaler makes of one of its columns, with scikit-learn's own operations."""

    def one(values: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            if hasattr(scaler, "min_"):
                made = values * scaler.scale_[column]
                made = made + scaler.min_[column]
                return np.clip(made, *scaler.feature_range) if scaler.clip else made
            offset = scaler.mean_ if getattr(scaler, "with_mean", False) else None
            if getattr(scaler, "with_centering", False):
                offset = scaler.center_
            made = values if offset is None else values - offset[column]
            return made if scaler.scale_ is None else made / scaler.scale_[column]

    return one


def _with_thresholds(model: Any, scales: Sequence[Scale | None]) -> Any:
    """A boosting whose thresholds are those of values that are not scaled."""
    made = copy.copy(model)
    made._predictors = [[copy.copy(each) for each in row] for row in model._predictors]
    for row in made._predictors:
        for each in row:
            nodes = each.nodes.copy()
            for feature, scale in enumerate(scales):
                chosen = (nodes["is_leaf"] == 0) & (nodes["feature_idx"] == feature)
                if scale is not None and chosen.any():
                    nodes["num_threshold"][chosen] = largest_below(scale, nodes["num_threshold"][chosen])
            each.nodes = nodes
    return made


def largest_below(scale: Scale, thresholds: Any) -> Any:
    """For each threshold the largest FP64 that scales to it or to less; minus infinity if there is none.

    Args:
        scale: never gives less for a larger value.
        thresholds: FP64 [N].
    """
    # Whole numbers in the order of the FP64 numbers that they stand for, from minus infinity to infinity.
    low = np.full(len(thresholds), _place(-np.inf), np.int64)
    high = np.full(len(thresholds), _place(np.inf), np.int64)
    while (low < high).any():
        middle = low + ((high - low).view(np.uint64) // 2 + (high - low).view(np.uint64) % 2).view(np.int64)
        is_below = scale(_value(middle)) <= thresholds
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle - 1)
    return _value(low)


def _place(value: float) -> int:
    bits = int(np.float64(value).view(np.int64))
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _value(places: Any) -> Any:
    magnitude = np.abs(places).view(np.float64)
    return np.where(places < 0, -magnitude, magnitude)
