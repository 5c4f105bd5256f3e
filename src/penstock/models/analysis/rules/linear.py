"""Products of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.models.analysis.expressions import Dim
from penstock.models.analysis.layout import OTHER_AXIS, broadcast, common_layout
from penstock.models.analysis.node import Impossible, Mixes, Node, Result, Rule, Unknown
from penstock.models.analysis.values import Value, is_one, like, rows, same

SUMS = "sums over all rows"


def product_of(one: Value, other: Value) -> Value:
    """What the product of two stacks of matrices gives.

    Raises:
        Mixes: the product sums over rows, or sets all rows against all.
        Unknown: a rank is not known, or the rows lie in different ways.
    """
    if one.dims is None or other.dims is None:
        if one.has_rows or other.has_rows:
            raise Unknown("has an input whose rank is not known")
        return same(None)
    left, right = _as_matrix(one, True), _as_matrix(other, False)
    a, b = left.dims or (), right.dims or ()
    if left.has_rows and left.axis == len(a) - 1:
        raise Mixes(SUMS)
    if right.has_rows and right.axis == len(b) - 2:
        raise Mixes(SUMS)
    stack = broadcast([_stack(left), _stack(right)])
    tail = [a[-2], b[-1]]
    if len(one.dims) == 1:
        tail = tail[1:]
    if len(other.dims) == 1:
        tail = tail[:-1]
    dims = [*(stack.dims or ()), *tail]
    inner = [(left, -2, a), (right, -1, b)]
    placed = [
        (value, back) for value, back, shape in inner if value.has_rows and value.axis == len(shape) + back
    ]
    if (stack.has_rows and placed) or len(placed) > 1:
        raise Mixes(OTHER_AXIS)
    if stack.has_rows:
        return like(stack, dims, stack.axis)
    if placed:
        [(value, back)] = placed
        return like(value, dims, len(stack.dims or ()) + (0 if back == -2 or len(one.dims) == 1 else 1))
    return same(dims)


def _as_matrix(value: Value, first: bool) -> Value:
    dims = value.dims or ()
    if len(dims) > 1:
        return value
    if not dims:
        raise Unknown("multiplies a single number")
    wide = [1, *dims] if first else [*dims, 1]
    return like(value, wide, 1 if first else 0) if value.has_rows else same(wide)


def _stack(value: Value) -> Value:
    """The axes before those of the matrices."""
    dims = (value.dims or ())[:-2]
    return like(value, list(dims), value.axis) if value.has_rows and value.axis < len(dims) else same(dims)


def _matmul(node: Node) -> Result:
    return product_of(node.value(0), node.value(1))


def checked_scales(node: Node, places: Sequence[int]) -> None:
    """Scales and zero points have one value; others could differ from row to row by place."""
    for place in places:
        if node.has(place):
            if node.value(place).has_rows:
                raise Unknown("takes a scale from rows")
            if not is_one(node.value(place)) and node.value(0).has_rows:
                raise Unknown("has several scales for its input with rows")


def _matmul_integer(node: Node) -> Result:
    checked_scales(node, (2,))
    node.rows_only_in(0, 1)
    return product_of(node.value(0), node.value(1))


def _qlinear_matmul(node: Node) -> Result:
    checked_scales(node, (1, 2, 6, 7))
    node.rows_only_in(0, 3)
    if node.value(3).has_rows:
        for place in (4, 5):
            if not is_one(node.value(place)):
                raise Unknown("has several scales for its input with rows")
    return product_of(node.value(0), node.value(3))


def turned(value: Value) -> Value:
    """A matrix, transposed."""
    dims = value.dims
    if dims is None:
        return value
    lengths = [*dims[:-2], dims[-1], dims[-2]]
    if not value.has_rows:
        return same(lengths)
    back = len(dims) - value.axis
    return like(value, lengths, len(dims) - {1: 2, 2: 1}.get(back, back))


def _gemm(node: Node) -> Result:
    one, other = node.value(0), node.value(1)
    if any(value.dims is not None and len(value.dims) != 2 for value in (one, other)):
        raise Impossible("takes matrices only")
    one = turned(one) if node.get("transA", 0) else one
    other = turned(other) if node.get("transB", 0) else other
    found = product_of(one, other)
    return broadcast([found, node.value(2)]) if node.has(2) else found


def _einsum(node: Node) -> Result:
    left, arrow, right = str(node.get("equation", "")).replace(" ", "").partition("->")
    if not arrow:
        raise Unknown("does not say what it sums over")
    if "..." in right and not right.startswith("..."):
        raise Unknown("has an ellipsis in the middle")
    terms = [_letters(term, node.rank(place)) for place, term in enumerate(left.split(","))]
    if len(terms) != len(node.inputs):
        raise Unknown("names another number of inputs")
    dims: dict[str, Dim] = {}
    for place, term in enumerate(terms):
        for letter, dim in zip(term, node.dims(place), strict=True):
            dims[letter] = dim if dims.get(letter, 1) == 1 else dims[letter]
    ahead = {letter for term in terms for letter in term if letter.startswith(".")}
    output = list(right.replace("...", ""))
    if right.startswith("..."):
        output = [*sorted(ahead, key=lambda letter: -int(letter[1:])), *output]
    elif ahead:
        raise Unknown("sums over an ellipsis")
    placed = [value for value in node.values if value.has_rows]
    if not placed:
        return same([dims[letter] for letter in output])
    row = _letter_of_rows(node, terms)
    if row not in output:
        raise Mixes(SUMS)
    layout = common_layout(placed)
    return rows([dims[letter] for letter in output], output.index(row), layout.outer, layout.inner)


def _letter_of_rows(node: Node, terms: Sequence[Sequence[str]]) -> str:
    """The letter of the axis of the rows, which is the same in all inputs."""
    letters = {term[value.axis] for value, term in zip(node.values, terms, strict=True) if value.has_rows}
    if len(letters) > 1:
        raise Mixes(OTHER_AXIS)
    [row] = letters
    for place, term in enumerate(terms):
        constant = row in term and not node.value(place).has_rows
        if term.count(row) > 1 or (constant and node.dims(place)[term.index(row)] != 1):
            raise Unknown("sets values against the rows whose number is not known")
    return row


def _letters(term: str, rank: int) -> list[str]:
    """A letter an axis; those of an ellipsis are counted from its end."""
    ahead, dots, behind = term.partition("...")
    hidden = rank - len(ahead) - len(behind) if dots else 0
    letters = [*ahead, *(f".{hidden - i}" for i in range(hidden)), *behind]
    if len(letters) != rank:
        raise Unknown("names another number of axes than its input has")
    return letters


RULES: Mapping[str, Rule] = {
    "MatMul": Rule(_matmul, "rows are not summed over, and not set against rows"),
    "Gemm": Rule(_gemm, "as MatMul"),
    "MatMulInteger": Rule(_matmul_integer, "as MatMul, with one zero point"),
    "QLinearMatMul": Rule(_qlinear_matmul, "as MatMul, with one scale"),
    "Einsum": Rule(_einsum, "the letter of the rows is kept, and is the same in all inputs with rows"),
}
