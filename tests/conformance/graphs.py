"""Makes small models of two or three operators, to be written in one line each.

All take `x` [batch, 4] and give `y` [batch, 4], FP32 where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.conformance.variants import BATCH

OPSET, IR_VERSION, WIDTH = 20, 9, 4
END = np.iinfo(np.int64).max
Nodes = Sequence[onnx.NodeProto]


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by blanks, and "-" is none."""
    names = [["" if name == "-" else name for name in text.split()] for text in (inputs, outputs)]
    return helper.make_node(operator, *names, **attributes)


def model(
    nodes: Nodes, element: int = TensorProto.FLOAT, extra: str = "", **constants: Any
) -> onnx.ModelProto:
    """A model from `x`, and `extra` if named, to `y`."""
    names = ["x", *extra.split()]
    inputs = [helper.make_tensor_value_info(name, element, [BATCH, WIDTH]) for name in names]
    output = helper.make_tensor_value_info("y", element, [BATCH, WIDTH])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "mixer", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def rows(made: onnx.ModelProto, count: int) -> list[dict[str, np.ndarray]]:
    """Rows of moderate values for one of the models."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(count):
        row = {}
        for info in made.graph.input:
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            values = (
                random.integers(0, 2, (1, WIDTH)) if dtype.kind in "bi" else random.normal(size=(1, WIDTH))
            )
            row[info.name] = values.astype(dtype)
        found.append(row)
    return found


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


FIRST, ZERO, ONE, ALL = ints(0), ints(0), ints(1), ints(0, 1)


def reduced(operator: str, then: str, **attributes: Any) -> onnx.ModelProto:
    """y = x `then` what `operator` makes of each column."""
    return model([node(operator, "x axis", "m"), node(then, "x m", **attributes)], axis=FIRST)


def along(operator: str, **attributes: Any) -> onnx.ModelProto:
    """`operator` along the rows."""
    return model([node(operator, "x", axis=0, **attributes)])


def plus_mean(factor: float, element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y = x + factor * the mean of each column."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    steps = [node("ReduceMean", "x axis", "m"), node("Mul", "m factor", "part"), node("Add", "x part")]
    return model(steps, element, axis=FIRST, factor=np.array(factor, dtype))


def cumulated(**attributes: Any) -> onnx.ModelProto:
    return model([node("CumSum", "x axis", **attributes)], axis=np.int64(0))


def moved(slices: Sequence[tuple[int, int]]) -> onnx.ModelProto:
    """The rows in another order: each slice of them, one after another."""
    steps, constants = [], {}
    for place, (start, end) in enumerate(slices):
        steps.append(node("Slice", f"x start{place} end{place} axis", f"part{place}"))
        constants |= {f"start{place}": ints(start), f"end{place}": ints(end)}
    parts = " ".join(f"part{place}" for place in range(len(slices)))
    return model([*steps, node("Concat", parts, axis=0)], axis=FIRST, **constants)


def less_row(place: int) -> onnx.ModelProto:
    """y = x less the row at `place`."""
    return model([node("Gather", "x place", "row", axis=0), node("Sub", "x row")], place=ints(place))


def as_sequence(operator: str, gates: int, directions: int) -> onnx.ModelProto:
    """A recurrent network that takes the rows for the steps of one sequence."""
    random = np.random.default_rng(0)
    hidden = WIDTH // directions
    weights = random.standard_normal((directions, gates * hidden, WIDTH)).astype(np.float32)
    state = random.standard_normal((directions, gates * hidden, hidden)).astype(np.float32)
    direction = "bidirectional" if directions == 2 else "forward"
    steps = [
        node("Reshape", "x steps", "sequence"),
        node(operator, "sequence weights state", "all", hidden_size=hidden, direction=direction),
        node("Reshape", "all flat"),
    ]
    steps_shape, flat = ints(-1, 1, WIDTH), ints(-1, WIDTH)
    return model(steps, weights=weights, state=state, steps=steps_shape, flat=flat)


def across(operator: str, more: str = "", **attributes: Any) -> onnx.ModelProto:
    """An operator on images or signals, for which the rows are the places: [1, 4, batch]."""
    steps = [
        node("Transpose", "x", "turned", perm=[1, 0]),
        node("Unsqueeze", "turned axis", "signal"),
        node(operator, f"signal {more}", "made", **attributes),
        node("Squeeze", "made axis", "flat"),
        node("Transpose", "flat", perm=[1, 0]),
    ]
    kernel = np.random.default_rng(0).standard_normal((WIDTH, WIDTH, 3)).astype(np.float32)
    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    return model(steps, axis=FIRST, kernel=kernel, ones=ones, zeros=zeros)


def counted(nodes: Nodes, **constants: Any) -> onnx.ModelProto:
    """With `count`, the number of rows as a whole number, and `rows`, the same in FP32."""
    start = [
        node("Shape", "x", "shape", start=0, end=1),
        node("Squeeze", "shape", "count"),
        node("Cast", "count", "rows", to=TensorProto.FLOAT),
    ]
    return model([*start, *nodes], **constants)


def numbered(nodes: Nodes, **constants: Any) -> onnx.ModelProto:
    """With `number`, the place of each row, as whole numbers."""
    return counted(
        [node("Range", "zero count one", "number"), *nodes], zero=np.int64(0), one=np.int64(1), **constants
    )


def chosen(condition: Nodes, **constants: Any) -> onnx.ModelProto:
    """y = x less the mean of each column where `condition` is true, else x."""
    steps = [node("ReduceMean", "x axis", "m"), node("Sub", "x m", "centred"), *condition]
    return model([*steps, node("Where", "condition centred x")], axis=FIRST, **constants)
