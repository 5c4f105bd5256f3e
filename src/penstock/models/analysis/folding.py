"""Computes small known tensors: shapes, axes, sizes. Their elements are numbers or formulas.

Every function takes a node and its inputs' elements and gives the elements of its output. What raises an
error here is followed by the operator's ordinary rule instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from penstock.models.analysis.arithmetic import (
    FLOAT_TYPES,
    WIDE_TYPES,
    Fold,
    NotKnown,
    arithmetic,
    cast,
    compared,
    divided,
    each,
    equal,
    is_exact,
    reals,
    rounded,
    truth,
    variadic,
)
from penstock.models.analysis.expressions import Expr, product
from penstock.models.analysis.node import Node
from penstock.models.analysis.values import MOST_ELEMENTS, Data, Kind, Value, known


def folded(node: Node) -> list[Value] | None:
    """The outputs of a node whose inputs are all known; None if they are not, or cannot be computed."""
    found = FOLDS.get(node.operator)
    if found is None or not node.inputs or not _computes_alike(node):
        return None
    arrays: list[Data | None] = []
    for value in node.inputs:
        if value is not None and value.data is None:
            return None
        arrays.append(None if value is None else value.data)
    try:
        result = found(node, *arrays)
    except (NotKnown, ArithmeticError, ValueError, TypeError, IndexError, AttributeError, MemoryError):
        return None
    results = result if isinstance(result, list) else [result]
    elements = [
        each for array in (*arrays, *results) if array is not None for each in _objects(array).ravel()
    ]
    if node.operator not in MOVES and not all(map(is_exact, elements)):
        return None
    outputs = [known(_objects(each), real=_is_real(node)) for each in results]
    return None if any(each is None for each in outputs) else [each for each in outputs if each is not None]


def _computes_alike(node: Node) -> bool:
    """Whether ONNX Runtime computes what is computed here, as far as `is_exact` numbers go."""
    if node.operator == "Cast":
        return node.get("to") in WIDE_TYPES  # others wrap around, or round
    return node.operator != "Mod" or not node.get("fmod", 0)


def sizes(node: Node) -> Value | None:
    """What Shape and Size give: of any tensor whose rank is known, mixed ones excepted."""
    value = node.value(0)
    if value.dims is None or value.kind in (Kind.MIXED, Kind.UNKNOWN):
        return None
    if node.operator == "Size":
        return known(_objects(product(value.dims)))
    start, end = node.get("start", 0), node.get("end", len(value.dims))
    return known(_objects(list(value.dims[slice(start, end)])))


def _objects(values: Any) -> Data:
    if isinstance(values, np.ndarray):
        return values.astype(object)
    if isinstance(values, list):
        array = np.empty(len(values), object)
        array[:] = values
        return array
    array = np.empty((), object)
    array[()] = values
    return array


def _is_real(node: Node) -> bool:
    if node.operator == "Cast":
        return node.get("to") in FLOAT_TYPES
    if node.operator in (
        "Shape",
        "Size",
        "Equal",
        "Not",
        "And",
        "Or",
        "Less",
        "Greater",
        "LessOrEqual",
        "GreaterOrEqual",
    ):
        return False
    if node.operator == "Where":
        return node.value(1).real
    if node.operator == "ConstantOfShape":
        filled = node.get("value")
        return filled is None or filled.real
    return bool(node.values and node.values[0].real)


def _int_list(array: Data | None) -> list[int]:
    if array is None:
        raise NotKnown
    found = array.ravel().tolist()
    if any(isinstance(each, Expr) for each in found):
        raise NotKnown
    return [int(each) for each in found]


def _axes(node: Node, array: Data | None) -> list[int]:
    return _int_list(array) if array is not None else list(node.get("axes", []))


def _unsqueeze(node: Node, data: Data, axes: Data | None = None) -> Data:
    found = _axes(node, axes)
    return np.expand_dims(data, tuple(found))


def _squeeze(node: Node, data: Data, axes: Data | None = None) -> Data:
    found = _axes(node, axes)
    return np.squeeze(data, tuple(found)) if found else np.squeeze(data)


def _gather(node: Node, data: Data, indices: Data) -> Any:
    return np.take(
        data, np.asarray(_int_list(indices)).reshape(indices.shape).astype(int), axis=node.get("axis", 0)
    )


def _slice(node: Node, data: Data, *parts: Data | None) -> Data:
    if parts:
        starts, ends = _int_list(parts[0]), _int_list(parts[1])
        axes = _int_list(parts[2]) if len(parts) > 2 and parts[2] is not None else list(range(len(starts)))
        steps = _int_list(parts[3]) if len(parts) > 3 and parts[3] is not None else [1] * len(starts)
    else:
        starts, ends = list(node.get("starts")), list(node.get("ends"))
        axes, steps = list(node.get("axes", range(len(starts)))), [1] * len(starts)
    where: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -data.shape[axis] else end
        where[axis] = slice(start, stop, step)
    return data[tuple(where)]


def _split(node: Node, data: Data, lengths: Data | None = None) -> list[Data]:
    axis = node.get("axis", 0)
    parts = _int_list(lengths) if lengths is not None else node.get("split")
    if parts is None:
        count = node.get("num_outputs", len(node.outputs))
        size = -(-data.shape[axis] // count)
        return [data.take(range(i * size, min((i + 1) * size, data.shape[axis])), axis) for i in range(count)]
    ends = np.cumsum(parts)
    return list(np.split(data, ends[:-1], axis))


def _reduced(function: Callable[[Any, Any], Any]) -> Fold:
    def fold(node: Node, data: Data, axes: Data | None = None) -> Any:
        found = tuple(_axes(node, axes))
        if not found and node.get("noop_with_empty_axes", 0):
            return data
        return _objects(function.reduce(data, axis=found or None, keepdims=bool(node.get("keepdims", 1))))  # type: ignore[attr-defined]

    return fold


def _constant_of_shape(node: Node, shape: Data) -> Data:
    lengths = _int_list(shape)
    if math.prod(lengths) > MOST_ELEMENTS:
        raise NotKnown
    filled = node.get("value")
    data = 0.0 if filled is None else filled.data.ravel()[0]
    array = np.empty(lengths, object)
    array[...] = data
    return array


def _expand(_: Node, data: Data, shape: Data) -> Data:
    found = np.broadcast_shapes(data.shape, tuple(_int_list(shape)))
    if math.prod(found) > MOST_ELEMENTS:
        raise NotKnown
    return np.broadcast_to(data, found)


def _tile(_: Node, data: Data, repeats: Data) -> Data:
    found = _int_list(repeats)
    if data.size * math.prod(found) > MOST_ELEMENTS:
        raise NotKnown
    return np.tile(data, found)


def _range(_: Node, start: Data, limit: Data, delta: Data) -> Any:
    one, two, three = start.item(), limit.item(), delta.item()
    if any(isinstance(each, Expr) for each in (one, two, three)):
        raise NotKnown
    count = max(0, math.ceil((two - one) / three))
    if count > MOST_ELEMENTS:
        raise NotKnown
    return _objects([one + place * three for place in range(count)])


def _reshape(node: Node, data: Data, shape: Data) -> Data:
    target = _int_list(shape)
    return data.reshape(
        [data.shape[i] if d == 0 and not node.get("allowzero", 0) else d for i, d in enumerate(target)]
    )


def _scattered(node: Node, data: Data, indices: Data, updates: Data) -> Data:
    if node.get("reduction", "none") not in ("none", b"none") or data.ndim != 1:
        raise NotKnown
    found = data.copy()
    for place, value in zip(_int_list(indices), updates.ravel().tolist(), strict=True):
        found[place] = value
    return found


def _concat(node: Node, *arrays: Data) -> Data:
    return np.concatenate(arrays, node.get("axis", 1))


MOVES = frozenset(
    [
        "Identity",
        "Where",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "ScatterElements",
        "ScatterND",
        "ConstantOfShape",
        "Expand",
        "Tile",
    ]
)
"""The operators that give elements as they are."""

FOLDS: Mapping[str, Fold] = {
    "Identity": lambda _, data: data,
    "Add": each(arithmetic(operator.add, "+")),
    "Sub": each(arithmetic(operator.sub, "-")),
    "Mul": each(arithmetic(operator.mul, "*")),
    "Div": each(divided),
    "Mod": each(reals(operator.mod, "mod")),
    "Pow": each(reals(lambda one, two: one**two if abs(one) < 1e6 and abs(two) < 64 else 1 / 0, "pow")),
    "Neg": each(lambda _, value: -value),
    "Abs": each(reals(abs, "abs")),
    "Sqrt": each(reals(math.sqrt, "sqrt")),
    "Floor": each(rounded(math.floor, "floor")),
    "Ceil": each(rounded(math.ceil, "ceil")),
    "Round": each(rounded(round, "round")),
    "Min": each(variadic(min, "min")),
    "Max": each(variadic(max, "max")),
    "Equal": each(equal),
    "Less": each(compared(operator.lt)),
    "Greater": each(compared(operator.gt)),
    "LessOrEqual": each(compared(operator.le)),
    "GreaterOrEqual": each(compared(operator.ge)),
    "Not": each(lambda _, value: not truth(value)),
    "And": each(lambda _, one, two: truth(one) and truth(two)),
    "Or": each(lambda _, one, two: truth(one) or truth(two)),
    "Where": each(lambda _, condition, one, two: one if truth(condition) else two),
    "Cast": each(cast),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Flatten": lambda node, data: data.reshape(math.prod(data.shape[: node.get("axis", 1)]), -1),
    "Transpose": lambda node, data: data.transpose(node.get("perm")),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "ScatterElements": _scattered,
    "ScatterND": _scattered,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "ReduceProd": _reduced(np.multiply),
    "ReduceSum": _reduced(np.add),
    "ReduceMax": _reduced(np.maximum),
    "ReduceMin": _reduced(np.minimum),
}
"""The operators on small known tensors, by name."""
