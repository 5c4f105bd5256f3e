"""Operators that combine the elements along axes: sums, extremes, softmax, norms, sorts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from penstock.models.analysis.expressions import Dim
from penstock.models.analysis.layout import broadcast
from penstock.models.analysis.node import Mixes, Node, Result, Rule, Unknown, normal
from penstock.models.analysis.values import Kind, Value, only_data, rows, same

OFF_AXIS = "its axes are not that of the rows"


def checked(value: Value, axes: Sequence[int], how: str) -> None:
    """Checks that an operator does not combine rows.

    Raises:
        Mixes: one of the axes that it combines is that of the rows.
    """
    if value.has_rows and value.axis in axes:
        raise Mixes(how)


def _reduction_axes(node: Node, rank: int) -> list[int]:
    axes = node.plain(1) if node.has(1) else list(node.get("axes") or [])
    if not axes and not node.get("noop_with_empty_axes", 0):
        return list(range(rank))
    return [normal(axis, rank) for axis in axes]


def _reduce(node: Node) -> Result:
    data = node.value(0)
    if data.filler:
        data = replace(data, filler=False)
    node.rows_only_in(0)
    rank = node.rank(0)
    axes = _reduction_axes(node, rank)
    checked(data, axes, "combines all rows")
    return without(data, axes, bool(node.get("keepdims", 1)))


def without(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """A tensor whose axes are reduced to a length of 1, or dropped."""
    dims = value.dims or ()
    lengths = [1 if axis in axes else dim for axis, dim in enumerate(dims) if keep or axis not in axes]
    if not value.has_rows:
        return same(lengths)
    axis = value.axis if keep else value.axis - sum(each < value.axis for each in axes)
    return rows(lengths, axis, value.outer, value.inner)


def _arg(node: Node) -> Result:
    data = node.value(0)
    axis = node.axis("axis", 0, node.rank(0))
    checked(data, [axis], "looks for a place among all rows")
    return without(data, [axis], bool(node.get("keepdims", 1)))


def _plain(value: Value) -> Value:
    return replace(value, data=None, filler=False, numbers=False, source="")


def _softmax(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    old = node.opset < 13
    axis = node.axis("axis", 1 if old else -1, rank)
    checked(data, range(axis, rank) if old else [axis], "is taken over all rows")
    return _plain(data)


def _along_input(how: str) -> Callable[[Node], Result]:
    """The axis is the second input."""

    def follow(node: Node) -> Result:
        data = node.value(0)
        node.rows_only_in(0)
        axis = normal(node.plain(1)[0], node.rank(0))
        checked(data, [axis], how)
        return _plain(data)

    return follow


def _along(how: str, default: int) -> Callable[[Node], Result]:
    """The axis is an attribute."""

    def follow(node: Node) -> Result:
        data = node.value(0)
        node.rows_only_in(0)
        checked(data, [node.axis("axis", default, node.rank(0))], how)
        return _plain(data)

    return follow


def _top(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    axis = node.axis("axis", -1, rank)
    checked(data, [axis], "sorts rows")
    count: Dim = node.get("k") if node.opset < 10 and node.get("k") is not None else node.fresh(axis)
    if node.has(1):
        found = only_data(node.value(1))
        if node.value(1).kind is Kind.COUNT:
            raise Unknown("takes as many values as there are rows")
        count = found[0] if found else count
    dims = [count if place == axis else dim for place, dim in enumerate(node.dims(0))]
    one = rows(dims, data.axis, data.outer, data.inner) if data.has_rows else same(dims)
    return [one, one]


def _layer_norm(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    axis = node.axis("axis", -1, rank)
    node.rows_only_in(0)
    checked(data, range(axis, rank), "is taken over all rows")
    found = broadcast([data, *(value for value in node.values[1:3])])
    if found.dims is not None and len(found.dims) != rank:
        raise Unknown("has a scale of higher rank than its input")
    mean = without(data, range(axis, rank), True)
    return [_plain(data), mean, mean]


def _batch_norm(node: Node) -> Result:
    data = node.value(0)
    node.rows_only_in(0)
    training = node.get("training_mode", 0) == 1
    if node.opset < 7:
        training = node.get("is_test", 0) == 0
    elif node.opset < 14:
        training = len([name for name in node.outputs if name]) > 1
    if training and data.has_rows:
        raise Mixes("takes a mean and a variance over the whole batch")
    if data.has_rows and data.axis == 1:
        raise Unknown("takes another scale for each entry of the axis of the rows")
    return _plain(data)


def _instance_norm(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    checked(data, range(2, rank), "takes a mean and a variance over all rows")
    if data.has_rows and data.axis != 0:
        raise Unknown("takes another scale for each entry of the axis of the rows")
    return _plain(data)


def _group_norm(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    checked(data, range(1, rank), "takes a mean and a variance over all rows")
    return _plain(data)


def _mean_variance(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    axes = [normal(axis, rank) for axis in node.get("axes") or [0, 2, 3]]
    checked(data, axes, "takes a mean and a variance over the whole batch")
    return _plain(data)


def _lrn(node: Node) -> Result:
    checked(node.value(0), [1], "sums over neighbouring rows")
    node.rank(0)
    return _plain(node.value(0))


def _square(node: Node) -> Result:
    """The last two axes are those of a matrix."""
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis >= rank - 2:
        raise Mixes("takes the rows for those of a matrix")
    return _plain(data) if node.operator == "Trilu" else without(data, [rank - 2, rank - 1], False)


REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

RULES: Mapping[str, Rule] = {
    **{name: Rule(_reduce, OFF_AXIS) for name in REDUCTIONS},
    "ArgMax": Rule(_arg, OFF_AXIS),
    "ArgMin": Rule(_arg, OFF_AXIS),
    "Softmax": Rule(_softmax, "its axis (before opset 13: any from there on) is not that of the rows"),
    "LogSoftmax": Rule(_softmax, "as Softmax"),
    "Hardmax": Rule(_softmax, "as Softmax"),
    "CumSum": Rule(_along_input("adds up rows one after another"), OFF_AXIS),
    "CumProd": Rule(_along_input("multiplies rows one after another"), OFF_AXIS),
    "LpNormalization": Rule(_along("is taken over all rows", -1), OFF_AXIS),
    "TopK": Rule(_top, OFF_AXIS, shapes=(1,)),
    "LayerNormalization": Rule(_layer_norm, "the rows lie before its axis"),
    "RMSNormalization": Rule(_layer_norm, "the rows lie before its axis"),
    "SimplifiedLayerNormalization": Rule(_layer_norm, "the rows lie before its axis"),
    "BatchNormalization": Rule(_batch_norm, "outside training"),
    "InstanceNormalization": Rule(_instance_norm, "the rows are the first axis"),
    "GroupNormalization": Rule(_group_norm, "the rows are the first axis"),
    "MeanVarianceNormalization": Rule(_mean_variance, OFF_AXIS + "; without axes the rows' is one of them"),
    "LRN": Rule(_lrn, "the rows are not the second axis"),
    "Trilu": Rule(_square, "the rows lie before the last two axes"),
    "Det": Rule(_square, "the rows lie before the last two axes"),
}
