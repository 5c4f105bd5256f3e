"""Operators of ai.onnx.ml: trees, linear models, encoders. Rows are the first axis of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.models.analysis.expressions import Dim, product
from penstock.models.analysis.layout import common_layout
from penstock.models.analysis.node import Mixes, Node, Result, Rule, Unknown
from penstock.models.analysis.values import Value, like, rows, same

TABLE = "the rows are the first axis of a table"
ALWAYS = "always"


def _table(node: Node) -> Value:
    """The only input: a table, or columns of one row."""
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    if data.has_rows and rank == 1:
        raise Unknown("takes a list of rows for the columns of one row")
    if data.has_rows and data.axis != 0:
        raise Mixes("takes rows for columns")
    return data


def _predict(node: Node) -> Result:
    """A label or a value a row, and scores."""
    data = _table(node)
    if not data.has_rows:
        return [same(None), same(None)]
    count = node.get("n_targets") or node.get("targets") or 0
    scores = like(data, [1, count or node.fresh(1, 1)], 0)
    if node.operator.endswith("Classifier"):
        return [like(data, [1], 0), scores]
    return [scores]


def _columns(node: Node) -> Result:
    """Column by column, with the same number of columns."""
    data = _table(node)
    return replace(data, data=None, filler=False, source="")


def _each(node: Node) -> Result:
    node.rank(0)
    return replace(node.value(0), data=None, numbers=False, source="")


def _one_hot(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    count = len(node.get("cats_int64s") or node.get("cats_strings") or [])
    lengths: list[Dim] = [*dims, count or node.fresh(len(dims))]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _extract(node: Node) -> Result:
    """Columns of the last axis of X, by places Y, which may be of any shape."""
    data, places = node.value(0), node.value(1)
    dims, indices = node.dims(0), node.dims(1)
    count = product(list(indices))
    ahead: list[Dim] = list(dims[:-1]) or [1]
    lengths = [*ahead, count]
    if data.has_rows and places.has_rows:
        raise Mixes("takes columns of every row by places of every row")
    if data.has_rows:
        if data.axis == len(dims) - 1:
            raise Mixes("takes rows by their place in the batch")
        return like(data, lengths, data.axis)
    if places.has_rows:
        outer = product(list(indices[: places.axis])) * places.outer
        inner = places.inner * product(list(indices[places.axis + 1 :]))
        return rows(lengths, len(lengths) - 1, outer, inner)
    return same(lengths)


def _vectorize(node: Node) -> Result:
    values = node.values
    placed = [value for value in values if value.has_rows]
    if not placed:
        return same(None)
    if len(placed) < len(values) or any(value.axis != 0 or len(value.dims or ()) != 2 for value in placed):
        raise Unknown("needs tables of rows")
    total: Dim = 0
    for value in placed:
        total = total + (value.dims or (0, 0))[1]
    return like(common_layout(placed), [1, total], 0)


def _tf_idf(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    if not data.has_rows:
        return same(None)
    if rank != 2 or data.axis != 0:
        raise Mixes("takes the rows for the words of one text")
    return like(data, [1, node.fresh(1)], 0)


def _zip(node: Node) -> Result:
    data = _table(node)
    return like(data, [1], 0) if data.has_rows else same(None)


MODELS = [
    "LinearClassifier",
    "LinearRegressor",
    "SVMClassifier",
    "SVMRegressor",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
]

RULES: Mapping[str, Rule] = {
    **{name: Rule(_predict, TABLE) for name in MODELS},
    **{name: Rule(_columns, TABLE) for name in ("Scaler", "Imputer", "Normalizer")},
    **{name: Rule(_each, ALWAYS) for name in ("LabelEncoder", "CategoryMapper", "Binarizer")},
    "OneHotEncoder": Rule(_one_hot, ALWAYS),
    "ArrayFeatureExtractor": Rule(
        _extract, "it takes columns of rows, or rows say which columns of a constant"
    ),
    "FeatureVectorizer": Rule(_vectorize, "all inputs are tables of rows"),
    "ZipMap": Rule(_zip, TABLE),
}

TEXT_RULES: Mapping[str, Rule] = {"TfIdfVectorizer": Rule(_tf_idf, TABLE)}
"""Of the standard operator set."""
