"""Converters of scikit-learn's preprocessing that keep missing values, categories by name and Unicode.

A missing text is the empty text: a tensor of texts cannot hold anything else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.importing.tree_operators import Graph
from penstock.importing.trees_sklearn import NotCarried

MISSING_TEXT = ""

WORDS = r"[\p{L}\p{N}_]"
"""What Python's `\\w` is, as the tokenizer of ONNX Runtime writes it: its own `\\w` is ASCII."""


def is_missing(value: object) -> bool:
    """Whether a category or a fill value stands for a missing value."""
    return value is None or value != value or type(value).__name__ == "NAType"  # noqa: PLR0124 - NaN


def _is_text(variable: Any) -> bool:
    return type(variable.type).__name__ == "StringTensorType"


def columns_of(graph: Graph, operator: Any) -> list[tuple[str, bool]]:
    """One variable a column, [N, 1], and whether it holds texts. Numbers are FP32."""
    from onnx import TensorProto

    found = []
    for each in operator.inputs:
        width = each.type.shape[1] if len(each.type.shape) > 1 else 1
        text = _is_text(each)
        name = each.full_name if text else graph.node("Cast", [each.full_name], to=TensorProto.FLOAT)
        for column in range(width):
            single = name
            if width > 1:
                single = graph.node("Gather", [name, graph.constant([column])], axis=1)
            found.append((single, text))
    return found


def convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """`SimpleImputer`, for numbers and for texts."""
    from onnx import TensorProto

    model, graph = operator.raw_operator, Graph(scope, container)
    if not is_missing(model.missing_values):
        raise NotCarried(
            f"SimpleImputer with missing_values={model.missing_values!r}: replace these by NaN before it"
        )
    filled, flags = [], []
    for (name, text), statistic in zip(columns_of(graph, operator), model.statistics_, strict=True):
        value = statistic
        if text:
            absent = graph.node("Equal", [name, graph.constant([[MISSING_TEXT]])], version=19)
            value = MISSING_TEXT if is_missing(value) else str(value)
            other = graph.constant([[value]])
        else:
            absent = graph.node("IsNaN", [name])
            other = graph.constant(np.array([[value]], np.float32))
        flags.append(absent)
        if not (is_missing(value) and not model.keep_empty_features):  # such a column is dropped
            filled.append(graph.node("Where", [absent, other, name]))
    if model.add_indicator:
        chosen = [flags[i] for i in model.indicator_.features_]
        filled += [graph.node("Cast", [each], to=TensorProto.FLOAT) for each in chosen]
    graph.node("Concat", filled, output=operator.outputs[0].full_name, axis=1)


