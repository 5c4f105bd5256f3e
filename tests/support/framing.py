"""ONNX models whose outputs have another length than their inputs; see `support.zoo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.zoo import IR_VERSION, OPSET

WINDOW, HOP = 40, 16
CHANNELS = 3


def frames(window: int = WINDOW, hop: int = HOP, axis: str | None = "T") -> onnx.ModelProto:
    """`x` [N, L] to `y` [N, 3, T]: each window of the sound, of which there are (L - window) // hop + 1."""
    nodes = _framed("y", hop)
    return _model(nodes, [("x", ("N", "L"))], [("y", ("N", CHANNELS, axis))], _weights(window))


def frames_with_lengths() -> onnx.ModelProto:
    """As `frames`, with `lens` [N]; `y_lens` [N] is how many frames of each row count, the others are 0."""
    nodes = [
        *_framed("all", HOP),
        helper.make_node("Sub", ["lens", "window"], ["rest"]),
        helper.make_node("Div", ["rest", "hop"], ["steps"]),
        helper.make_node("Add", ["steps", "one"], ["y_lens"]),
        helper.make_node("Shape", ["all"], ["size"], start=2, end=3),
        helper.make_node("Squeeze", ["size"], ["limit"]),
        helper.make_node("Range", ["zero", "limit", "one"], ["places"]),
        helper.make_node("Unsqueeze", ["y_lens", "last"], ["until"]),
        helper.make_node("Less", ["places", "until"], ["within"]),
        helper.make_node("Unsqueeze", ["within", "last"], ["within_all"]),
        helper.make_node("Where", ["within_all", "all", "nothing"], ["y"]),
    ]
    constants = {
        **_weights(WINDOW),
        "window": np.int64(WINDOW),
        "hop": np.int64(HOP),
        "one": np.int64(1),
        "zero": np.int64(0),
        "last": np.array([1]),
        "nothing": np.float32(0),
    }
    outputs = [("y", ("N", CHANNELS, "T")), ("y_lens", ("N",), TensorProto.INT64)]
    return _model(nodes, [("x", ("N", "L")), ("lens", ("N",), TensorProto.INT64)], outputs, constants)


def frames_that_are_counted() -> onnx.ModelProto:
    """As `frames`, with `y_lens` [N], the frames of each row, those of padding as well."""
    nodes = [
        *_framed("y", HOP),
        helper.make_node("Shape", ["y"], ["size"], start=2, end=3),
        helper.make_node("Shape", ["y"], ["rows"], start=0, end=1),
        helper.make_node("Expand", ["size", "rows"], ["y_lens"]),
    ]
    outputs = [("y", ("N", CHANNELS, "T")), ("y_lens", ("N",), TensorProto.INT64)]
    return _model(nodes, [("x", ("N", "L"))], outputs, _weights(WINDOW))


def narrowed(by: int = 8) -> onnx.ModelProto:
    """`x` [N, 1, 8, W], an image, to `y` [N, 4, W / 8], as a reader of text lines sees it."""
    kernel = np.random.default_rng(1).standard_normal((4, 1, 8, by)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["conv"], strides=[8, by]),
        helper.make_node("Squeeze", ["conv", "two"], ["y"]),
    ]
    constants = {"kernel": kernel, "two": np.array([2])}
    return _model(nodes, [("x", ("N", 1, 8, "W"))], [("y", ("N", 4, "V"))], constants)


def doubled() -> onnx.ModelProto:
    """`x` [N, 2, L] to `y` [N, 2, 2 L + 2]: a transposed convolution, as in vocoders."""
    kernel = np.random.default_rng(2).standard_normal((2, 2, 4)).astype(np.float32)
    nodes = [helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], strides=[2])]
    return _model(nodes, [("x", ("N", 2, "L"))], [("y", ("N", 2, "M"))], {"kernel": kernel})


def blurred() -> onnx.ModelProto:
    """`x` [N, 1, L] to `y` [N, 1, L / 2] by two convolutions: padding changes the answers."""
    kernel = np.ones((1, 1, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["once"], pads=[1, 1]),
        helper.make_node("Conv", ["once", "kernel", "bias"], ["y"], pads=[1, 1], strides=[2]),
    ]
    constants = {"kernel": kernel, "bias": np.ones(1, np.float32)}
    return _model(nodes, [("x", ("N", 1, "L"))], [("y", ("N", 1, "M"))], constants)


def one_and_a_half() -> onnx.ModelProto:
    """`x` [N, L] to `y` [N, 1.5 L], itself and every other element: no rule explains the length."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "end", "one", "two"], ["half"]),
        helper.make_node("Concat", ["x", "half"], ["y"], axis=1),
    ]
    constants = {each: np.array([n]) for each, n in (("zero", 0), ("end", 99999), ("one", 1), ("two", 2))}
    return _model(nodes, [("x", ("N", "L"))], [("y", ("N", "M"))], constants)


def _framed(output: str, hop: int) -> Sequence[onnx.NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["x", "channel"], ["sound"]),
        helper.make_node("Conv", ["sound", "kernel"], [output], strides=[hop]),
    ]


def _weights(window: int) -> dict[str, Any]:
    kernel = np.random.default_rng(0).standard_normal((CHANNELS, 1, window)).astype(np.float32)
    return {"channel": np.array([1]), "kernel": kernel}


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[Any, ...]],
    outputs: Sequence[tuple[Any, ...]],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    """A model; tensors are FP32 where nothing else is said."""
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    taken, given = (
        [
            helper.make_tensor_value_info(name, *(kind or (TensorProto.FLOAT,)), shape)
            for name, shape, *kind in values
        ]
        for values in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "framing", taken, given, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
