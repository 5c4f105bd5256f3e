"""Axes whose names are sums of others: decoders declare `past_sequence_length + sequence_length`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

LONGEST_NAME = 200  # characters: a name of any length may stand in a file
LARGEST = 1 << 12
OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def computed(name: str, lengths: Mapping[str, int], size: int) -> int:
    """The length of an open axis in generated inputs.

    Args:
        name: the axis's name, such as "sequence_length", "past_length + 1" or "2*s0".
        lengths: the lengths of axes by name.
        size: the length of an axis that is not computed from others, and of names that `lengths` lacks.

    Returns:
        What the name computes, if it is a sum, difference, product or whole quotient of names and numbers and
        is from 1 to 4096; else `size`.
    """
    if name.isidentifier() or len(name) > LONGEST_NAME:
        return size
    try:
        found = _value(ast.parse(name, mode="eval").body, lengths, size)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return size
    return found if 1 <= found <= LARGEST else size


def _value(node: ast.expr, lengths: Mapping[str, int], size: int) -> int:
    if isinstance(node, ast.Name):
        return lengths.get(node.id, size)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        sides = (_value(side, lengths, size) for side in (node.left, node.right))
        return OPERATORS[type(node.op)](*sides)
    raise ValueError("it is not computed from names and numbers")
