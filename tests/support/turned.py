"""Models whose rows do not lie along the first axis of every tensor, or whose graphs do not say where."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, parser

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def graph(text: str) -> onnx.ModelProto:
    """A model from ONNX's text form: `(float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }`."""
    return parser.parse_model(f"{HEAD} g {text}")


def relu(taken: str, given: str) -> onnx.ModelProto:
    """x to y, with these shapes, such as "unk__1, 3"; "?" is an axis without a name."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [_length(size) for size in shape.split(", ")])
        for name, shape in (("x", taken), ("y", given))
    ]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _length(size: str) -> int | str | None:
    return None if size == "?" else int(size) if size.isdigit() else size


def swapped() -> onnx.ModelProto:
    """x [batch, T, 4] to z [T, batch, 4]."""
    return graph("(float[batch, T, 4] x) => (float[T, batch, 4] z) { z = Transpose<perm = [1, 0, 2]>(x) }")


def time_first(rows: str = "batch", out: str = "5, batch, 4") -> onnx.ModelProto:
    """x [rows, 5, 4] to z, as [5, rows, 4], and total [rows, 4], the sum over the 5."""
    return graph(
        f"(float[{rows}, 5, 4] x) => (float[{out}] z, float[{rows}, 4] total) {{"
        "  z = Transpose<perm = [1, 0, 2]>(x)"
        "  axis = Constant<value_ints = [1]>()"
        "  total = ReduceSum<keepdims = 0>(x, axis)"
        "}"
    )


def running_sums() -> onnx.ModelProto:
    """x [seq, batch, 4] and scale [batch] to y [seq, batch, 4]: sums along seq, then scaled."""
    return graph(
        "(float[seq, batch, 4] x, float[batch] scale) => (float[seq, batch, 4] y) {"
        "  axis = Constant<value_int = 0>()"
        "  sums = CumSum(x, axis)"
        "  last = Constant<value_ints = [1]>()"
        "  column = Unsqueeze(scale, last)"
        "  y = Mul(sums, column)"
        "}"
    )


def plain_sums() -> onnx.ModelProto:
    """x [seq, batch, 4] to y [seq, batch, 4], the sums along seq."""
    return graph(
        "(float[seq, batch, 4] x) => (float[seq, batch, 4] y) {"
        "  axis = Constant<value_int = 0>()"
        "  y = CumSum(x, axis)"
        "}"
    )


def expected_sums(x: Any, scale: Any) -> Any:
    """What `running_sums` answers."""
    return np.cumsum(x, axis=0, dtype=np.float32) * np.asarray(scale)[:, np.newaxis]


def recurrent() -> onnx.ModelProto:
    """As PyTorch writes an LSTM: x [seq, batch, 2], h [1, batch, 2] to y [seq, batch, 2], hn [1, batch, 2].

    y is h and the sum of x so far, hn the last of y.
    """
    return graph(
        "(float[seq, batch, 2] x, float[1, batch, 2] h) => (float[seq, batch, 2] y, float[1, batch, 2] hn) {"
        "  axis = Constant<value_int = 0>()"
        "  sums = CumSum(x, axis)"
        "  y = Add(sums, h)"
        "  start = Constant<value_ints = [-1]>()"
        "  end = Constant<value_ints = [1000000]>()"
        "  first = Constant<value_ints = [0]>()"
        "  hn = Slice(y, start, end, first)"
        "}"
    )


def label_of_one() -> onnx.ModelProto:
    """x [?, 3] to label, declared [1] but one for each row, and y [?, 3], as onnxmltools writes LightGBM."""
    made = graph(
        "(float[N, 3] x) => (int64[1] label, float[M, 3] y) {"
        "  label = ArgMax<axis = 1, keepdims = 0>(x)"
        "  y = Relu(x)"
        "}"
    )
    for value in (made.graph.input[0], made.graph.output[1]):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    return made
