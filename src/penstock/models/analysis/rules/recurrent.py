"""Recurrent networks and attention: time runs along one axis, rows along another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.models.analysis.expressions import Dim
from penstock.models.analysis.layout import broadcast, common_layout
from penstock.models.analysis.node import Impossible, Mixes, Node, Result, Rule, Unknown
from penstock.models.analysis.values import Value, like, rows, same

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(node: Node) -> Result:
    """X, W, R, B, lengths of sequences, first states; W, R, B and P are weights."""
    data, dims = node.value(0), node.dims(0)
    if len(dims) != 3:
        raise Impossible(f"takes tensors of rank 3, not {len(dims)}")
    layout = node.get("layout", 0)
    batch = 0 if layout else 1
    node.rows_only_in(0, 4, 5, 6)
    if data.has_rows and data.axis == 1 - batch:
        raise Mixes("goes through the rows one after another")
    if data.has_rows and data.axis != batch:
        raise Mixes("takes rows for features")
    placed = [data] if data.has_rows else []
    states = [node.value(place) for place in (4, 5, 6) if node.has(place)]
    for place in (4, 5, 6):
        if node.has(place):
            value = node.value(place)
            expected = 0 if place == 4 or layout else 1
            if value.has_rows and value.axis != expected:
                raise Mixes("takes rows for something else")
            placed += [value] if value.has_rows else []
    if placed and len(placed) < len(states) + 1:
        raise Unknown("has a state or a length that is the same whatever the rows")
    directions = 2 if str(node.get("direction", "forward")).startswith("bi") else 1
    hidden: Dim = node.get("hidden_size") or (
        node.dims(2)[-1] if node.has(2) and node.value(2).dims else node.fresh(9)
    )
    steps = dims[1 - batch]
    whole = [1, steps, directions, hidden] if layout else [steps, directions, 1, hidden]
    last = [1, directions, hidden] if layout else [directions, 1, hidden]
    if not placed:
        whole[batch if layout else 2] = dims[batch]
        last[batch] = dims[batch]
        return [same(whole), same(last), same(last)]
    found = common_layout(placed)
    return [like(found, whole, 0 if layout else 2), like(found, last, batch), like(found, last, batch)]


def first_axis(values: Sequence[Value]) -> Value:
    """Checks that rows are the first axis of all these tensors, and gives one of them.

    Raises:
        Unknown: one has no rows, or has them elsewhere.
    """
    if any(not value.has_rows or value.axis != 0 for value in values):
        raise Unknown("needs rows as the first axis of each of its inputs")
    return common_layout(values)


def _attention(node: Node) -> Result:
    """Q, K, V, mask, past key, past value, lengths of keys."""
    if node.is_settled:
        return [same(None)] * 4
    placed = [node.value(place) for place in (0, 1, 2, 4, 5, 6) if node.has(place)]
    found = first_axis(placed)
    rank = node.rank(0)
    if node.has(3):
        check_mask(node.value(3), 4)
    dims, values = node.dims(0), node.dims(2)
    heads = dims[1] if rank == 4 else node.get("q_num_heads", 1)
    last = values[-1] if rank == 4 else node.fresh(2)
    whole = [1, dims[1], dims[2], last] if rank == 4 else [1, dims[1], last]
    state = [1, node.fresh(1, 1), node.fresh(2, 1), node.fresh(3, 1)]
    return [
        like(found, whole, 0),
        like(found, state, 0),
        like(found, state, 0),
        like(found, [1, heads, node.fresh(2, 3), node.fresh(3, 3)], 0),
    ]


def check_mask(mask: Value, rank: int) -> None:
    """Checks that a mask of scores of a rank, rows first, does not set rows against rows.

    Raises:
        Mixes: it does.
        Unknown: its rank is not known.
    """
    scores = rows([1] * rank, 0)
    found = broadcast([scores, mask])
    if found.dims is None or len(found.dims) != rank:
        raise Unknown("has a mask of higher rank than its scores")


def _rotary(node: Node) -> Result:
    data = node.value(0)
    dims = node.dims(0)
    if node.is_settled:
        return same(dims)
    first_axis([data])
    caches = [node.value(1), node.value(2)]
    if node.has(3):
        places = node.value(3)
        node.rows_only_in(0, 3)
        if not places.has_rows:
            raise Unknown("takes places that are the same whatever the rows")
        first_axis([data, places])
    else:
        first_axis([data, *caches])
    return like(data, dims, 0)


STEPS = "the rows are the axis of the batch, not of time, also of states and lengths"

RULES: Mapping[str, Rule] = {
    **{name: Rule(_recurrent, STEPS) for name in GATES},
    "Attention": Rule(_attention, "the rows are the first axis of queries, keys, values and states"),
    "RotaryEmbedding": Rule(_rotary, "the rows are the first axis, also of places or caches"),
}
