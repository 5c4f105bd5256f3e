"""Operators that run graphs within them, and those that draw random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock.models.analysis.expressions import Expr
from penstock.models.analysis.node import Impossible, Mixes, Node, Random, Result, Rule, Unknown
from penstock.models.analysis.values import Kind, Value, joined, mixed, only_data, rows, same, unknown

ROUNDS = 8
"""The most times that a loop's body is followed; what is known of its states gets less each time."""


def _if(node: Node) -> Result:
    condition = node.value(0)
    branches = [node.get("then_branch"), node.get("else_branch")]
    if condition.kind is Kind.MIXED:
        return [mixed(condition.why)] * len(node.outputs)
    if condition.kind is Kind.UNKNOWN:
        return [unknown(condition.why)] * len(node.outputs)
    if condition.has_rows:
        node.follower.varies(node)
        raise Mixes("takes one branch for the whole batch, by values")
    known = only_data(condition)
    if known is not None and not isinstance(known[0], Expr):
        return node.follower.graph(branches[0 if known[0] else 1], node, ())
    if condition.kind is not Kind.SAME:
        raise Unknown("takes a branch by the number of rows")
    if condition.asked:
        node.follower.varies(node)
    chosen = node.follower.choices.get(node.label)
    if chosen is not None:
        return node.follower.graph(branches[0 if chosen else 1], node, ())
    possible = [found for branch in branches if (found := _branch(node, branch)) is not None]
    if not possible:
        raise Impossible("has no branch that can run")
    pairs = list(zip(possible[0], possible[-1], strict=True))
    found = [joined(one, other, node.label, place) for place, (one, other) in enumerate(pairs)]
    if any(
        value.kind is Kind.UNKNOWN and value not in pair for value, pair in zip(found, pairs, strict=True)
    ):
        node.follower.fork(node)
    return found


def _branch(node: Node, branch: Any) -> list[Value] | None:
    """What a branch gives; None if it cannot run, so that it is never taken."""
    try:
        return node.follower.graph(branch, node, ())
    except Impossible:
        return None


def _loop(node: Node) -> Result:
    body = node.get("body")
    condition = node.inputs[1] if node.has(1) else None
    states = [value for value in node.inputs[2:] if value is not None]
    count = node.inputs[0] if node.has(0) else None
    stops = [value for value in (count, condition) if value is not None]
    if any(value.kind is Kind.COUNT for value in stops):
        raise Unknown("is repeated as often as there are rows")
    counter = replace(same(()), asked=False)
    given = list(states)
    result: Sequence[Value] = []
    for _ in node.follower.rounds(ROUNDS):
        going = condition if condition is not None and condition.kind is not Kind.ROWS else same(())
        result = node.follower.graph(body, node, (counter, replace(going, data=None), *given))
        after = _states(node, given, result[1 : 1 + len(states)])
        if after == given:
            break
        given = after
    else:
        raise Unknown("has states that are not followed to an end")
    stops.append(result[0])
    if any(value.kind in (Kind.ROWS, Kind.MIXED) or value.asked for value in stops) or _ends_early(result[0]):
        node.follower.varies(node)
    for value in stops:
        if value.kind is Kind.UNKNOWN:
            return [value] * len(node.outputs)
        if value.kind is not Kind.SAME:
            raise Mixes("ends for all rows at once, by values")
    finals = [replace(value, data=None) for value in given]
    return [*finals, *(_stacked(node, place, value) for place, value in enumerate(result[1 + len(states) :]))]


def _ends_early(value: Value) -> bool:
    """Whether a condition is anything but known."""
    return value.data is None and value.asked


def _states(node: Node, before: Sequence[Value], after: Sequence[Value]) -> list[Value]:
    """What is true of the states before a round and after it, however many rounds there were."""
    if len(before) != len(after):
        raise Unknown("has other states after a round than before it")
    found = []
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        name = f"{node.label}:state"
        if one.kind in (Kind.MIXED, Kind.UNKNOWN):
            found.append(one)
            continue
        state = joined(replace(one, source=""), replace(other, source=""), name, place)
        if state.dims is not None and one.dims is not None:
            # A length that changed once may change each time: it keeps the name that it got.
            dims = [a if _named(a, name) else b for a, b in zip(one.dims, state.dims, strict=True)]
            state = _with_dims(state, dims)
        found.append(state)
    return found


def _named(dim: Any, name: str) -> bool:
    return isinstance(dim, Expr) and name in str(dim)


