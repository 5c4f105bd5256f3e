"""ONNX models whose rows have lengths, for tests of padding; see `support.zoo`.

Token ids are whole numbers from 0 to 9. Unless said otherwise the rows' axis is N, that of the lengths L.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.zoo import IR_VERSION, OPSET

WIDTH = 4
TABLE = np.random.default_rng(0).standard_normal((10, WIDTH)).astype(np.float32)
"""What each token is embedded as."""

_EMBED = helper.make_node("Gather", ["table", "input_ids"], ["embedded"])
_IDS = ("input_ids", TensorProto.INT64, ("N", "L"))


def mean() -> onnx.ModelProto:
    """`input_ids` [N, L] to `y` [N, 4], the mean of what they are embedded as: padding changes it."""
    nodes = [_EMBED, helper.make_node("ReduceMean", ["embedded"], ["y"], axes=[1], keepdims=0)]
    return _model(nodes, [_IDS], [("y", TensorProto.FLOAT, ("N", WIDTH))])


def masked_mean(mask: int = TensorProto.INT64) -> onnx.ModelProto:
    """As `mean`, with an `attention_mask` [N, L] of what counts, of this datatype."""
    nodes = [
        _EMBED,
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"], ["weights"]),
        helper.make_node("Mul", ["embedded", "weights"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "along"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["counts", "along"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["y"]),
    ]
    inputs = [_IDS, ("attention_mask", mask, ("N", "L"))]
    axes = {"last": np.array([2]), "along": np.array([1])}
    return _model(nodes, inputs, [("y", TensorProto.FLOAT, ("N", WIDTH))], axes)


def per_position(given: Sequence[int | str | None] = ("N", "L", 4)) -> onnx.ModelProto:
    """`input_ids` [N, L] to `y` [N, L, 4], a product for each, and to `first` [N, 4], the first."""
    nodes = [
        _EMBED,
        helper.make_node("MatMul", ["embedded", "matrix"], ["y"]),
        helper.make_node("Gather", ["y", "zero"], ["first"], axis=1),
    ]
    matrix = np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    outputs = [("y", TensorProto.FLOAT, given), ("first", TensorProto.FLOAT, ("N", WIDTH))]
    return _model(nodes, [_IDS], outputs, {"matrix": matrix, "zero": np.int64(0)})


def mean_by_lengths() -> onnx.ModelProto:
    """`x` FP32 [N, L, 2] and `lengths` [N] to `y` [N, 2], the mean of the first `lengths` positions."""
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=1, end=2),
        helper.make_node("Squeeze", ["size"], ["limit"]),
        helper.make_node("Range", ["zero", "limit", "one"], ["places"]),
        helper.make_node("Unsqueeze", ["lengths", "last"], ["until"]),
        helper.make_node("Less", ["places", "until"], ["within"]),
        helper.make_node("Unsqueeze", ["within", "deep"], ["within_x"]),
        helper.make_node("Where", ["within_x", "x", "nothing"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "last"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["until"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sum", "count"], ["y"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ("N", "L", 2)), ("lengths", TensorProto.INT64, ("N",))]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "last": np.array([1]),
        "deep": np.array([2]),
        "nothing": np.float32(0),
    }
    return _model(nodes, inputs, [("y", TensorProto.FLOAT, ("N", 2))], constants)


def normalised(by: str) -> onnx.ModelProto:
    """`x` FP32 [N, L] to `y` [N, L], less its own ReduceMean or ReduceMax, as front ends for audio do.

    Padding changes it; the largest value only of rows that are below 0 throughout.
    """
    nodes = [
        helper.make_node(by, ["x"], ["level"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["x", "level"], ["y"]),
    ]
    shape = ("N", "L")
    return _model(nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)])


def short(most: int) -> onnx.ModelProto:
    """As `per_position` without `first`, with an embedding of the place: rows of more than `most` fail."""
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["size"], start=1, end=2),
        helper.make_node("Squeeze", ["size"], ["limit"]),
        helper.make_node("Range", ["zero", "limit", "one"], ["places"]),
        helper.make_node("Gather", ["places_table", "places"], ["placed"]),
        _EMBED,
        helper.make_node("Add", ["embedded", "placed"], ["y"]),
    ]
    places = np.random.default_rng(2).standard_normal((most, WIDTH)).astype(np.float32)
    constants = {"zero": np.int64(0), "one": np.int64(1), "places_table": places}
    return _model(nodes, [_IDS], [("y", TensorProto.FLOAT, ("N", "L", WIDTH))], constants)


def at_a_rate(rate: int = 16000, reach: int = 2) -> onnx.ModelProto:
    """`audio` FP32 [?, ?] and `rate` INT64 [] to `y` [?], the mean of what is reflected at both ends.

    It fails at any other rate, and on rows of no more than `reach` elements.
    """
    nodes = [
        helper.make_node("Sub", ["rate", "only"], ["place"]),
        helper.make_node("Gather", ["factors", "place"], ["factor"]),
        helper.make_node("Pad", ["audio", "ends"], ["longer"], mode="reflect"),
        helper.make_node("ReduceMean", ["longer"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["y"]),
    ]
    inputs = [("audio", TensorProto.FLOAT, (None, None)), ("rate", TensorProto.INT64, ())]
    constants = {
        "only": np.int64(rate),
        "factors": np.ones(1, np.float32),
        "ends": np.array([0, reach, 0, reach]),
    }
    return _model(nodes, inputs, [("y", TensorProto.FLOAT, (None,))], constants)


def weighed(weight: int = 4, width: int = 5) -> onnx.ModelProto:
    """`x` FP32 [N, L, K] and `weight` FP32 [N] to `y` [N, L, 2]: fails with any other weight or K."""
    nodes = [
        helper.make_node("Cast", ["weight"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", "only"], ["place"]),
        helper.make_node("Gather", ["factors", "place"], ["factor"]),
        helper.make_node("Unsqueeze", ["factor", "inner"], ["factors_x"]),
        helper.make_node("MatMul", ["x", "matrix"], ["product"]),
        helper.make_node("Mul", ["product", "factors_x"], ["y"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ("N", "L", "K")), ("weight", TensorProto.FLOAT, ("N",))]
    constants = {
        "only": np.int64(weight),
        "factors": np.ones(1, np.float32),
        "inner": np.array([1, 2]),
        "matrix": np.ones((width, 2), np.float32),
    }
    return _model(nodes, inputs, [("y", TensorProto.FLOAT, ("N", "L", 2))], constants)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Any]],
    outputs: Sequence[tuple[str, int, Any]],
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    if any(node is _EMBED for node in nodes):
        weights.append(numpy_helper.from_array(TABLE, "table"))
    graph = helper.make_graph(
        nodes,
        "lengths",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
