"""Operators that pick elements, by place or by value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from penstock.models.analysis.expressions import Dim, counts, opaque
from penstock.models.analysis.layout import OTHER_AXIS
from penstock.models.analysis.node import Mixes, Node, Result, Rule, Unknown, normal
from penstock.models.analysis.values import like, only_data, same

BY_PLACE = "takes rows by their place in the batch"
FAR = 1_000_000_000
"""Ends of slices from here on mean the end of the axis: no tensor has more rows."""
Part: TypeAlias = tuple[Dim | None, Dim | None, Dim | None]
"""Start, end and step of a slice; None for what is not known."""
OFF_ROWS = "its axis is not that of the rows"


def _gather(node: Node) -> Result:
    data, indices = node.value(0), node.value(1)
    dims, places = node.dims(0), node.dims(1)
    axis = node.axis("axis", 0, len(dims))
    lengths = [*dims[:axis], *places, *dims[axis + 1 :]]
    if data.has_rows and indices.has_rows:
        if data.axis == axis:
            raise Mixes("takes rows by indices from rows")
        raise Mixes(OTHER_AXIS)
    if data.has_rows:
        if data.axis == axis:
            raise Mixes(BY_PLACE)
        return like(data, lengths, data.axis if data.axis < axis else data.axis + len(places) - 1)
    if indices.has_rows:
        return like(indices, lengths, axis + indices.axis)
    return same(lengths)


def _gather_elements(node: Node) -> Result:
    data, indices = node.value(0), node.value(1)
    dims, places = node.dims(0), node.dims(1)
    axis = node.axis("axis", 0, len(dims))
    if data.has_rows and data.axis == axis:
        raise Mixes(BY_PLACE)
    if data.has_rows and indices.has_rows:
        if data.axis != indices.axis:
            raise Mixes(OTHER_AXIS)
        if data.layout != indices.layout:
            raise Unknown("takes from other numbers of entries a row")
        return like(data, places, data.axis)
    if indices.has_rows:
        if indices.axis != axis:
            raise Unknown("takes values by the place of a row")
        return like(indices, places, axis)
    if data.has_rows:
        raise Unknown("takes from a fixed number of rows")
    return same(places)


def _gather_nd(node: Node) -> Result:
    data, indices = node.value(0), node.value(1)
    dims, places = node.dims(0), node.dims(1)
    batch = node.get("batch_dims", 0)
    last = places[-1]
    if not isinstance(last, int):
        raise Unknown("takes places of a rank that is not known")
    lengths = [*places[:-1], *dims[batch + last :]]
    if indices.has_rows and indices.axis == len(places) - 1:
        raise Unknown("takes places that are laid out along the rows")
    if data.has_rows and indices.has_rows:
        if data.axis == indices.axis and data.axis < batch and data.layout == indices.layout:
            return like(data, lengths, data.axis)
        raise Mixes("takes rows by indices from rows")
    if indices.has_rows:
        if indices.axis < batch:
            raise Unknown("takes from a fixed number of rows")
        return like(indices, lengths, indices.axis)
    if data.has_rows:
        if data.axis < batch:
            raise Unknown("takes a fixed number of rows")
        if data.axis < batch + last:
            raise Mixes(BY_PLACE)
        return like(data, lengths, data.axis - batch - last + len(places) - 1)
    return same(lengths)


def _scatter_elements(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    axis = node.axis("axis", 0, len(dims))
    placed = [value for value in node.values[:3] if value.has_rows]
    if placed and len(placed) < 3:
        raise Unknown("puts values by the place of a row")
    for value in placed:
        if value.axis == axis:
            raise Mixes("puts values into rows by their place")
        if value.axis != data.axis:
            raise Mixes(OTHER_AXIS)
        if value.layout != data.layout:
            raise Unknown("puts into other numbers of entries a row")
    return like(data, dims, data.axis) if data.has_rows else same(dims)


def _slice_parts(node: Node, rank: int) -> dict[int, Part]:
    if node.opset < 10 and not node.has(1):
        starts, ends = list(node.get("starts") or []), list(node.get("ends") or [])
        axes = list(node.get("axes") or range(len(starts)))
        steps = [1] * len(starts)
        return {normal(a, rank): part for a, *part in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]
    count = None
    lists: list[list[Any] | None] = []
    for place in range(1, 5):
        found = only_data(node.value(place)) if node.has(place) else None
        if node.has(place):
            value = node.value(place)
            if value.has_rows:
                raise Unknown("cuts by values of rows")
            if value.dims is not None and len(value.dims) == 1 and isinstance(value.dims[0], int):
                count = value.dims[0]
        lists.append(found)
    if count is None:
        raise Unknown("cuts axes that are not known")
    if lists[2] is None and node.has(3):
        raise Unknown("cuts axes that are not known")
    nothing: list[Any] = [None] * count
    axes = list(range(count)) if lists[2] is None else lists[2]
    steps = lists[3] or (nothing if node.has(4) else [1] * count)
    parts = zip(axes, lists[0] or nothing, lists[1] or nothing, steps, strict=True)
    return {normal(int(axis), rank): (start, end, step) for axis, start, end, step in parts}


def _slice(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    parts = _slice_parts(node, len(dims))
    lengths = list(dims)
    for axis, part in parts.items():
        start, end, step = part
        if data.has_rows and axis == data.axis:
            if not _is_whole(start, end, step, dims[axis]):
                if any(each is None for each in (start, end, step)):
                    raise Unknown("cuts the axis of the rows")
                raise Mixes(BY_PLACE)
            continue
        if counts(start) or counts(end):
            raise Mixes("cuts by the number of rows")
        lengths[axis] = _sliced(node, axis, dims[axis], part)
    if not data.has_rows:
        return same(lengths)
    found = like(data, lengths, data.axis)
    return replace(found, filler=data.filler, numbers=data.numbers)


def _is_whole(start: Dim | None, end: Dim | None, step: Dim | None, dim: Dim) -> bool:
    if start != 0 or step != 1:
        return False
    return end == dim or (isinstance(end, int) and end >= FAR)


def _sliced(node: Node, axis: int, dim: Dim, part: Part) -> Dim:
    """The length of a part of an axis, where it can be computed."""
    start, end, step = part
    if start is None or end is None or step is None:
        return node.fresh(axis)
    if all(isinstance(each, int) for each in (dim, start, end, step)) and step != 0:
        return len(range(dim)[slice(start, end if not (step < 0 and end < -dim) else None, step)])  # type: ignore[operator,arg-type]
    if start == 0 and step == 1 and ((isinstance(end, int) and end >= FAR) or end == dim):
        return dim
    return opaque("slice", dim, start, end, step, natural=True)


def _compress(node: Node) -> Result:
    data, chosen = node.value(0), node.value(1)
    dims = node.dims(0)
    if chosen.has_rows:
        raise Mixes("keeps as many entries as its condition has, so that a length depends on values")
    if node.get("axis") is None:
        if data.has_rows:
            raise Mixes(BY_PLACE)
        return same([node.fresh(0)])
    axis = node.axis("axis", 0, len(dims))
    if data.has_rows and data.axis == axis:
        raise Mixes(BY_PLACE)
    lengths = [node.fresh(axis) if place == axis else dim for place, dim in enumerate(dims)]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _by_values(how: str) -> Callable[[Node], Result]:
    def follow(node: Node) -> Result:
        if any(value.has_rows for value in node.values):
            raise Mixes(how)
        return [same(None)] * max(1, len(node.outputs))

    return follow


def _one_hot(node: Node) -> Result:
    indices, dims = node.value(0), node.dims(0)
    if node.value(1).has_rows or node.value(2).has_rows:
        raise Unknown("takes its depth or values from rows")
    axis = normal(node.get("axis", -1), len(dims) + 1)
    depth = only_data(node.value(1))
    length: Dim = int(depth[0]) if depth and isinstance(depth[0], int | float) else node.fresh(axis)
    lengths = [*dims[:axis], length, *dims[axis:]]
    if not indices.has_rows:
        return same(lengths)
    return like(indices, lengths, indices.axis + (indices.axis >= axis))


def _reverse_sequence(node: Node) -> Result:
    data, lengths, dims = node.value(0), node.value(1), node.dims(0)
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    if data.has_rows and data.axis == time:
        raise Mixes("reverses rows")
    if lengths.has_rows and (not data.has_rows or data.axis != batch or data.layout != lengths.layout):
        raise Unknown("takes lengths of other rows")
    if data.has_rows and data.axis == batch and not lengths.has_rows:
        raise Unknown("takes a fixed number of lengths")
    return like(data, dims, data.axis) if data.has_rows else same(dims)


def _scatter_nd(node: Node) -> Result:
    data, indices, updates = (node.value(place) for place in range(3))
    dims, places = node.dims(0), node.dims(1)
    if indices.has_rows:
        raise Unknown("puts values at places that come from rows")
    if not data.has_rows and not updates.has_rows:
        return same(dims)
    last = places[-1]
    if not isinstance(last, int) or not data.has_rows:
        raise Unknown("puts values at places that are not followed")
    if data.axis < last:
        raise Unknown("puts values into rows by their place")
    # Whole slices along the rows are put at the same places of every row.
    if not updates.has_rows:
        raise Unknown("puts a fixed number of values into rows")
    if updates.axis != len(places) - 1 + data.axis - last or updates.layout != data.layout:
        raise Unknown("puts values of other rows")
    return like(data, dims, data.axis)


def _tensor_scatter(node: Node) -> Result:
    node.rows_only_in(0, 1, 2)
    if any(value.has_rows and value.axis != 0 for value in node.values):
        raise Unknown("has rows on another axis than the first")
    if node.value(0).has_rows != node.value(1).has_rows:
        raise Unknown("puts a fixed number of values into rows")
    return replace(node.value(0), data=None, filler=False)


def _pad(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    rank = len(dims)
    if node.has(2) and node.value(2).has_rows:
        raise Unknown("fills with a value from rows")
    found: list[Dim] | None = only_data(node.value(1)) if node.has(1) else list(node.get("pads") or [])
    axes = [normal(axis, rank) for axis in node.plain(3)] if node.has(3) else list(range(rank))
    if found is None:
        raise Unknown("adds lengths that are not known")
    before, after = found[: len(axes)], found[len(axes) :]
    lengths = list(dims)
    for axis, one, two in zip(axes, before, after, strict=True):
        if data.has_rows and axis == data.axis:
            if one != 0 or two != 0:
                raise Mixes("adds rows")
            continue
        if counts(one) or counts(two):
            raise Mixes("adds lengths by the number of rows")
        lengths[axis] = lengths[axis] + one + two
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _center_crop_pad(node: Node) -> Result:
    """Cuts or fills axes to given lengths."""
    data, dims = node.value(0), node.dims(0)
    axes = [normal(axis, len(dims)) for axis in node.get("axes") or range(len(dims))]
    wanted: list[Dim] = node.numbers(1)
    lengths = list(dims)
    for axis, length in zip(axes, wanted, strict=True):
        if data.has_rows and axis == data.axis and length != dims[axis]:
            raise Unknown("gives the axis of the rows another length")
        lengths[axis] = length
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


VARYING = "never: a length that depends on values"

RULES: Mapping[str, Rule] = {
    "Gather": Rule(_gather, OFF_ROWS + "; or rows are the indices, and the table is the same for all"),
    "GatherElements": Rule(_gather_elements, OFF_ROWS),
    "GatherND": Rule(_gather_nd, "the rows are a batch axis of both inputs, or of one and not indexed"),
    "Scatter": Rule(_scatter_elements, OFF_ROWS + ", and all inputs have rows"),
    "ScatterElements": Rule(_scatter_elements, OFF_ROWS + ", and all inputs have rows"),
    "ScatterND": Rule(_scatter_nd, "it puts whole slices along the rows at fixed places"),
    "TensorScatter": Rule(
        _tensor_scatter, "the rows are the first axis of the cache and of what is put into it"
    ),
    "Slice": Rule(_slice, OFF_ROWS + ", or it takes all of them", shapes=(1, 2)),
    "Pad": Rule(_pad, "it adds nothing along the rows", shapes=(1,)),
    "CenterCropPad": Rule(_center_crop_pad, "it leaves the axis of the rows alone", shapes=(1,)),
    "OneHot": Rule(_one_hot, "its depth and its values do not come from rows"),
    "ReverseSequence": Rule(_reverse_sequence, "the rows are its batch axis"),
    "Compress": Rule(_compress, "its condition does not come from rows, and its axis is not theirs"),
    "NonZero": Rule(_by_values("finds places, so that a length depends on values"), VARYING),
    "Unique": Rule(_by_values("drops equal values, so that a length depends on values"), VARYING),
    "NonMaxSuppression": Rule(
        _by_values("keeps boxes by their scores, so that a length depends on values"), VARYING
    ),
}
