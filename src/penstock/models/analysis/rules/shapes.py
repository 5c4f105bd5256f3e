"""Operators that lay elements out anew: reshape, transpose, join, split, repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from penstock.models.analysis.expressions import ROWS, Dim, counts, exact, floor_divided, product
from penstock.models.analysis.folding import sizes
from penstock.models.analysis.layout import common_layout, repeated, reshaped
from penstock.models.analysis.node import Mixes, Node, Result, Rule, Unknown, normal
from penstock.models.analysis.values import Value, like, only_data, rows, same

NOT_ROWS = "it leaves the axis of the rows alone"
KEEPS = "the entries of a row stay together"


def _shape(node: Node) -> Result:
    found = sizes(node)
    if found is None:
        raise Unknown("asks for a shape that is not known")
    return found


def _reshape(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    target: list[Dim] = node.numbers(1) if node.has(1) else list(node.get("shape") or [])
    if not node.get("allowzero", 0):
        for place, length in enumerate(target):
            if length == 0:
                if place >= len(dims):
                    raise Unknown("copies a length that its input lacks")
                target[place] = dims[place]
    if data.has_rows:
        return reshaped(data, target)
    lengths = list(target)
    if any(counts(length) for length in lengths):
        raise Unknown("gives the number of rows as a length to values without rows")
    if -1 in lengths:
        rest = product([length for length in lengths if length != -1])
        lengths[lengths.index(-1)] = floor_divided(product(list(dims)), rest)
    return same(lengths)


def _flatten(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    axis = node.get("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    lengths = [product(dims[:axis]), product(dims[axis:])]
    return reshaped(data, lengths) if data.has_rows else same(lengths)


def _axes(node: Node) -> list[int]:
    return node.plain(1) if node.has(1) else list(node.get("axes") or [])


def _squeeze(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    axes = {normal(axis, len(dims)) for axis in _axes(node)}
    if not axes:
        if data.has_rows:
            raise Unknown("drops the axis of the rows where there is one row only")
        if not all(isinstance(dim, int) for dim in dims):
            raise Unknown("drops axes by their length")
        axes = {axis for axis, dim in enumerate(dims) if dim == 1}
    if data.has_rows and data.axis in axes:
        raise Unknown("drops the axis of the rows")
    lengths = [dim for axis, dim in enumerate(dims) if axis not in axes]
    if not data.has_rows:
        return same(lengths)
    return _moved(data, lengths, data.axis - sum(axis < data.axis for axis in axes))


def _moved(value: Value, dims: list[Dim], axis: int) -> Value:
    return replace(like(value, dims, axis), filler=value.filler, numbers=value.numbers)


def _unsqueeze(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    wanted = _axes(node)
    axes = {normal(axis, len(dims) + len(wanted)) for axis in wanted}
    left = iter(range(len(dims)))
    places = [-1 if axis in axes else next(left) for axis in range(len(dims) + len(axes))]
    lengths: list[Dim] = [1 if place < 0 else dims[place] for place in places]
    return _moved(data, lengths, places.index(data.axis)) if data.has_rows else same(lengths)


def _transpose(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    order = list(node.get("perm") or reversed(range(len(dims))))
    if sorted(order) != list(range(len(dims))):
        raise Unknown("names axes that its input lacks")
    lengths = [dims[axis] for axis in order]
    return _moved(data, lengths, order.index(data.axis)) if data.has_rows else same(lengths)


def _concat(node: Node) -> Result:
    rank = node.rank(0)
    axis = node.axis("axis", 1 if node.opset < 4 else 0, rank)
    shapes = [node.dims(place) for place in range(len(node.inputs))]
    if any(len(shape) != rank for shape in shapes):
        raise Unknown("joins tensors of several ranks")
    total: Dim = 0
    for shape in shapes:
        total = total + shape[axis]
    dims = [total if place == axis else dim for place, dim in enumerate(shapes[0])]
    placed = [value for value in node.values if value.has_rows]
    if not placed:
        return same(dims)
    if len({value.axis for value in placed}) > 1:
        raise Mixes("joins rows of one axis with those of another")
    if len(placed) < len(node.values):
        raise Unknown("joins rows with values of a fixed number")
    layout = common_layout(placed)
    if layout.axis != axis:
        return rows(dims, layout.axis, layout.outer, layout.inner)
    return rows(dims, axis, layout.outer * len(placed), layout.inner)


def _split(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    axis = node.axis("axis", 0, len(dims))
    count = len(node.outputs)
    parts: list[Dim] | None = node.numbers(1) if node.has(1) else node.get("split")
    found = []
    for part in parts or _equal_parts(node, dims[axis], axis, count):
        lengths = [part if place == axis else dim for place, dim in enumerate(dims)]
        if not data.has_rows:
            found.append(same(lengths))
        elif data.axis != axis:
            found.append(_moved(data, lengths, data.axis))
        else:
            found.append(_block(data, lengths, axis, part))
    return found


def _equal_parts(node: Node, length: Dim, axis: int, count: int) -> list[Dim]:
    share = exact(length, count)
    if share is not None:
        return [share] * count
    if isinstance(length, int):
        rounded = -(-length // count)
        return [*[rounded] * (count - 1), length - rounded * (count - 1)]
    return [node.fresh(axis, output) for output in range(count)]


def _block(data: Value, dims: list[Dim], axis: int, part: Dim) -> Value:
    """A part of the axis of the rows that holds whole blocks of all rows."""
    blocks = exact(part, ROWS * data.inner)
    if blocks is None or counts(blocks):
        if isinstance(part, int):
            raise Mixes("cuts the batch into parts, by the place of rows")
        raise Unknown("cuts the axis of the rows")
    return rows(dims, axis, blocks, data.inner)


def _expand(node: Node) -> Result:
    data = node.value(0)
    wanted: list[Dim] = node.numbers(1)
    if not data.has_rows:
        return repeated(data, wanted)
    dims = node.dims(0)
    rank = max(len(dims), len(wanted))
    axis = data.axis + rank - len(dims)
    own: list[Dim] = [*[1] * (rank - len(dims)), *dims]
    more: list[Dim] = [*[1] * (rank - len(wanted)), *wanted]
    lengths = []
    for place, (one, other) in enumerate(zip(own, more, strict=True)):
        if place == axis:
            if other not in (1, one):
                raise Unknown("gives the axis of the rows another length")
        elif counts(other):
            raise Mixes("repeats every row for every row")
        lengths.append(other if one == 1 else one)
    return _moved(data, lengths, axis)


def _tile(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    times: list[Dim] = node.numbers(1)
    if len(times) != len(dims):
        raise Unknown("repeats another number of axes")
    lengths = [dim * time for dim, time in zip(dims, times, strict=True)]
    counted = [axis for axis, time in enumerate(times) if counts(time)]
    if data.has_rows:
        if counted:
            raise Mixes("repeats rows by their number")
        return rows(lengths, data.axis, data.outer * times[data.axis], data.inner)
    if not counted:
        return same(lengths)
    [axis] = counted if len(counted) == 1 else [-1]
    share = exact(times[axis], ROWS)
    if axis < 0 or share != 1:
        raise Unknown("repeats values by the number of rows")
    return rows(lengths, axis, 1, dims[axis], filler=dims[axis] == 1)


def _constant_of_shape(node: Node) -> Result:
    lengths: list[Dim] = node.numbers(0)
    return repeated(same([1] * len(lengths)), lengths)


def _range(node: Node) -> Result:
    parts = [only_data(value) for value in node.values]
    if len(parts) == 3 and all(parts):
        start, limit, step = (part[0] for part in parts if part)
        if start == 0 and step == 1 and limit == ROWS:
            return replace(rows([ROWS], 0), numbers=True)
        if counts(start) or counts(limit) or counts(step):
            raise Mixes("counts rows")
        if step == 1 and not isinstance(limit, float) and not isinstance(start, float):
            return same([limit - start])
    node.rows_only_in()
    return same([node.fresh(0)])


def _depth(node: Node) -> Result:
    """Depth to space and back: channels and places of a row, in the row's own part."""
    data, dims = node.value(0), node.dims(0)
    if data.has_rows and data.axis != 0:
        raise Mixes("spreads rows over places")
    size = node.get("blocksize", 1)
    area = size * size
    if node.operator == "DepthToSpace":
        lengths = [dims[0], floor_divided(dims[1], area), dims[2] * size, dims[3] * size]
    else:
        lengths = [dims[0], dims[1] * area, floor_divided(dims[2], size), floor_divided(dims[3], size)]
    return _moved(data, lengths, 0) if data.has_rows else same(lengths)