def imputer_shape(operator: Any) -> None:
    """The output of `convert_imputer`."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    model = operator.raw_operator
    kept = sum(not is_missing(each) or model.keep_empty_features for each in model.statistics_)
    kept += len(model.indicator_.features_) if model.add_indicator else 0
    text = _is_text(operator.inputs[0])
    if text and model.add_indicator:
        raise NotCarried(
            "SimpleImputer with add_indicator=True for texts: use MissingIndicator's column in the data"
        )
    operator.outputs[0].type = (StringTensorType if text else FloatTensorType)([None, kept])


def _codes(graph: Graph, name: str, text: bool, categories: Any) -> str:
    """Which categories a column has: booleans [N, categories], as FP32."""
    from onnx import TensorProto

    if text:
        named = [MISSING_TEXT if is_missing(each) else str(each) for each in categories]
        hits = graph.node("Equal", [name, graph.constant([named])], version=19)
        return graph.node("Cast", [hits], to=TensorProto.FLOAT)
    numbers = np.array([[np.nan if is_missing(each) else float(each) for each in categories]], np.float32)
    hits = graph.node("Equal", [name, graph.constant(numbers)])
    hits = graph.node("Cast", [hits], to=TensorProto.FLOAT)
    if np.isnan(numbers).any():
        absent = graph.node("Cast", [graph.node("IsNaN", [name])], to=TensorProto.FLOAT)
        place = graph.constant(np.isnan(numbers).astype(np.float32))
        hits = graph.node("Add", [hits, graph.node("Mul", [absent, place])])
    return hits


def _matrix(model: Any, column: int) -> Any:
    """What a `OneHotEncoder` makes of each category, and last of unknown ones: [categories + 1, outputs]."""
    count = len(model.categories_[column])
    places = np.arange(count)
    mapped = (
        (model._default_to_infrequent_mappings or [None] * (column + 1))[column]
        if model._infrequent_enabled
        else None
    )
    if mapped is not None:
        places = np.asarray(mapped)
    width = int(places.max()) + 1
    matrix = np.zeros((count + 1, width), np.float32)
    matrix[np.arange(count), places] = 1
    if model.handle_unknown == "infrequent_if_exist" and mapped is not None:
        matrix[count, width - 1] = 1
    dropped = model.drop_idx_[column] if model.drop_idx_ is not None else None
    return matrix if dropped is None else np.delete(matrix, int(dropped), axis=1)


def convert_one_hot(scope: Any, operator: Any, container: Any) -> None:
    """`OneHotEncoder`: categories by name, missing ones, unknown ones, infrequent ones, dropped ones."""
    model, graph = operator.raw_operator, Graph(scope, container)
    made = []
    for i, (name, text) in enumerate(columns_of(graph, operator)):
        hits = _codes(graph, name, text, model.categories_[i])
        matrix = _matrix(model, i)
        known, unknown = matrix[:-1], matrix[-1:]
        out = hits
        if known.shape[0] != known.shape[1] or not np.array_equal(known, np.eye(len(known))):
            out = graph.node("MatMul", [hits, graph.constant(known)])
        if unknown.any():
            found = graph.node("ReduceSum", [hits, graph.constant([1])], keepdims=1)
            absent = graph.node("Sub", [graph.constant(np.float32(1)), found])
            out = graph.node("Add", [out, graph.node("Mul", [absent, graph.constant(unknown)])])
        made.append(out)
    graph.node("Concat", made, output=operator.outputs[0].full_name, axis=1)


def one_hot_shape(operator: Any) -> None:
    """The output of `convert_one_hot`."""
    from skl2onnx.common.data_types import FloatTensorType

    model = operator.raw_operator
    width = sum(_matrix(model, i).shape[1] for i in range(len(model.categories_)))
    operator.outputs[0].type = FloatTensorType([None, width])


def convert_ordinal(scope: Any, operator: Any, container: Any) -> None:
    """`OrdinalEncoder`: a number a category, and those for missing and unknown ones."""
    model, graph = operator.raw_operator, Graph(scope, container)
    if getattr(model, "_infrequent_enabled", False):
        raise NotCarried("OrdinalEncoder with min_frequency or max_categories: set neither")
    unknown = model.unknown_value if model.handle_unknown == "use_encoded_value" else np.nan
    made = []
    for i, (name, text) in enumerate(columns_of(graph, operator)):
        categories = model.categories_[i]
        hits = _codes(graph, name, text, categories)
        numbers = np.arange(len(categories), dtype=np.float32)
        # None is a category like others; only NaN has a code of its own.
        absent = np.array([is_missing(each) and each is not None for each in categories])
        places = np.where(absent, 0, numbers)
        code = graph.node("MatMul", [hits, graph.constant(places.reshape(-1, 1).astype(np.float32))])
        known = graph.node("ReduceSum", [hits, graph.constant([1])], keepdims=1)
        is_known = graph.node("Greater", [known, graph.constant(np.float32(0.5))])
        code = graph.node("Where", [is_known, code, graph.constant(np.array([[unknown]], np.float32))])
        if absent.any():
            place = int(absent.argmax())
            missing = graph.node("Gather", [hits, graph.constant([place])], axis=1)
            missing = graph.node("Greater", [missing, graph.constant(np.float32(0.5))])
            value = graph.constant(np.array([[model.encoded_missing_value]], np.float32))
            code = graph.node("Where", [missing, value, code])
        made.append(code)
    graph.node("Concat", made, output=operator.outputs[0].full_name, axis=1)


def ordinal_shape(operator: Any) -> None:
    """The output of `convert_ordinal`."""
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, len(operator.raw_operator.categories_)])


DEFAULT_TOKENS = r"(?u)\b\w\w+\b"


def token_options(model: Any) -> dict[str, Any]:
    """The options of skl2onnx for a text vectorizer: tokens as Python finds them.

    Raises:
        NotCarried: a setting is not converted.
    """
    for setting in ("preprocessor", "tokenizer"):
        if getattr(model, setting) is not None:
            raise NotCarried(
                f"{type(model).__name__} with {setting}=…: Python code is not converted; set token_pattern"
            )
    if model.strip_accents:
        raise NotCarried(
            f"{type(model).__name__} with strip_accents: take accents off the texts before they are sent"
        )
    if model.analyzer != "word":
        raise NotCarried(f"{type(model).__name__} with analyzer={model.analyzer!r}: use analyzer='word'")
    pattern = model.token_pattern
    if pattern == DEFAULT_TOKENS:
        return {"tokenexp": WORDS + WORDS + "+", "separators": None}
    if pattern in (r"(?u)\b\w+\b", r"\b\w+\b", r"\w+"):
        return {"tokenexp": WORDS + "+", "separators": None}
    raise NotCarried(f"{type(model).__name__} with token_pattern={pattern!r}: use the default or \\b\\w+\\b")
