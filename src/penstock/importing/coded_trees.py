"""Graphs of trees alone, for models that skl2onnx does not know; texts become numbers first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.encoders import MISSING_TEXT, columns_of
from penstock.importing.graph_ends import TARGET_OPSET, finished
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


class Condition(NamedTuple):
    """Whether a column is greater than a number, or is one category.

    Attributes:
        column: its place.
        threshold: the number, or the number of the category.
        is_equal: whether it is compared with a category.
        missing: what a missing value is.
    """

    column: int
    threshold: float
    is_equal: bool
    missing: bool = False


class Lookup(NamedTuple):
    """Columns that are looked up in a table, with categories and conditions.

    Attributes:
        columns: the places of the columns whose categories count, each with the number of its codes.
        conditions: what counts besides, 0 or 1 each.
        table: the looked-up values, FP32 [entries, width]. The entry's number has the first column as its
            most significant digit and the last condition as its least.
    """

    columns: Sequence[tuple[int, int]]
    conditions: Sequence[Condition]
    table: Any


class CodedTrees:
    """What skl2onnx takes for an estimator.

    Args:
        scored: the trees.
        codes: of the columns that hold categories, by their place.
        classes: of a classifier; None for numbers.
        lookups: features after those of the columns.
    """

    def __init__(
        self,
        scored: Scored,
        codes: Mapping[int, Codes],
        classes: Any = None,
        lookups: Sequence[Lookup] = (),
    ) -> None:
        self.scored, self.codes, self.classes, self.lookups = scored, codes, classes, lookups
        self.width = 1 if scored.linear else scored.ensemble.targets

    def fit(self) -> None:
        """It is fitted."""


def graph_of(trees: CodedTrees, inputs: Inputs) -> Any:
    """The finished graph: `prediction`, or `label` and `probabilities`."""
    from skl2onnx import to_onnx, update_registered_converter
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

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
        looked_up = [_looked_up(graph, coded, each) for each in model.lookups]
        features = graph.node("Concat", [*coded, *looked_up], axis=1)
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


def _looked_up(graph: Graph, columns: Sequence[str], lookup: Lookup) -> str:
    """The columns of a lookup, FP32 [N, width]."""
    from onnx import TensorProto

    digits = [(columns[place], count) for place, count in lookup.columns]
    digits += [(_condition(graph, columns[each.column], each), 2) for each in lookup.conditions]
    number, stride = "", 1
    for digit, count in reversed(digits):  # whole numbers, far below those that FP32 rounds
        term = (
            digit
            if stride == 1
            else graph.node("Mul", [digit, graph.constant(np.float32(stride))], version=14)
        )
        number = graph.node("Add", [number, term], version=14) if number else term
        stride *= count
    entry = graph.node("Cast", [number], to=TensorProto.INT64)
    found = graph.node("Gather", [graph.constant(lookup.table), entry], axis=0)  # [N, 1, width]
    return graph.node("Reshape", [found, graph.constant([0, lookup.table.shape[1]])], version=14)


def _condition(graph: Graph, name: str, condition: Condition) -> str:
    """0 or 1, FP32 [N, 1]."""
    from onnx import TensorProto

    threshold = graph.constant(np.float32(condition.threshold))
    holds = graph.node("Equal" if condition.is_equal else "Greater", [name, threshold])
    if condition.missing:
        holds = graph.node("Or", [holds, graph.node("IsNaN", [name])], version=7)
    return graph.node("Cast", [holds], to=TensorProto.FLOAT)
