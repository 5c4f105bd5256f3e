"""A node as rules see it: its inputs as values, its attributes, and the ways to say that rows mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from penstock.models.analysis.expressions import Dim, Expr, opaque
from penstock.models.analysis.values import Kind, Value, only_data, unknown

if TYPE_CHECKING:
    import onnx


class Mixes(Exception):
    """The node makes rows depend on each other; the text says how, after the name of the node."""


class Unknown(Exception):
    """It cannot be said whether rows stay apart; the text says why, after the name of the node."""


class Random(Unknown):
    """Nor can it be said where no input depends on rows: random numbers, or an operator that is not known."""


class Impossible(Exception):
    """The node cannot run on such inputs, not even on a single row; the text says why."""


class Fork(Exception):
    """What follows depends on a condition that is the same for all rows; the text is the name of its node."""


@dataclass
class Scope:
    """The tensors that have a name.

    Attributes:
        parent: the scope around; None for that of the model and those of functions.
        opsets: the versions of operator sets, by domain.
        outer: the attributes of the call of a function.
        depth: how many scopes are around it.
    """

    opsets: Mapping[str, int]
    parent: Scope | None = None
    outer: Mapping[str, Any] | None = None
    depth: int = 0
    values: dict[str, Value] = field(default_factory=dict)

    def find(self, name: str) -> Value:
        """A tensor, here or in the scopes around."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return unknown(f"the graph has no tensor {name}")


class Follows(Protocol):
    """What rules ask of the follower of the graph, which is in `penstock.models.analysis.follower`."""

    choices: Mapping[str, bool]

    def draws(self, node: Node) -> None:
        """Notes that a node draws random numbers."""

    def varies(self, node: Node) -> None:
        """Notes that the work of a node depends on values."""

    def fork(self, node: Node) -> None:
        """Asks for the graph to be followed twice, once with each branch of this node."""

    def rounds(self, most: int) -> Iterator[int]:
        """Counts the rounds of a loop."""

    def looks_up(self, indices: Value, table: Value) -> None:
        """Notes that entries of a table are taken by the integers of a tensor."""

    def graph(self, graph: onnx.GraphProto, node: Node, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a graph within a node."""


@dataclass
class Node:
    """One node of the graph, with the values that reach it.

    Attributes:
        operator: its type.
        label: what it is called in reasons, such as "node 17 Softmax".
        opset: the version of its operator set.
        inputs: its inputs in order; None where an optional one is left out.
        attributes: by name: numbers, texts, lists, tensors or graphs.
        outputs: the names of its outputs; "" where one is left out.
        follower: follows the graphs in its attributes.
        scope: the tensors that these graphs may refer to.
    """

    operator: str
    label: str
    opset: int
    inputs: Sequence[Value | None]
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    follower: Follows
    scope: Scope

    def has(self, place: int) -> bool:
        """Whether an input is given."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def value(self, place: int) -> Value:
        """An input.

        Raises:
            Unknown: it is left out.
        """
        found = self.inputs[place] if place < len(self.inputs) else None
        if found is None:
            raise Unknown(f"lacks its input {place}")
        return found

    @property
    def values(self) -> list[Value]:
        """The inputs that are given."""
        return [value for value in self.inputs if value is not None]

    def dims(self, place: int) -> tuple[Dim, ...]:
        """The shape of an input.

        Raises:
            Unknown: its rank is not known.
        """
        found = self.value(place).dims
        if found is None:
            raise Unknown("has an input whose rank is not known")
        return found

    def rank(self, place: int) -> int:
        """The rank of an input; raises Unknown as `dims`."""
        return len(self.dims(place))

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that is an axis, counted from 0.

        Raises:
            Unknown: there is no such axis.
        """
        return normal(self.get(name, default), rank)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def numbers(self, place: int) -> list[Any]:
        """The known elements of an input that gives a shape, an axis or the like.

        Raises:
            Unknown: they are not known.
        """
        found = only_data(self.value(place))
        if found is None:
            raise Unknown("has a shape or a place that is computed in a way which is not followed")
        return found

    def plain(self, place: int) -> list[int]:
        """The same, as plain integers; raises Unknown where one is a formula."""
        found = self.numbers(place)
        if any(isinstance(each, Expr) for each in found):
            raise Unknown("has a place that depends on the lengths of its input")
        return [int(each) for each in found]

    def rows_only_in(self, *places: int) -> None:
        """Checks that no other input has rows.

        Raises:
            Unknown: another one has.
        """
        for place, value in enumerate(self.inputs):
            if value is not None and value.has_rows and place not in places:
                raise Unknown(f"takes rows as its input {place}")

    def fresh(self, axis: int, output: int = 0) -> Dim:
        """A length that is not computed; it depends on neither the rows nor their number."""
        return opaque(f"{self.label}:{output}:{axis}", natural=True)

    @property
    def is_settled(self) -> bool:
        """Whether no input depends on the rows or their number."""
        return all(value.kind is Kind.SAME for value in self.values)


Result: TypeAlias = Value | Sequence[Value]


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operator does to rows.

    Attributes:
        follow: gives the outputs of a node; raises Mixes or Unknown.
        when: when the operator is row-wise, for the documentation.
        shapes: the inputs that may depend on the number of rows, since they give shapes; -1 for all.
        takes_all: whether it copes with mixed and unknown inputs itself.
    """

    follow: Callable[[Node], Result]
    when: str
    shapes: tuple[int, ...] = ()
    takes_all: bool = False


def normal(axis: int, rank: int) -> int:
    """An axis counted from 0.

    Raises:
        Unknown: there is no such axis.
    """
    found = axis + rank if axis < 0 else axis
    if not 0 <= found < max(rank, 1):
        raise Unknown(f"names axis {axis} of a tensor of rank {rank}")
    return found
