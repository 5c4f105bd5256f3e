"""The trees of XGBoost, with the objectives that its converters lose."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from penstock.importing.trees import Ensemble, Leaf, Node, Split, base_of, member
from penstock.importing.trees_sklearn import NotCarried, Scored

LINKS = {
    "reg:squarederror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "reg:squaredlogerror": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
    "reg:logistic": "sigmoid",
    "binary:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
}


def trees_of(booster: Any, rounds: int | None = None) -> Scored:
    """The trees of an `xgboost.Booster`.

    Args:
        booster: the booster.
        rounds: how many rounds of training count; None for all.

    Raises:
        NotCarried: its objective or booster is not converted.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    grown = learner["gradient_booster"]
    weights = None
    if grown["name"] == "dart":
        weights = [float(each) for each in grown["weight_drop"]]
        grown = grown["gbtree"]
    if grown["name"] != "gbtree":
        raise NotCarried(
            f"XGBoost with booster={grown['name']}: it has no trees; use scikit-learn's linear models"
        )
    if objective not in LINKS:
        raise NotCarried(
            f"XGBoost with objective={objective}: what it makes of the sum of its trees is not known"
        )
    parameters = learner["learner_model_param"]
    targets = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    base = [float(each) for each in str(parameters["base_score"]).strip("[]").split(",")]
    link = LINKS[objective]
    ensemble = Ensemble(targets, base_of([_margin(link, each) for each in base], targets))
    trees, groups = grown["model"]["trees"], grown["model"]["tree_info"]
    if rounds is not None:
        indptr = grown["model"].get("iteration_indptr")
        count = indptr[min(rounds, len(indptr) - 1)] if indptr else rounds * targets
        trees, groups = trees[:count], groups[:count]
    for i, (tree, group) in enumerate(zip(trees, groups, strict=True)):
        if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise NotCarried("XGBoost with multi_strategy=multi_output_tree: train with one_output_per_tree")
        ensemble.trees.append(_root(tree, int(group), weights[i] if weights else 1.0))
    return Scored(ensemble, link)


def _margin(link: str, base: float) -> float:
    """The start of the sum, from the start of the output."""
    if link == "sigmoid":
        return math.log(base / (1 - base))
    return math.log(base) if link == "exp" else base


def _root(tree: dict[str, Any], target: int, weight: float) -> Node:
    left, right = tree["left_children"], tree["right_children"]
    kinds = tree.get("split_type") or [0] * len(left)
    begins = dict(
        zip(
            tree.get("categories_nodes", ()),
            zip(tree.get("categories_segments", ()), tree.get("categories_sizes", ()), strict=True),
            strict=True,
        )
    )
    order = [0]
    for i in order:
        if left[i] >= 0:
            order += [left[i], right[i]]
    made: dict[int, Node] = {}
    for i in reversed(order):
        value = float(np.float32(tree["split_conditions"][i]))
        if left[i] < 0:
            made[i] = Leaf({target: value * weight})
            continue
        yes, no = made[left[i]], made[right[i]]
        feature, missing = tree["split_indices"][i], bool(tree["default_left"][i])
        if kinds[i]:
            begin, size = begins[i]
            # Its categories go to the right, all others to the left.
            members = tree["categories"][begin : begin + size]
            made[i] = member(feature, members, no, yes, not missing)
        else:
            made[i] = Split(feature, "LT", value, yes, no, missing)
    return made[0]
