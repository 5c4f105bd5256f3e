"""Follows rows through a graph, node by node, and through the graphs and functions within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.models.analysis.expressions import counts
from penstock.models.analysis.folding import folded
from penstock.models.analysis.node import Fork, Impossible, Mixes, Node, Random, Result, Rule, Scope, Unknown
from penstock.models.analysis.protos import Attributes, constant
from penstock.models.analysis.table import rule_of
from penstock.models.analysis.values import Kind, Value, mixed, same, unknown

if TYPE_CHECKING:
    import onnx

MOST_STEPS = 300_000
"""The most nodes that are followed, those of loops and functions counted each time."""
DEEPEST = 30
"""The most graphs and functions within each other that are followed."""

PASSING = frozenset(
    [
        "Identity",
        "Cast",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Transpose",
        "Flatten",
        "Slice",
        "Expand",
        "Split",
    ]
)
"""Operators that give the integers of their first input."""
NUMBERING = frozenset(["Identity", "Cast", "Unsqueeze", "Squeeze", "Transpose", "Expand", "Shape", "Size"])
"""Operators that may take the numbers of rows, since they keep each at its row."""
PLAIN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


class TooMuch(Exception):
    """The graph is too large or nests too deep to be followed."""


class Follower:
    """Follows one model.

    Attributes:
        random: the first node that draws random numbers; "" for none.
        varying: the first node whose work depends on values; "" for none.
        bounds: how many entries the table has in which an input is looked up, the smallest of several.
        choices: which branch is taken of those nodes whose branches give too different tensors, by label.
    """

    def __init__(
        self,
        functions: Mapping[tuple[str, str], onnx.FunctionProto],
        choices: Mapping[str, bool] | None = None,
    ) -> None:
        self.choices = choices or {}
        self.random = ""
        self.varying = ""
        self.bounds: dict[str, int] = {}
        self._functions = functions
        self._steps = 0
        self._loops = 0

    def draws(self, node: Node) -> None:
        """Notes that a node draws random numbers."""
        self.random = self.random or node.label

    def varies(self, node: Node) -> None:
        """Notes that the work of a node depends on values."""
        self.varying = self.varying or node.label

    def fork(self, node: Node) -> None:
        """Asks for the graph to be followed twice, once with each branch of this node.

        Raises:
            Fork: it is not within a loop, where another round could take another branch.
        """
        if not self._loops:
            raise Fork(node.label)

    def rounds(self, most: int) -> Iterator[int]:
        """Counts the rounds of a loop."""
        self._loops += 1
        try:
            yield from range(most)
        finally:
            self._loops -= 1

    def looks_up(self, indices: Value, table: Value) -> None:
        """Notes that entries of a table are taken by the integers of a tensor."""
        if indices.source and table.kind is Kind.SAME and table.dims and isinstance(table.dims[0], int):
            self.bounds[indices.source] = min(self.bounds.get(indices.source, table.dims[0]), table.dims[0])

    def graph(self, graph: onnx.GraphProto, node: Node, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a graph within a node.

        Raises:
            Unknown: it takes another number of inputs.
            TooMuch: it nests too deep.
        """
        scope = Scope(node.scope.opsets, node.scope, node.scope.outer, node.scope.depth + 1)
        names = [info.name for info in graph.input]
        if len(names) != len(inputs):
            raise Unknown("has a body with another number of inputs")
        scope.values.update(zip(names, inputs, strict=True))
        self.initialize(graph, scope)
        self.nodes(graph.node, scope, node.label)
        return [scope.find(info.name) for info in graph.output]

    def initialize(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Makes the constants of a graph known in a scope."""
        given = Counter(tensor.name for tensor in graph.initializer)
        for tensor in graph.initializer:
            value = constant(tensor) if given[tensor.name] == 1 else unknown(f"{tensor.name} is given twice")
            scope.values.setdefault(tensor.name, value)
        for sparse in graph.sparse_initializer:
            scope.values.setdefault(sparse.values.name, same(tuple(sparse.dims)))

    def nodes(self, nodes: Sequence[onnx.NodeProto], scope: Scope, around: str = "") -> None:
        """Follows nodes, which are in an order in which they can run.

        Raises:
            TooMuch: there are too many, or they nest too deep.
        """
        if scope.depth > DEEPEST:
            raise TooMuch("it nests too deep")
        for place, each in enumerate(nodes):
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise TooMuch("it has too many nodes")
            node = self._node(each, place, scope, around)
            for name, value in zip(each.output, self._outputs(each, node), strict=True):
                scope.values[name] = value

    def _node(self, each: onnx.NodeProto, place: int, scope: Scope, around: str) -> Node:
        operator = each.op_type if each.domain in PLAIN_DOMAINS else f"{each.domain}.{each.op_type}"
        label = f"node {place} {operator}" + (f" ({each.name})" if each.name else "")
        domain = "" if each.domain == "ai.onnx" else each.domain
        return Node(
            each.op_type,
            f"{around}, in it {label}" if around else label,
            scope.opsets.get(domain, 1),
            [scope.find(name) if name else None for name in each.input],
            Attributes(each.attribute, scope.outer),
            list(each.output),
            self,
            scope,
        )

    def _outputs(self, each: onnx.NodeProto, node: Node) -> list[Value]:
        """What a node gives: one value for each of its outputs."""
        try:
            found = self._followed(each, node)
        except Mixes as how:
            found = mixed(f"{node.label} {how}")
        except Random as why:
            found = unknown(f"{node.label} {why}")
        except Unknown as why:
            found = same(None) if node.is_settled and node.values else unknown(f"{node.label} {why}")
        except Impossible as why:
            raise why if node.label in str(why) else Impossible(f"{node.label} {why}") from why
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            # Its inputs or attributes are not as ONNX has them.
            settled = node.is_settled and node.values
            found = same(None) if settled else unknown(f"{node.label} cannot be followed")
        results = [found] * len(node.outputs) if isinstance(found, Value) else list(found)
        missing = len(node.outputs) - len(results)
        results += [unknown(f"{node.label} has more outputs than expected")] * missing
        asked = any(value.asked for value in node.values)
        source = node.values[0].source if node.values and node.operator in PASSING else ""
        return [_noted(_checked(value, node), asked, source) for value in results[: len(node.outputs)]]

    def _followed(self, each: onnx.NodeProto, node: Node) -> Result:
        function = self._functions.get((each.domain, each.op_type))
        rule = rule_of(each.domain, each.op_type)
        if function is not None and (rule is not None or each.domain in PLAIN_DOMAINS):
            raise Random("is a function, and ONNX Runtime may have an operator of that name")
        if function is not None:
            return self._function(function, node)
        if rule is None or not rule.takes_all:
            for kind in (Kind.MIXED, Kind.UNKNOWN):
                for value in node.values:
                    if value.kind is kind:
                        return replace(value, source="")
        if rule is None:
            raise Random("is not known")
        if node.operator == "Gather":
            self.looks_up(node.value(1), node.value(0))
        return self._by_rule(rule, node)

    def _by_rule(self, rule: Rule, node: Node) -> Result:
        known = folded(node)
        if known is not None:
            return known
        if not rule.takes_all:
            if node.operator not in NUMBERING and any(value.numbers for value in node.values):
                raise Mixes("depends on the place of a row in the batch")
            for place, value in enumerate(node.inputs):
                counted = value is not None and value.kind is Kind.COUNT
                if counted and place not in rule.shapes and -1 not in rule.shapes:
                    raise Mixes("takes the number of rows as a value")
        return rule.follow(node)

    def _function(self, function: onnx.FunctionProto, node: Node) -> list[Value]:
        """The outputs of a function of the model itself."""
        opsets = {
            ("" if entry.domain == "ai.onnx" else entry.domain): entry.version
            for entry in function.opset_import
        }
        defaults = Attributes(function.attribute_proto)
        attributes = {**dict(defaults.items()), **dict(node.attributes.items())}
        scope = Scope(opsets or node.scope.opsets, None, attributes, node.scope.depth + 1)
        for place, name in enumerate(function.input):
            given = node.inputs[place] if place < len(node.inputs) else None
            if given is not None:
                scope.values[name] = given
        self.nodes(function.node, scope, node.label)
        return [scope.find(name) for name in function.output]


def _checked(value: Value, node: Node) -> Value:
    """The value, if the number of rows is the length of the axis of its rows only."""
    lengths = [dim for axis, dim in enumerate(value.dims or ()) if axis != value.axis]
    if any(counts(length) for length in (*lengths, value.outer, value.inner)):
        return unknown(f"{node.label} gives a shape with the number of rows in several places")
    return value


def _noted(value: Value, asked: bool, source: str) -> Value:
    if value.kind is Kind.SAME and asked and not value.asked:
        value = replace(value, asked=True)
    if source and value.kind in (Kind.SAME, Kind.ROWS) and value.source != source:
        value = replace(value, source=source)
    return value