def _with_dims(value: Value, dims: Sequence[Any]) -> Value:
    if value.has_rows:
        found = rows(list(dims), value.axis, value.outer, value.inner, filler=value.filler)
        return replace(found, numbers=value.numbers)
    return replace(value, dims=tuple(dims))


def _stacked(node: Node, place: int, value: Value) -> Value:
    """What each round gives, along a new first axis."""
    if value.kind in (Kind.MIXED, Kind.UNKNOWN):
        return value
    if value.kind is Kind.COUNT:
        return mixed(f"{node.label} gives the number of rows")
    if value.dims is None:
        return same(None)
    dims = [node.fresh(0, place), *value.dims]
    if value.has_rows:
        return replace(rows(dims, value.axis + 1, value.outer, value.inner), numbers=value.numbers)
    return replace(same(dims), asked=value.asked)


def _scan(node: Node) -> Result:
    if node.opset < 9:
        raise Unknown("is of an operator set before 9")
    inputs = node.values
    for value in inputs:
        if value.kind is Kind.COUNT:
            raise Unknown("takes the number of rows")
        if value.kind is not Kind.SAME and not value.has_rows:
            return [value] * len(node.outputs)
    first = len(inputs) - node.get("num_scan_inputs", 1)
    axes = node.get("scan_input_axes") or [0] * (len(inputs) - first)
    steps: Any = node.fresh(0)
    parts = []
    for value, axis in zip(inputs[first:], axes, strict=True):
        part, steps = _scanned(value, axis)
        parts.append(part)
    given = list(inputs[:first])
    result: Sequence[Value] = []
    for _ in node.follower.rounds(ROUNDS):
        result = node.follower.graph(node.get("body"), node, (*given, *parts))
        after = _states(node, given, result[:first])
        if after == given:
            break
        given = after
    else:
        raise Unknown("has states that are not followed to an end")
    places = node.get("scan_output_axes") or [0] * (len(result) - first)
    outputs = [
        _at_axis(_stacked(node, number, value), axis, steps)
        for number, (value, axis) in enumerate(zip(result[first:], places, strict=True))
    ]
    return [*(replace(value, data=None) for value in given), *outputs]


def _scanned(value: Value, axis: int) -> tuple[Value, Any]:
    """One entry of an axis, and how many there are."""
    if value.dims is None:
        raise Unknown("has an input whose rank is not known")
    place = axis + len(value.dims) if axis < 0 else axis
    if value.has_rows and value.axis == place:
        raise Mixes("goes through the rows one after another")
    dims = [dim for each, dim in enumerate(value.dims) if each != place]
    if value.has_rows:
        part = rows(dims, value.axis - (value.axis > place), value.outer, value.inner)
        return replace(part, numbers=value.numbers), value.dims[place]
    return replace(same(dims), asked=value.asked), value.dims[place]


def _at_axis(value: Value, axis: int, steps: Any) -> Value:
    """The axis of the rounds, which is the first, put at its place."""
    if value.dims is None:
        return value
    place = axis + len(value.dims) if axis < 0 else axis
    rest = list(value.dims[1:])
    dims = [*rest[:place], steps, *rest[place:]]
    if not value.has_rows:
        return replace(value, dims=tuple(dims))
    own = value.axis - 1
    return replace(rows(dims, own + (own >= place), value.outer, value.inner), numbers=value.numbers)


def _random(node: Node) -> Result:
    node.follower.draws(node)
    raise Random("draws random numbers")


def _varying(follow: Callable[[Node], Result]) -> Callable[[Node], Result]:
    """An operator whose work, or the length of its result, depends on values."""

    def noted(node: Node) -> Result:
        if any(value.has_rows or value.asked for value in node.values):
            node.follower.varies(node)
        return follow(node)

    return noted


def noting(rules: Mapping[str, Rule], *names: str) -> dict[str, Rule]:
    """The rules, of which these note that their node's work depends on values."""
    return {
        name: replace(rule, follow=_varying(rule.follow)) if name in names else rule
        for name, rule in rules.items()
    }


RANDOM = "never: random numbers"

RULES: Mapping[str, Rule] = {
    "If": Rule(_if, "its condition is the same for all rows, and both branches are row-wise", takes_all=True),
    "Loop": Rule(
        _loop,
        "it ends by values that are the same for all rows, and its body is row-wise",
        takes_all=True,
        shapes=(-1,),
    ),
    "Scan": Rule(
        _scan, "it does not go through the rows, and its body is row-wise", takes_all=True, shapes=(-1,)
    ),
    **{
        name: Rule(_random, RANDOM)
        for name in (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Multinomial",
            "Bernoulli",
        )
    },
}
