"""The trees of scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.trees import Ensemble, Leaf, Node, Split, base_of, member


class Scored(NamedTuple):
    """An ensemble, and how its sums become the estimator's outputs.

    Attributes:
        ensemble: the trees.
        link: "identity", "exp", "sigmoid", "softmax", "proportions" and so on; see `tree_operators`.
        scale: the sums are multiplied by it before the link.
        linear: whether the sums are the coefficients of the features, and then a constant.
        whole: for each feature whether its decimals are cut off before it is compared; empty for none.
    """

    ensemble: Ensemble
    link: str
    scale: float = 1.0
    linear: bool = False
    whole: Sequence[bool] = ()


class NotCarried(Exception):
    """A setting that cannot be converted; the text names it, and the way out."""


def trees_of(model: Any) -> Scored:
    """The trees of a decision tree, a forest or a boosted ensemble.

    Raises:
        NotCarried: a setting of it is not converted.
    """
    name = type(model).__name__
    if name.startswith("HistGradientBoosting"):
        return _histogram_boosting(model)
    if name.startswith("GradientBoosting"):
        return _boosting(model)
    return _forest(model)


def _forest(model: Any) -> Scored:
    is_classifier = hasattr(model, "classes_")
    if is_classifier and model.n_outputs_ > 1:
        raise NotCarried(f"{type(model).__name__} with several targets: train one classifier for each")
    trees = list(getattr(model, "estimators_", [model]))
    targets = len(model.classes_) if is_classifier else model.n_outputs_
    ensemble = Ensemble(targets, [0.0] * targets)
    for each in trees:
        values = each.tree_.value  # [nodes, outputs, classes]
        if is_classifier:
            values = values[:, 0, :] / values[:, 0, :].sum(axis=1, keepdims=True)
        else:
            values = values[:, :, 0]
        ensemble.trees.append(_root(each.tree_, values / len(trees)))
    return Scored(ensemble, "proportions" if is_classifier else "identity")


def _root(tree: Any, values: Any) -> Node:
    """The root of a tree whose leaves have these values, [nodes, targets]."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    features, thresholds = tree.feature.tolist(), tree.threshold.tolist()
    missing = getattr(tree, "missing_go_to_left", np.zeros(len(left), bool)).astype(bool).tolist()
    made: list[Node | None] = [None] * len(left)
    for i in reversed(range(len(left))):  # children have higher numbers than their parents
        if left[i] < 0:
            made[i] = Leaf({target: value for target, value in enumerate(values[i].tolist()) if value})
            if not made[i].values:  # type: ignore[union-attr]
                made[i] = Leaf({0: 0.0})
        else:
            yes, no = made[left[i]], made[right[i]]
            assert yes is not None
            assert no is not None
            made[i] = Split(features[i], "LEQ", thresholds[i], yes, no, missing[i])
    root = made[0]
    assert root is not None
    return root


def _boosting(model: Any) -> Scored:
    if model.init not in (None, "zero"):
        raise NotCarried(f"{type(model).__name__} with init={model.init!r}: train it without init")
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))
    targets = model.estimators_.shape[1]
    ensemble = Ensemble(targets, base_of(start, targets))
    for row in model.estimators_:
        for target, each in enumerate(row):
            values = np.zeros((each.tree_.node_count, targets))
            values[:, target] = each.tree_.value[:, 0, 0] * model.learning_rate
            ensemble.trees.append(_root(each.tree_, values))
    if not hasattr(model, "classes_"):
        return Scored(ensemble, "identity")
    if targets > 1:
        return Scored(ensemble, "softmax")
    return Scored(ensemble, "sigmoid", 2.0 if model.loss == "exponential" else 1.0)


LINKS = {"IdentityLink": "identity", "LogLink": "exp", "LogitLink": "sigmoid", "MultinomialLogit": "softmax"}


def _histogram_boosting(model: Any) -> Scored:
    link = type(model._loss.link).__name__
    if link not in LINKS:
        raise NotCarried(f"{type(model).__name__} with loss={model.loss!r}")
    targets = model.n_trees_per_iteration_
    ensemble = Ensemble(targets, base_of(model._baseline_prediction, targets))
    for row in model._predictors:
        for target, each in enumerate(row):
            ensemble.trees.append(_histogram_root(each, target))
    return Scored(ensemble, LINKS[link])


def _histogram_root(predictor: Any, target: int) -> Node:
    nodes, sets = predictor.nodes, predictor.raw_left_cat_bitsets
    made: dict[int, Node] = {}
    for i in reversed(_below(nodes)):
        node = nodes[i]
        if node["is_leaf"]:
            made[i] = Leaf({target: float(node["value"])})
            continue
        yes, no = made[int(node["left"])], made[int(node["right"])]
        feature, missing = int(node["feature_idx"]), bool(node["missing_go_to_left"])
        if node["is_categorical"]:
            # Unknown categories come as missing: see `estimators.without_encoder`.
            bits = sets[int(node["bitset_idx"])]
            members = [k for k in range(256) if int(bits[k // 32]) >> (k % 32) & 1]
            made[i] = member(feature, members, yes, no, missing)
        else:
            # A threshold may be a value of the training data: rounded as inputs are, that stays on its side.
            with np.errstate(over="ignore"):
                threshold = float(np.float32(node["num_threshold"]))
            made[i] = Split(feature, "LEQ", threshold, yes, no, missing)
    return made[0]


def _below(nodes: Any) -> list[int]:
    """The numbers of the nodes, each after its parent."""
    found = [0]
    for i in found:
        if not nodes[i]["is_leaf"]:
            found += [int(nodes[i]["left"]), int(nodes[i]["right"])]
    return found
