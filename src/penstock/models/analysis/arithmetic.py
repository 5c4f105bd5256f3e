"""Arithmetic on single known elements: numbers, truth values and formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from penstock.models.analysis import expressions
from penstock.models.analysis.expressions import Expr, exact, floor_divided, is_natural, opaque
from penstock.models.analysis.node import Node
from penstock.models.analysis.values import MOST_ELEMENTS, Data

Fold: TypeAlias = Callable[..., Any]
INT_TYPES = frozenset({2, 3, 4, 5, 6, 7, 12, 13})
BOOL, FLOAT_TYPES = 9, frozenset({1, 10, 11, 16})


WIDE_TYPES = frozenset({1, 6, 7, 9, 11})
"""FLOAT, INT32, INT64, BOOL and DOUBLE. Elements of other types soon wrap around: they are not computed."""
LARGEST_INT, LARGEST_REAL = 2**31, 2**18
FRACTIONS = 64


class NotKnown(Exception):
    """The result depends on lengths that are formulas."""


def is_exact(value: Any) -> bool:
    """Whether all wide types hold this element exactly, so that sums and products do not round or wrap.

    Of fractions these are the multiples of 1/64, of which FP32 holds all up to 2**18.
    """
    if isinstance(value, float):
        return abs(value) < LARGEST_REAL and (value * FRACTIONS).is_integer()
    return not isinstance(value, int) or abs(value) < LARGEST_INT


def each(function: Callable[..., Any]) -> Fold:
    """Element by element, with broadcasting."""

    def fold(node: Node, *arrays: Data) -> Data:
        if math.prod(np.broadcast_shapes(*(array.shape for array in arrays))) > MOST_ELEMENTS:
            raise NotKnown
        return np.asarray(
            np.frompyfunc(lambda *each: function(node, *each), len(arrays), 1)(*arrays), dtype=object
        )

    return fold


def divided(node: Node, one: Any, other: Any) -> Any:  # noqa: PLR0911
    """The quotient of two elements: of integers rounded towards 0."""
    if isinstance(one, float) or isinstance(other, float):
        if isinstance(one, Expr) or isinstance(other, Expr):
            return opaque("/", one, other)
        return one / other
    found = exact(one, other)
    if found is not None:
        return found
    if node.values[0].real:
        return opaque("/", one, other) if isinstance(one, Expr) or isinstance(other, Expr) else one / other
    if not (_natural(one) and _natural(other)):
        if isinstance(one, Expr) or isinstance(other, Expr):
            return opaque("div", one, other)
        return math.trunc(one / other)
    return floor_divided(one, other)


def _natural(value: Any) -> bool:
    return not isinstance(value, float) and is_natural(value)


def reals(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function of plain numbers; of formulas it makes an atom."""

    def call(_: Node, *parts: Any) -> Any:
        if any(isinstance(part, Expr) for part in parts):
            return opaque(name, *parts)
        return function(*parts)

    return call


def arithmetic(function: Callable[[Any, Any], Any], name: str) -> Callable[..., Any]:
    """Exact on integers and formulas; with a fraction an atom."""

    def call(_: Node, one: Any, other: Any) -> Any:
        fraction = [isinstance(each, float) and not each.is_integer() for each in (one, other)]
        formula = [isinstance(each, Expr) for each in (one, other)]
        if any(formula) and any(fraction):
            return opaque(name, one, other)
        if any(formula):
            one, other = (int(each) if isinstance(each, float | bool) else each for each in (one, other))
        return function(one, other)

    return call


def variadic(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The smallest or largest of several elements; of formulas it makes an atom."""

    def call(_: Node, *parts: Any) -> Any:
        kept = list(dict.fromkeys(parts))
        if len(kept) == 1:
            return kept[0]
        if any(isinstance(part, Expr) for part in kept):
            return opaque(name, *sorted(kept, key=str), natural=all(_natural(part) for part in kept))
        return function(kept)

    return call


def compared(function: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    """A comparison of order, decided where the difference of two formulas has a certain sign."""

    def call(_: Node, one: Any, other: Any) -> bool:
        if not isinstance(one, Expr) and not isinstance(other, Expr):
            return bool(function(one, other))
        if isinstance(one, float) or isinstance(other, float):
            raise NotKnown
        for sign in (1, -1):
            if is_natural(sign * (one - other) - 1):
                return bool(function(sign, 0))
        raise NotKnown

    return call


def equal(_: Node, one: Any, other: Any) -> bool:
    """Whether two elements are equal."""
    if not isinstance(one, Expr) and not isinstance(other, Expr):
        return bool(one == other)
    if isinstance(one, float) or isinstance(other, float):
        raise NotKnown
    found = expressions.equal(one, other)
    if found is None:
        raise NotKnown
    return found


def cast(node: Node, value: Any) -> Any:
    """An element as another type."""
    to = node.get("to")
    if to in FLOAT_TYPES:
        return value if isinstance(value, Expr) else float(value)
    if isinstance(value, str):
        raise NotKnown
    if to in INT_TYPES:
        if not isinstance(value, Expr):
            return int(value)
        whole = not node.values[0].real or not any(
            "/" in a.name or "*" in a.name for m, _ in value.terms for a, _ in m
        )
        return value if whole else opaque("int", value, natural=True)
    if to == BOOL:
        return truth(value)
    raise NotKnown


def truth(value: Any) -> bool:
    """Whether an element is not 0."""
    if isinstance(value, Expr):
        if is_natural(value - 1):
            return True
        raise NotKnown
    return bool(value)


def rounded(function: Callable[[float], int], name: str) -> Callable[..., Any]:
    """An element rounded; of a formula it makes an atom."""

    def call(_: Node, value: Any) -> Any:
        return opaque(name, value, natural=True) if isinstance(value, Expr) else float(function(value))

    return call
