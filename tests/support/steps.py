"""ONNX models with a state that grows, that a step brings, or that is sent once; see `support.zoo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.zoo import IR_VERSION, OPSET

Value = tuple[str, Sequence[int | str | None]]
"""The name and the shape of a tensor, FP32."""


def encoder() -> onnx.ModelProto:
    """`text` [N, T] to `memory` [N, T, 2]: each value, and its double."""
    nodes = [
        helper.make_node("Unsqueeze", ["text", "last"], ["deep"]),
        helper.make_node("Mul", ["deep", "factors"], ["memory"]),
    ]
    constants = {"last": np.array([2]), "factors": np.array([1, 2], np.float32)}
    return made(nodes, [("text", ("N", "T"))], [("memory", ("N", "T", 2))], constants)


def decoder() -> onnx.ModelProto:
    """`x` [N, 1] and `memory` [N, T, 2] to `y` [N, 1], x and the sum of the memory, which x is added to."""
    nodes = [
        helper.make_node("ReduceSum", ["memory", "inner"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["sum", "last"], ["sums"]),
        helper.make_node("Add", ["x", "sums"], ["y"]),
        helper.make_node("Unsqueeze", ["x", "last"], ["deep"]),
        helper.make_node("Add", ["memory", "deep"], ["memory_out"]),
    ]
    inputs = [("x", ("N", 1)), ("memory", ("N", "T", 2))]
    outputs = [("y", ("N", 1)), ("memory_out", ("N", "T", 2))]
    return made(nodes, inputs, outputs, {"inner": np.array([1, 2]), "last": np.array([1])})


def spoken(width: int | str = "K") -> onnx.ModelProto:
    """`y` = `sumN` = sum + x times the sum of `speaker` [N, K]; all others are [N, 1]."""
    nodes = [
        helper.make_node("ReduceSum", ["speaker", "last"], ["voice"], keepdims=1),
        helper.make_node("Mul", ["x", "voice"], ["said"]),
        helper.make_node("Add", ["sum", "said"], ["sumN"]),
        helper.make_node("Identity", ["sumN"], ["y"]),
    ]
    inputs = [("x", ("N", 1)), ("sum", ("N", 1)), ("speaker", ("N", width))]
    return made(nodes, inputs, [("y", ("N", 1)), ("sumN", ("N", 1))], {"last": np.array([1])})


def rated() -> onnx.ModelProto:
    """`y` = `sumN` = sum + x * `rate`, a scalar; all others are [N, 1]."""
    nodes = [
        helper.make_node("Mul", ["x", "rate"], ["said"]),
        helper.make_node("Add", ["sum", "said"], ["sumN"]),
        helper.make_node("Identity", ["sumN"], ["y"]),
    ]
    inputs = [("x", ("N", 1)), ("sum", ("N", 1)), ("rate", ())]
    return made(nodes, inputs, [("y", ("N", 1)), ("sumN", ("N", 1))], {})


def cache(after: int | str | None = "P + S", axis: int = 1) -> onnx.ModelProto:
    """`x` [N, S, 2] is added to the end of `past` [N, P, 2], which is `present`; `y` [N, 2] is its sum."""
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["present"], axis=axis),
        helper.make_node("ReduceSum", ["present", "along"], ["y"], keepdims=0),
    ]
    inputs = [("x", ("N", "S", 2)), ("past", ("N", "P", 2))]
    return made(nodes, inputs, [("y", ("N", 2)), ("present", ("N", after, 2))], {"along": np.array([1])})


def attention() -> onnx.ModelProto:
    """As `cache`, of one head: `x` [N, 1, 1, 2], `past` [N, 1, P, 2], `mask` [N, P + 1] of what counts."""
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["present"], axis=2),
        helper.make_node("Unsqueeze", ["mask", "outer"], ["weights"]),
        helper.make_node("Mul", ["present", "weights"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "along"], ["y"], keepdims=0),
    ]
    inputs = [("x", ("N", 1, 1, 2)), ("mask", ("N", "P + 1")), ("past", ("N", 1, "P", 2))]
    constants = {"outer": np.array([1, 3]), "along": np.array([1, 2])}
    return made(nodes, inputs, [("y", ("N", 2)), ("present", ("N", 1, "P + 1", 2))], constants)


def only_new() -> onnx.ModelProto:
    """As `cache`, but `present` is only what is new."""
    nodes = [
        helper.make_node("Identity", ["x"], ["present"]),
        helper.make_node("Concat", ["past", "x"], ["all"], axis=1),
        helper.make_node("ReduceSum", ["all", "along"], ["y"], keepdims=0),
    ]
    inputs = [("x", ("N", "S", 2)), ("past", ("N", "P", 2))]
    return made(nodes, inputs, [("y", ("N", 2)), ("present", ("N", "Q", 2))], {"along": np.array([1])})


def added(width: int = 3) -> onnx.ModelProto:
    """`y` = `hn` = `x` [N, 3] + `h` [N, L]: it fails if L is neither 1 nor 3."""
    nodes = [helper.make_node("Add", ["x", "h"], ["hn"]), helper.make_node("Identity", ["hn"], ["y"])]
    inputs = [("x", ("N", width)), ("h", ("N", "L"))]
    return made(nodes, inputs, [("y", ("N", width)), ("hn", ("N", width))], {})


def once() -> onnx.ModelProto:
    """`y` = x [N, 1]; the state h [N, 1] grows by 1 with every step, and the model fails if it is not 0."""
    nodes = [
        helper.make_node("Cast", ["h"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["one"]),
        helper.make_node("Add", ["h", "one"], ["hn"]),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    inputs = [("x", ("N", 1)), ("h", ("N", 1))]
    constants = {"table": np.array([1], np.float32)}
    return made(nodes, inputs, [("y", ("N", 1)), ("hn", ("N", 1))], constants)


def made(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    constants: Mapping[str, Any],
) -> onnx.ModelProto:
    """A model of FP32 inputs and outputs."""
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
        for values in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "steps", taken, given, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
