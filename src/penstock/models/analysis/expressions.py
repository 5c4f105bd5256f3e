"""Lengths and counts that are known as formulas: polynomials over named lengths, one of which is the batch's.

A length that cannot be expressed as a polynomial, such as `(T + 1) // 2`, becomes an atom of its own whose
name is the formula. Equal formulas are equal atoms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

MOST_TERMS = 32
LONGEST_NAME = 96


@dataclass(frozen=True, slots=True, order=True)
class Atom:
    """A number with a name.

    Attributes:
        name: what it is called; atoms of one name are equal.
        counts: whether it depends on the number of rows.
        natural: whether it is known to be 0 or more.
    """

    name: str
    counts: bool = False
    natural: bool = True


Monomial: TypeAlias = tuple[tuple[Atom, int], ...]
"""Atoms with their powers, sorted; an empty one is 1."""


@dataclass(frozen=True, slots=True)
class Expr:
    """A polynomial that is not a plain number.

    Attributes:
        terms: the factor of each product of atoms; sorted, factors are not 0.
    """

    terms: tuple[tuple[Monomial, int], ...]

    @property
    def counts(self) -> bool:
        """Whether it depends on the number of rows."""
        return any(atom.counts for monomial, _ in self.terms for atom, _ in monomial)

    def __add__(self, other: object) -> Dim:
        if not isinstance(other, int | Expr):
            return NotImplemented
        return _made([*self.terms, *_terms(other)], self, other, "+")

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _made([(monomial, -factor) for monomial, factor in self.terms], self, 0, "-")

    def __sub__(self, other: object) -> Dim:
        if not isinstance(other, int | Expr):
            return NotImplemented
        return self + -other

    def __rsub__(self, other: object) -> Dim:
        return -self + other if isinstance(other, int | Expr) else NotImplemented

    def __mul__(self, other: object) -> Dim:
        if not isinstance(other, int | Expr):
            return NotImplemented
        right = _terms(other)
        if len(self.terms) * len(right) > MOST_TERMS:
            return opaque("*", self, other)
        products = [(_times(one, two), f * g) for one, f in self.terms for two, g in right]
        return _made(products, self, other, "*")

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(
            "*".join([*([str(factor)] if factor != 1 or not monomial else []), *map(_power, monomial)])
            for monomial, factor in self.terms
        )


Dim: TypeAlias = int | Expr
"""A length: a plain number, or a formula."""


def symbol(name: str, *, counts: bool = False, natural: bool = True) -> Expr:
    """The formula that is one atom."""
    return Expr(((((Atom(name, counts, natural), 1),), 1),))


ROWS = symbol("N", counts=True)
"""The number of rows of the batch, 1 or more."""


def opaque(operation: str, *parts: object, natural: bool = False) -> Expr:
    """A formula that is not a polynomial, by the name of its operation and its parts."""
    name = f"{operation}({', '.join(map(str, parts))})"
    if len(name) > LONGEST_NAME:
        name = f"{operation}#{hashlib.sha256(name.encode()).hexdigest()[:24]}"
    return symbol(name, counts=any(counts(part) for part in parts), natural=natural)


def counts(value: object) -> bool:
    """Whether a value depends on the number of rows."""
    return isinstance(value, Expr) and value.counts


def product(dims: tuple[Dim, ...] | list[Dim]) -> Dim:
    """All lengths multiplied."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def exact(whole: Dim, part: Dim) -> Dim | None:
    """The quotient of two formulas, if it is a formula without a rest; None otherwise."""
    if isinstance(part, int):
        if part == 0:
            return None
        if isinstance(whole, int):
            return whole // part if whole % part == 0 else None
    if whole == 0:
        return 0
    rest = dict(_terms(whole))
    lead, factor = max(_terms(part), key=_order)
    found: list[tuple[Monomial, int]] = []
    while rest:
        top = max(rest.items(), key=_order)
        monomial = _without(top[0], lead)
        if monomial is None or top[1] % factor or len(found) > MOST_TERMS:
            return None
        quotient = top[1] // factor
        found.append((monomial, quotient))
        for other, times in _terms(part):
            key = _times(other, monomial)
            rest[key] = rest.get(key, 0) - times * quotient
            if rest[key] == 0:
                del rest[key]
    return _made(found, whole, part, "/")


def floor_divided(whole: Dim, part: Dim) -> Dim:
    """The quotient of two lengths, rounded down."""
    found = exact(whole, part)
    if found is not None:
        return found
    if isinstance(whole, int) and isinstance(part, int) and part:
        return whole // part
    return opaque("//", whole, part, natural=is_natural(whole) and is_natural(part))


def is_natural(value: Dim) -> bool:
    """Whether a formula is certainly 0 or more."""
    if isinstance(value, int):
        return value >= 0
    return all(factor >= 0 and all(a.natural for a, _ in monomial) for monomial, factor in value.terms)


def equal(one: Dim, other: Dim) -> bool | None:
    """Whether two formulas are equal for all lengths; None if that depends on the lengths."""
    difference = one - other
    if isinstance(difference, int):
        return difference == 0
    least = difference - 1, -difference - 1
    # The number of rows is at least 1, so n rows less one are natural too.
    return False if any(is_natural(each) or is_natural(_from_one(each)) for each in least) else None


def _from_one(value: Dim) -> Dim:
    """The same with one more than any natural number in place of the number of rows."""
    if isinstance(value, int):
        return value
    more: Dim = 0
    for monomial, factor in value.terms:
        term: Dim = factor
        for atom, power in monomial:
            base = ROWS + 1 if atom == _ROWS_ATOM else symbol_of(atom)
            for _ in range(power):
                term = term * base
        more = more + term
    return more


def symbol_of(atom: Atom) -> Expr:
    """The formula that is one atom."""
    return Expr(((((atom, 1),), 1),))


_ROWS_ATOM = Atom("N", True)


def _terms(value: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(value, Expr):
        return value.terms
    return (((), int(value)),) if value else ()


def _made(terms: list[tuple[Monomial, int]], one: object, other: object, operation: str) -> Dim:
    total: dict[Monomial, int] = {}
    for monomial, factor in terms:
        total[monomial] = total.get(monomial, 0) + factor
    kept = sorted((monomial, factor) for monomial, factor in total.items() if factor)
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > MOST_TERMS:
        return opaque(operation, one, other)
    return Expr(tuple(kept))


@cache
def _times(one: Monomial, other: Monomial) -> Monomial:
    powers = dict(one)
    for atom, power in other:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items()))


def _without(whole: Monomial, part: Monomial) -> Monomial | None:
    powers = dict(whole)
    for atom, power in part:
        if powers.get(atom, 0) < power:
            return None
        powers[atom] -= power
    return tuple(sorted((atom, power) for atom, power in powers.items() if power))


def _order(term: tuple[Monomial, int]) -> tuple[object, ...]:
    """Graded lexicographic: a product of two monomials is in the order of their factors."""
    monomial = term[0]
    # A higher power of an earlier atom comes first; names are compared from their end of the order.
    return (
        sum(power for _, power in monomial),
        tuple((_Reversed(atom.name), power) for atom, power in monomial),
    )


@dataclass(frozen=True, slots=True)
class _Reversed:
    name: str

    def __lt__(self, other: _Reversed) -> bool:
        return other.name < self.name


def _power(factor: tuple[Atom, int]) -> str:
    atom, power = factor
    return atom.name if power == 1 else f"{atom.name}^{power}"
