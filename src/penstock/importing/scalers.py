"""Converters of scalers and of the weights of words that compute in FP64, as scikit-learn does.

What comes out is FP32: that is what trees of scikit-learn make of FP64. Computed in FP32 it would be some
units in the last place beside it, and fall on the other side of a threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.importing.tree_operators import Graph


def _as_doubles(graph: Graph, operator: Any) -> str:
    """All inputs as one tensor, FP64 [N, columns]."""
    from onnx import TensorProto

    cast = [graph.node("Cast", [each.full_name], to=TensorProto.DOUBLE) for each in operator.inputs]
    return cast[0] if len(cast) == 1 else graph.node("Concat", cast, axis=1)


def _as_output(graph: Graph, values: str, operator: Any) -> None:
    from onnx import TensorProto

    graph.node("Cast", [values], output=operator.outputs[0].full_name, to=TensorProto.FLOAT)


def convert_scaler(scope: Any, operator: Any, container: Any) -> None:
    """`StandardScaler`, `RobustScaler` and `MaxAbsScaler`: what is subtracted, and what is divided by."""
    model, graph = operator.raw_operator, Graph(scope, container)
    offset = getattr(model, "mean_", None) if getattr(model, "with_mean", False) else None
    if getattr(model, "with_centering", False):
        offset = model.center_
    scale = model.scale_  # None without with_std or with_scaling
    values = _as_doubles(graph, operator)
    if offset is not None:
        values = graph.node("Sub", [values, graph.doubles(offset)], version=14)
    if scale is not None:
        values = graph.node("Div", [values, graph.doubles(scale)], version=14)
    _as_output(graph, values, operator)


def convert_min_max(scope: Any, operator: Any, container: Any) -> None:
    """`MinMaxScaler`."""
    model, graph = operator.raw_operator, Graph(scope, container)
    values = graph.node("Mul", [_as_doubles(graph, operator), graph.doubles(model.scale_)], version=14)
    values = graph.node("Add", [values, graph.doubles(model.min_)], version=14)
    if model.clip:
        low, high = (graph.doubles(float(each)) for each in model.feature_range)
        # A comparison with NaN is false: it stays, as in numpy.
        values = graph.node("Where", [graph.node("Less", [values, low]), low, values], version=16)
        values = graph.node("Where", [graph.node("Greater", [values, high]), high, values], version=16)
    _as_output(graph, values, operator)


def scaler_shape(operator: Any) -> None:
    """The output of a scaler: as many columns as come in."""
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, operator.raw_operator.n_features_in_])


def convert_tfidf(scope: Any, operator: Any, container: Any) -> None:
    """`TfidfTransformer`, and what `TfidfVectorizer` makes of its counts: weights, and their norm."""
    model, graph = operator.raw_operator, Graph(scope, container)
    values = _as_doubles(graph, operator)
    if model.sublinear_tf:
        one = graph.doubles(1.0)
        has_word = graph.node("Greater", [values, graph.doubles(0.0)])
        logarithm = graph.node("Log", [graph.node("Where", [has_word, values, one], version=16)])
        more = graph.node("Add", [logarithm, one], version=14)
        values = graph.node("Where", [has_word, more, values], version=16)
    if model.use_idf:
        values = graph.node("Mul", [values, graph.doubles(np.ravel(model.idf_))], version=14)
    if model.norm is not None:
        values = graph.node("Div", [values, _norm(graph, values, model.norm)], version=14)
    _as_output(graph, values, operator)


def _norm(graph: Graph, values: str, kind: str) -> str:
    """The norm of each row, [N, 1]; 1 for rows without a word."""
    if kind == "max":
        size = graph.node("ReduceMax", [values], axes=[1], keepdims=1)
    elif kind == "l1":
        size = graph.node("ReduceSum", [values, graph.constant([1])], keepdims=1)
    else:
        squares = graph.node("Mul", [values, values], version=14)
        size = graph.node("Sqrt", [graph.node("ReduceSum", [squares, graph.constant([1])], keepdims=1)])
    is_empty = graph.node("Equal", [size, graph.doubles(0.0)])
    return graph.node("Where", [is_empty, graph.doubles(1.0), size], version=16)


def tfidf_shape(operator: Any) -> None:
    """The output of `convert_tfidf`."""
    from skl2onnx.common.data_types import FloatTensorType

    columns = operator.inputs[0].type.shape[1]
    operator.outputs[0].type = FloatTensorType([None, columns])
