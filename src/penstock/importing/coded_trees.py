"""Graphs of trees alone, for models that skl2onnx does not know; texts become numbers first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.encoders import MISSING_TEXT, columns_of
from penstock.importing.graph_ends import finished
from penstock.importing.labels import as_labels
from penstock.importing.table import VECTOR, Inputs
from penstock.importing.tree_operators import Graph
from penstock.importing.trees_sklearn import Scored

ALIAS = "PenstockCodedTrees"


class Codes(NamedTuple):
    """The numbers of the categories of a column.

    Attributes:
        numbers: of each text, or of each number.
        unknown: of all others.
        missing: of a missing one.
    """

    numbers: Mapping[str | float, float]
    unknown: float
    missing: float


class CodedTrees:
    """What skl2onnx takes for an estimator.

    Args:
        scored: the trees.
        codes: of the columns that hold categories, by their place.
        classes: of a classifier; None for numbers.
    """

    def __init__(self, scored: Scored, codes: Mapping[int, Codes], classes: Any = None) -> None:
        self.scored, self.codes, self.classes = scored, codes, classes
        self.width = 1 if scored.linear else scored.ensemble.targets

    def fit(self) -> None:
        """It is fitted."""


def graph_of(trees: CodedTrees, inputs: Inputs) -> Any:
    """The finished graph: `prediction`, or `label` and `probabilities`."""
    from skl2onnx import to_onnx, update_registered_converter
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    from penstock.importing.scikit_learn import TARGET_OPSET

    update_registered_converter(
        CodedTrees, ALIAS, lambda operator: None, _convert, overwrite=True, parser=_parse
    )
    if trees.codes:
        kinds = [
            (each.name, (StringTensorType if each.text else FloatTensorType)([None, 1]))
            for each in inputs.columns
        ]
    else:
        kinds = [(VECTOR, FloatTensorType([None, len(inputs.columns)]))]
    made = to_onnx(trees, initial_types=kinds, target_opset=TARGET_OPSET)
    return finished(made, inputs, ["prediction"] if trees.classes is None else ["label", "probabilities"])


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    operator = scope.declare_local_operator(ALIAS, model)
    operator.inputs = inputs
    if model.classes is None:
        kinds = [("variable", FloatTensorType([None, model.width]))]
    else:
        classes = as_labels(model.classes)
        of_label = StringTensorType if classes.dtype.kind == "O" else Int64TensorType
        kinds = [("label", of_label([None])), ("probabilities", FloatTensorType([None, len(classes)]))]
    for name, kind in kinds:
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _convert(scope: Any, operator: Any, container: Any) -> None:
    model, graph = operator.raw_operator, Graph(scope, container)
    outputs = [each.full_name for each in operator.outputs]
    features = operator.inputs[0].full_name
    if model.codes:
        coded = [
            _coded(graph, name, model.codes.get(i), text)
            for i, (name, text) in enumerate(columns_of(graph, operator))
        ]
        features = graph.node("Concat", coded, axis=1)
    scores = graph.scores(features, model.scored)
    if model.classes is None:
        graph.node("Identity", [scores], output=outputs[0])
    else:
        graph.classes(scores, as_labels(model.classes), outputs)


def _coded(graph: Graph, name: str, codes: Codes | None, text: bool) -> str:
    """A column as numbers, FP32 [N, 1]."""
    from onnx import TensorProto

    if codes is None:
        return name
    keys: Sequence[Any] = [each for each in codes.numbers if text == isinstance(each, str)]
    key_row = [[str(each) for each in keys]] if text else np.array([keys], np.float32)
    hits = graph.node("Equal", [name, graph.constant(key_row)], version=19)
    hits = graph.node("Cast", [hits], to=TensorProto.FLOAT)
    column = np.array([[codes.numbers[each]] for each in keys], np.float32)
    code = graph.node("MatMul", [hits, graph.constant(column)])
    known = graph.node("ReduceSum", [hits, graph.constant([1])], keepdims=1)
    is_known = graph.node("Greater", [known, graph.constant(np.float32(0.5))])
    code = graph.node("Where", [is_known, code, graph.constant(np.array([[codes.unknown]], np.float32))])
    if text:
        absent = graph.node("Equal", [name, graph.constant([[MISSING_TEXT]])], version=19)
    else:
        absent = graph.node("IsNaN", [name])
    return graph.node("Where", [absent, graph.constant(np.array([[codes.missing]], np.float32)), code])
