"""What the analysis of a graph finds out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """Whether each row of the outputs depends on its own row of the inputs only."""

    ROW_WISE = "row-wise"
    MIXES = "mixes"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph says about its rows.

    Attributes:
        verdict: whether rows run together affect each other.
        reason: the node that decides a verdict other than row-wise, and how, such as "node 17
            DynamicQuantizeLinear takes one scale over the whole batch"; "" if the graph is row-wise.
        output_axes: the axis of each output along which its rows lie, as far as it was found.
        random_node: the first node that draws random numbers, such as "node 3 RandomNormal"; "" for none.
        varying_node: the first node whose work depends on values, such as a Loop; "" for none.
        unbounded_node: the first node whose work is not bounded by the shapes of inputs, such as a Loop that
            runs as often as an input says; "" for none.
        index_bounds: for each integer input whose values are looked up in a constant table, how many entries
            the table has.
    """

    verdict: Verdict = Verdict.UNKNOWN
    reason: str = "the graph was not analysed"
    output_axes: Mapping[str, int] = field(default_factory=dict)
    random_node: str = ""
    varying_node: str = ""
    unbounded_node: str = ""
    index_bounds: Mapping[str, int] = field(default_factory=dict)


NOT_ANALYSED = GraphFacts()
"""The facts of a model whose graph was not read."""
