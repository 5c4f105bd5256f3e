"""The trees of LightGBM, with the settings that its converters lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from penstock.importing.trees import Ensemble, Leaf, Node, Split, member
from penstock.importing.trees_sklearn import NotCarried, Scored

LINKS = {
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "multiclass": "softmax",
    "multiclassova": "sigmoids",
}


def trees_of(booster: Any) -> Scored:
    """The trees of a `lightgbm.Booster`.

    Raises:
        NotCarried: its objective is not known.
    """
    dump = booster.dump_model()
    name, *words = (dump.get("objective") or "custom").split()
    given = dict(word.partition(":")[::2] for word in words)
    if name not in LINKS:
        raise NotCarried(
            f"LightGBM with objective={name}: what it makes of the sum of its trees is not known"
        )
    targets = int(dump["num_tree_per_iteration"])
    infos = dump["tree_info"]
    is_linear = any(_has_linear(info["tree_structure"]) for info in infos)
    features = int(dump["max_feature_idx"]) + 1
    width = features + 1 if is_linear else targets
    if is_linear and targets > 1:
        raise NotCarried("LightGBM with linear_tree and several classes: train it with linear_tree=False")
    factor = targets / len(infos) if dump.get("average_output") and infos else 1.0
    ensemble = Ensemble(width, [0.0] * width)
    for i, info in enumerate(infos):
        place = features if is_linear else i % targets
        ensemble.trees.append(_node(info["tree_structure"], place, factor))
    link = "signed_square" if name == "regression" and "sqrt" in words else LINKS[name]
    whole = [] if booster.pandas_categorical else _compared_as_categories(infos, features)
    return Scored(ensemble, link, float(given.get("sigmoid", 1.0)), is_linear, whole)


def _compared_as_categories(infos: Sequence[dict[str, Any]], features: int) -> list[bool]:
    """Which features it takes for numbers of categories: it cuts their decimals off; empty if for none."""
    found, waiting = [False] * features, [info["tree_structure"] for info in infos]
    for each in waiting:
        if each.get("decision_type") == "==":
            found[int(each["split_feature"])] = True
        waiting += [each[key] for key in ("left_child", "right_child") if key in each]
    return found if any(found) else []


def _has_linear(node: dict[str, Any]) -> bool:
    waiting = [node]
    for each in waiting:
        if each.get("leaf_coeff"):
            return True
        waiting += [each[key] for key in ("left_child", "right_child") if key in each]
    return False


def _node(root: dict[str, Any], target: int, factor: float) -> Node:
    """A tree, made from its leaves up: it may be deeper than Python's stack."""
    order = [root]
    for each in order:
        order += [each[key] for key in ("left_child", "right_child") if key in each]
    made: dict[int, Node] = {}
    for each in reversed(order):
        if "split_feature" not in each:
            made[id(each)] = _leaf(each, target, factor)
        else:
            made[id(each)] = _split(each, made[id(each["left_child"])], made[id(each["right_child"])])
    return made[id(root)]


def _leaf(node: dict[str, Any], target: int, factor: float) -> Node:
    plain = {target: float(node["leaf_value"]) * factor}
    if "leaf_const" not in node:
        return Leaf(plain)
    values = {target: float(node["leaf_const"]) * factor}
    for feature, weight in zip(node.get("leaf_features", ()), node.get("leaf_coeff", ()), strict=True):
        values[int(feature)] = float(weight) * factor
    made: Node = Leaf(values)
    # Where one of its features is missing, the leaf is a constant.
    for feature in node.get("leaf_features", ()):
        made = Split(int(feature), "LT", -math.inf, Leaf(plain), made, True)
    return made


def _split(node: dict[str, Any], left: Node, right: Node) -> Node:
    feature = int(node["split_feature"])
    if node["decision_type"] == "==":
        return member(
            feature, [float(each) for each in str(node["threshold"]).split("||")], left, right, False
        )
    threshold, missing = float(node["threshold"]), node["missing_type"]
    if missing == "None":  # a missing value counts as 0
        return Split(feature, "LEQ", threshold, left, right, threshold >= 0)
    to_left = bool(node["default_left"])
    split = Split(feature, "LEQ", threshold, left, right, to_left)
    if missing != "Zero":
        return split
    # 0 counts as missing.
    return Split(feature, "EQ", 0.0, left if to_left else right, split, True)