def _eye(node: Node) -> Result:
    if node.value(0).has_rows:
        raise Mixes("depends on the place of a row")
    return same(node.dims(0))


def _window(node: Node) -> Result:
    if any(value.has_rows for value in node.values):
        raise Unknown("takes its length from rows")
    return same(None)


def constant(node: Node) -> Value:
    """The value of a Constant node."""
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        found = node.get(name)
        if isinstance(found, Value):
            return found
        if found is not None:
            array = np.array(found, object)
            return same(array.shape, array, real="float" in name)
    return same(None)


RULES: Mapping[str, Rule] = {
    "Constant": Rule(constant, "always"),
    "Shape": Rule(_shape, "the number of rows is used as a shape only", shapes=(-1,)),
    "Size": Rule(_shape, "the number of rows is used as a shape only", shapes=(-1,)),
    "Reshape": Rule(_reshape, KEEPS, shapes=(1,)),
    "Flatten": Rule(_flatten, KEEPS),
    "Squeeze": Rule(_squeeze, "it names its axes, and not that of the rows"),
    "Unsqueeze": Rule(_unsqueeze, "always"),
    "Transpose": Rule(_transpose, "always"),
    "Concat": Rule(_concat, "all tensors that it joins have rows along the same axis"),
    "Split": Rule(_split, NOT_ROWS, shapes=(1,)),
    "Expand": Rule(_expand, NOT_ROWS + ", or it repeats the same values for each row", shapes=(1,)),
    "Tile": Rule(_tile, "it does not repeat rows by their number", shapes=(1,)),
    "ConstantOfShape": Rule(_constant_of_shape, "the number of rows is one axis at most", shapes=(0,)),
    "Range": Rule(_range, "it does not count rows", shapes=(0, 1, 2)),
    "DepthToSpace": Rule(_depth, "the rows are the first axis"),
    "SpaceToDepth": Rule(_depth, "the rows are the first axis"),
    **{
        name: Rule(_window, "always")
        for name in ("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix")
    },
    "EyeLike": Rule(_eye, "never: ones on the diagonal of the batch"),
}
