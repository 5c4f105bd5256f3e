"""Finds a node whose work is not bounded by the shapes of the inputs, but depends on their values.

A loop that runs as often as an input says is such a node, and so is one that makes a tensor as large as an
input says. How long such a model takes cannot be estimated from earlier runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

DATA, LENGTH = 1, 2
"""What depends on the values of inputs: a tensor's own values; its shape."""

SIZES: Mapping[str, Sequence[int]] = {
    "Range": (0, 1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Pad": (1,),
    "OneHot": (1,),
    "CenterCropPad": (1,),
    "AffineGrid": (1,),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "DFT": (1,),
    "STFT": (1, 3),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "BlackmanWindow": (0,),
    "MelWeightMatrix": (0, 1, 2),
}
"""Operators that make a tensor of a size that is given as a value, and the inputs that give it."""

OWN_LENGTHS = frozenset(
    {"NonZero", "Unique", "NonMaxSuppression", "Compress", "StringNormalizer", "StringSplit"}
)
SEARCHES = frozenset({"BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"})
STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

MOST_NODES = 200_000
DEEPEST = 60
ALIKE_TIMES, ALIKE_MORE = 4, 16
"""Branches of an If are alike if one is at most this many times as much as the other, and this much more."""
ELEMENTS_A_NODE = 4096
"""This many elements of constants weigh as much as a node."""


class _Found(Exception):
    """A node was found; its label is the text."""


def unbounded_node(model: onnx.ModelProto) -> str:
    """The first node whose work is not bounded by the shapes of the inputs; "" if there is none.

    Args:
        model: the model; values of large tensors may be missing.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    values = {info.name: DATA for info in model.graph.input if info.name not in constants}
    search = _Search({(each.domain, each.name): each for each in model.functions})
    try:
        search.nodes(model.graph.node, values, "", 0)
    except _Found as node:
        return str(node)
    return ""


class _Search:
    """Looks through the nodes of a model.

    Args:
        functions: the model's own functions, by domain and name.
    """

    def __init__(self, functions: Mapping[tuple[str, str], onnx.FunctionProto]) -> None:
        self._functions = functions
        self._left = MOST_NODES

    def nodes(self, nodes: Sequence[onnx.NodeProto], values: dict[str, int], around: str, depth: int) -> None:
        """Looks through nodes in an order in which they can run, and adds their outputs to `values`.

        Raises:
            _Found: one is not bounded, or there are too many to look through.
        """
        if depth > DEEPEST:
            raise _Found("the graph, which nests too deep to be looked through,")
        for place, node in enumerate(nodes):
            self._left -= 1
            if self._left < 0:
                raise _Found("the graph, which is too large to be looked through,")
            label = f"node {place} {node.op_type}" + (f" ({node.name})" if node.name else "")
            label = f"{around}, in it {label}" if around else label
            found = self._node(node, [values.get(name, 0) for name in node.input], values, label, depth)
            values.update(dict.fromkeys(filter(None, node.output), found))

    def _node(
        self, node: onnx.NodeProto, inputs: Sequence[int], values: dict[str, int], label: str, depth: int
    ) -> int:
        """What of the outputs of a node depends on values."""
        merged = 0
        for each in inputs:
            merged |= each
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            given = dict(zip(function.input, inputs, strict=False))
            self.nodes(function.node, given, label, depth + 1)
            return _of(function.output, given) | merged
        graphs = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
        if graphs:
            return merged | self._with_graphs(node, graphs, inputs, values, label, depth)
        operator, is_standard = node.op_type, node.domain in STANDARD_DOMAINS
        if operator in ("Shape", "Size") and is_standard:
            return DATA if merged & LENGTH else 0
        if operator in SEARCHES or any(
            place < len(inputs) and inputs[place] & DATA for place in SIZES.get(operator, ())
        ):
            raise _Found(label)
        if merged and (operator in OWN_LENGTHS or not is_standard):
            return DATA | LENGTH
        return merged

    def _with_graphs(  # noqa: PLR0913 - a node, and where it is
        self,
        node: onnx.NodeProto,
        graphs: Sequence[onnx.GraphProto],
        inputs: Sequence[int],
        values: dict[str, int],
        label: str,
        depth: int,
    ) -> int:
        """The same for a node with graphs of its own: If, Loop, Scan, SequenceMap."""
        by_values = bool(inputs and inputs[0] & DATA)
        if node.op_type == "If" and by_values and not _are_alike(graphs):
            raise _Found(label)
        if node.op_type == "Loop" and (by_values or (len(inputs) > 1 and inputs[1] & DATA)):
            raise _Found(label)
        result = DATA if node.op_type == "If" and by_values else 0
        for graph in graphs:
            states = list(inputs) if node.op_type != "If" else []
            states += [0] * (len(graph.input) - len(states))
            if node.op_type == "Loop":
                states[:2] = [0, 0]
            for _ in range(2):  # what the first round leads to, the second one begins with
                inner = {**values, **_of_graph(graph, states)}
                self.nodes(graph.node, inner, label, depth + 1)
                outputs = [inner.get(info.name, 0) for info in graph.output]
                if node.op_type == "Loop" and outputs and outputs[0] & DATA:
                    raise _Found(label)
                shift = 1 if node.op_type == "Loop" else 0
                for place, state in enumerate(outputs):
                    if place + shift < len(states):
                        states[place + shift] |= state
            for state in outputs:
                result |= state
        return result


def _of_graph(graph: onnx.GraphProto, states: Sequence[int]) -> dict[str, int]:
    """The values of a graph before its nodes have run."""
    constants = dict.fromkeys([tensor.name for tensor in graph.initializer], 0)
    return {**constants, **dict(zip([info.name for info in graph.input], states, strict=False))}


def _of(names: Sequence[str], values: Mapping[str, int]) -> int:
    merged = 0
    for name in names:
        merged |= values.get(name, 0)
    return merged


def _are_alike(branches: Sequence[onnx.GraphProto]) -> bool:
    """Whether it matters little for the work which branch is taken."""
    weights = [_weight(each, 0) for each in branches]
    return max(weights) <= ALIKE_TIMES * min(weights) + ALIKE_MORE


def _weight(graph: onnx.GraphProto, depth: int) -> int:
    """How much work a graph is: its nodes, and its constants by their size."""
    weight = len(graph.node)
    for tensor in graph.initializer:
        weight += _elements(tensor) // ELEMENTS_A_NODE
    for node in graph.node if depth < DEEPEST else ():
        for each in node.attribute:
            if each.type == onnx.AttributeProto.GRAPH:
                weight += _weight(each.g, depth + 1)
            elif each.type == onnx.AttributeProto.TENSOR:
                weight += _elements(each.t) // ELEMENTS_A_NODE
    return weight


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for length in tensor.dims:
        count *= length
    return count
