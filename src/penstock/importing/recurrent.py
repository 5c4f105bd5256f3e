"""Recurrent layers of ONNX Runtime, which with a bias make numbers of missing values; frameworks do not."""

from __future__ import annotations

from typing import Any

import numpy as np

LENGTHS = 4
"""The place of the lengths of sequences among the inputs of a layer."""


def keep_missing(graph: Any) -> None:
    """Makes what each LSTM and GRU gives from a missing value on a missing value."""
    from onnx import numpy_helper

    found = [
        each for each in graph.node if each.op_type in ("LSTM", "GRU") and not any(each.input[LENGTHS:][:1])
    ]
    for i, node in enumerate(found):
        place = list(graph.node).index(node)
        before, after = _nodes(node, f"recurrent_{i}_")
        for each in reversed(after):
            graph.node.insert(place + 1, each)
        for each in reversed(before):
            graph.node.insert(place, each)
    constants: dict[str, Any] = {
        "recurrent_nan": np.array(np.nan, np.float32),
        "recurrent_zero": np.array(0, np.float32),
        "recurrent_axis": np.array(0, np.int64),
        "recurrent_steps": np.array([0], np.int64),
        "recurrent_directions": np.array([1], np.int64),
        "recurrent_features": np.array([2], np.int64),
    }
    for name, value in constants.items() if found else ():
        graph.initializer.append(numpy_helper.from_array(value, name))


def _nodes(node: Any, prefix: str) -> tuple[list[Any], list[Any]]:
    """What comes before and after a layer, whose outputs get other names.

    Its input is [steps, rows, features]; its outputs are [steps, directions, rows, units] and, once or
    twice, [directions, rows, units]. What is added to them is 0, or NaN where a missing value came before.
    """
    from onnx import helper

    def name(own: str) -> str:
        return f"{prefix}{own}"

    direction = next((each.s.decode() for each in node.attribute if each.name == "direction"), "forward")
    before = [
        helper.make_node("IsNaN", [node.input[0]], [name("is")]),
        helper.make_node("Where", [name("is"), "recurrent_nan", "recurrent_zero"], [name("each")]),
        helper.make_node("ReduceSum", [name("each"), "recurrent_features"], [name("step")], keepdims=1),
        helper.make_node("ReduceSum", [name("step"), "recurrent_steps"], [name("any")], keepdims=1),
    ]
    ways = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[direction]
    for way in ways:
        sums, one = name(f"sums_{way}"), name(f"one_{way}")
        before.append(helper.make_node("CumSum", [name("step"), "recurrent_axis"], [sums], reverse=way))
        before.append(helper.make_node("Unsqueeze", [sums, "recurrent_directions"], [one]))
    before.append(helper.make_node("Concat", [name(f"one_{way}") for way in ways], [name("all")], axis=1))
    after = []
    for i, own in enumerate(list(node.output)):
        if own:
            node.output[i] = name(f"output_{i}")
            added = name("any" if i else "all")
            after.append(helper.make_node("Add", [node.output[i], added], [own]))
    return before, after
