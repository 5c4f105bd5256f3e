"""Ensembles of trees, whatever library grew them, and the ONNX node that computes them.

Thresholds and leaves are FP64 and inputs are cast to it, so that a value falls on the side of a threshold on
which the library has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class Leaf:
    """The end of a branch: what it adds to each target."""

    values: Mapping[int, float]


@dataclass(slots=True)
class Split:
    """A node with two branches.

    Attributes:
        feature: the column that decides.
        mode: how: `yes` follows where the value is "LEQ", "LT" or "EQ" to the threshold.
        threshold: of the comparison.
        yes: the branch where it holds.
        no: the other one.
        missing_yes: whether missing values follow `yes`.
    """

    feature: int
    mode: str
    threshold: float
    yes: Node
    no: Node
    missing_yes: bool


Node: TypeAlias = Leaf | Split


def member(feature: int, categories: Sequence[float], yes: Node, no: Node, missing_yes: bool) -> Node:
    """A node that asks whether the value is one of several: a chain of comparisons that share a branch."""
    if not categories:  # nothing but missing values
        return Split(feature, "LT", -math.inf, yes, no, missing_yes)
    node = no
    for category in sorted(categories, reverse=True):
        node = Split(feature, "EQ", float(category), yes, node, missing_yes)
    return node


@dataclass(slots=True)
class Ensemble:
    """Trees whose leaves are added up.

    Attributes:
        targets: how many sums there are.
        base: what each of them starts with.
        trees: the root of each tree.
    """

    targets: int
    base: Sequence[float]
    trees: list[Node] = field(default_factory=list)


def attributes(ensemble: Ensemble) -> dict[str, Any]:
    """The attributes of a TreeEnsembleRegressor of `ai.onnx.ml` 3 for FP64.

    Raises:
        ValueError: there is no tree.
    """
    if not ensemble.trees:
        raise ValueError("the model has no trees")
    from onnx import TensorProto, helper

    columns: dict[str, list[Any]] = {
        key: []
        for key in [
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_modes",
            "nodes_values",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_missing_value_tracks_true",
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
        ]
    }
    for tree, root in enumerate(ensemble.trees):
        _flatten(tree, root, columns)
    made: dict[str, Any] = {
        "n_targets": ensemble.targets,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
    doubles = {"nodes_values", "target_weights"}
    made |= {key: values for key, values in columns.items() if key not in doubles}
    for key in doubles:
        made[f"{key}_as_tensor"] = helper.make_tensor(
            key, TensorProto.DOUBLE, [len(columns[key])], columns[key]
        )
    base = [float(each) for each in ensemble.base]
    made["base_values_as_tensor"] = helper.make_tensor("base_values", TensorProto.DOUBLE, [len(base)], base)
    return made


def _flatten(tree: int, root: Node, columns: dict[str, list[Any]]) -> None:
    """Adds the nodes of a tree, each once: branches may be shared."""
    numbers = {id(root): 0}
    waiting = [root]

    def number(node: Node) -> int:
        known = numbers.get(id(node))
        if known is None:
            known = numbers[id(node)] = len(numbers)
            waiting.append(node)
        return known

    for node in waiting:  # grows while it is read
        own = numbers[id(node)]
        row: dict[str, Any] = {"treeids": tree, "nodeids": own}
        if isinstance(node, Split):
            row |= {
                "featureids": node.feature,
                "modes": f"BRANCH_{node.mode}",
                "values": node.threshold,
                "truenodeids": number(node.yes),
                "falsenodeids": number(node.no),
                "missing_value_tracks_true": int(node.missing_yes),
            }
        else:
            row |= {"featureids": 0, "modes": "LEAF", "values": 0.0, "truenodeids": 0, "falsenodeids": 0}
            row["missing_value_tracks_true"] = 0
        for key, value in row.items():
            columns[f"nodes_{key}"].append(value)
        if isinstance(node, Leaf):
            for target, value in node.values.items():
                leaf = {"treeids": tree, "nodeids": own, "ids": target, "weights": float(value)}
                for key, each in leaf.items():
                    columns[f"target_{key}"].append(each)


def base_of(values: object, targets: int) -> list[float]:
    """The start of each sum, from one number or one a target."""
    flat = np.asarray(values, np.float64).ravel()
    return [float(each) for each in (np.repeat(flat, targets) if len(flat) == 1 else flat)]
