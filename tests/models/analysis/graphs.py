"""Makes small graphs for the analysis, in ONNX's own text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import parser

from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.analysis.proof import analyse_model

ROW_WISE, MIXES, UNKNOWN = Verdict.ROW_WISE, Verdict.MIXES, Verdict.UNKNOWN


def model(text: str, opset: int = 20, functions: str = "") -> onnx.ModelProto:
    """A model of one graph, such as `g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }`."""
    imports = f'"": {opset}, "ai.onnx.ml": 3, "com.microsoft": 1, "own": 1'
    return parser.parse_model(f"<ir_version: 9, opset_import: [{imports}]> {text} {functions}")


def facts(
    text: str,
    axes: Mapping[str, int | None] | Sequence[int] | None = None,
    *,
    opset: int = 20,
    functions: str = "",
) -> GraphFacts:
    """What the analysis says of a graph; rows are the first axis of each input if `axes` does not say."""
    made = model(text, opset, functions)
    if not isinstance(axes, Mapping):
        axes = {info.name: 0 for info in made.graph.input}
    return analyse_model(made, axes)


def of_nodes(
    nodes: str, inputs: str = "float[N,4] x", axes: Mapping[str, int | None] | None = None, opset: int = 20
) -> GraphFacts:
    """What the analysis says of nodes that make y."""
    return facts(f"g ({inputs}) => (float[M,K] y) {{ {nodes} }}", axes, opset=opset)
