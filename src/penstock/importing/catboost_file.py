"""CatBoost: model files (.cbm) and pickled models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.core.names import many
from penstock.importing.catboost_categories import CategoryColumns, load_json
from penstock.importing.categories import MOST_EXACT
from penstock.importing.coded_trees import CodedTrees, graph_of
from penstock.importing.errors import Refused
from penstock.importing.labels import as_labels
from penstock.importing.table import Inputs, column, in_order
from penstock.importing.trees import Ensemble, Leaf, Node, Split
from penstock.importing.trees_sklearn import NotCarried, Scored

LINKS = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "sigmoids",
    "MultiLogloss": "sigmoids",
    "MultiCrossEntropy": "sigmoids",
    "Poisson": "exp",
    "Tweedie": "exp",
    "LogLinQuantile": "exp",
}
AS_THEY_ARE = {
    *("RMSE", "MAE", "Quantile", "MultiQuantile", "Expectile", "Huber", "Lq", "MAPE", "MultiRMSE", "LogCosh"),
    *(
        "PairLogit",
        "PairLogitPairwise",
        "YetiRank",
        "YetiRankPairwise",
        "QueryRMSE",
        "QuerySoftMax",
        "StochasticRank",
    ),
}
SEVERAL_LABELS = ("MultiLogloss", "MultiCrossEntropy")


def load(path: Path) -> CatBoost:
    """Loads a .cbm file."""
    import catboost

    model = catboost.CatBoost().load_model(str(path))
    loss = _loss(model)
    known = (
        catboost.CatBoostClassifier()
        if loss in LINKS and LINKS[loss] != "exp"
        else catboost.CatBoostRegressor()
    )
    return CatBoost(known.load_model(str(path)))


def _loss(model: Any) -> str:
    return str(model.get_all_params().get("loss_function", "")).partition(":")[0]


class CatBoost:
    """A model of CatBoost; see `Original`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.title = f"CatBoost {type(model).__name__}"
        self.libraries: Sequence[str] = ["catboost"]
        self._loss = _loss(model)
        self._categories: Sequence[int] = self.model.get_cat_feature_indices()
        self._is_classifier = LINKS.get(self._loss, "exp") != "exp" and hasattr(model, "predict_proba")

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        own = [str(each) for each in self.model.feature_names_]
        names, by_position = in_order(self.title, own, frame)
        if len(names) != len(self.model.feature_names_):
            raise Refused(
                f"{self.title} takes {many(len(self.model.feature_names_), 'column')} "
                f"({', '.join(map(str, self.model.feature_names_))}), the sample has "
                f"{', '.join(frame.columns)}"
            )
        self._names = names
        if self.model.get_text_feature_indices() or self.model.get_embedding_feature_indices():
            raise Refused(
                f"{self.title} with text_features or embedding_features: what it computes of them is not "
                "known; train it on columns of numbers and categories"
            )
        columns = [column(frame, each) for each in names]
        others = [each.name for i, each in enumerate(columns) if each.text and i not in self._categories]
        if others:
            raise Refused(f"{self.title} takes numbers; these columns hold texts: {', '.join(others)}")
        if self._categories and vector:
            raise Refused("--as vector takes no categories; import it with --as columns")
        for each in (columns[i] for i in self._categories):
            if not each.text and frame[each.name].abs().max() > MOST_EXACT:
                raise Refused(
                    f'{self.title}: categories of "{each.name}" are numbers beyond {MOST_EXACT:,}, which '
                    f"FP32 rounds: take them as texts with --text {each.name}"
                )
        self._sample = frame[names].dropna(subset=[names[i] for i in self._categories])
        return Inputs(columns, vector, by_position=by_position)

    def _given(self, frame: Any) -> Any:
        """What it takes of a table."""
        return frame[self._names] if self._categories else frame[self._names].to_numpy(np.float64)

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        values = self._given(frame)
        if not self._is_classifier:
            made = np.asarray(self.model.predict(values, thread_count=1), np.float64)
            return {"prediction": made.reshape(-1, 1) if made.ndim == 1 else made}
        probabilities = np.asarray(self.model.predict_proba(values, thread_count=1))
        if self._loss in SEVERAL_LABELS:
            return {"prediction": probabilities}
        label = np.asarray(self.model.predict(values, thread_count=1)).reshape(len(frame))
        return {"label": as_labels(label), "probabilities": probabilities}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        if self._loss not in LINKS and self._loss not in AS_THEY_ARE:
            raise Refused(
                f"{self.title} with loss_function={self._loss}: what it makes of the sum of its trees is not "
                "known"
            )
        with tempfile.TemporaryDirectory() as folder:
            saved = load_json(self.model, self._sample, self._categories, Path(folder))
        classes = None
        if self._is_classifier and self._loss not in SEVERAL_LABELS:
            try:
                classes = as_labels(self.model.classes_)
            except NotCarried as error:
                raise Refused(f"{self.title} with {error}") from error
        columns = CategoryColumns(
            self.title,
            saved,
            [self._sample[self._names[i]].unique().tolist() for i in self._categories],
        )
        scored = Scored(_ensemble(saved, columns), LINKS.get(self._loss, "identity"))
        return graph_of(CodedTrees(scored, columns.codes, classes, columns.lookups), inputs)


class _Splits:
    """The nodes of splits, as a model's JSON has them."""

    def __init__(self, saved: Mapping[str, Any], columns: CategoryColumns) -> None:
        info = saved["features_info"]
        self._floats = info.get("float_features") or []
        self._columns = columns
        # Splits are numbered: those of numbers, those of single categories, those of statistics.
        before = sum(len(each["borders"] or ()) for each in self._floats)
        before += sum(len(each.get("values") or ()) for each in info.get("categorical_features") or ())
        self._statistics = {
            before + i: place
            for i, place in enumerate(
                place
                for each, place in zip(info.get("ctrs") or (), columns.places, strict=True)
                for _ in each["borders"]
            )
        }

    def node(self, split: Mapping[str, Any], low: Node, high: Node) -> Split:
        """The node of a split, from what follows where it does not hold, and where it does."""
        kind = split.get("split_type", "FloatFeature")
        if kind == "OneHotFeature":
            place, code = self._columns.code(split["cat_feature_index"], split["value"])
            return Split(place, "EQ", code, high, low, False)
        border = float(np.float32(split["border"]))
        if kind == "OnlineCtr":
            return Split(self._statistics[split["split_index"]], "LEQ", border, low, high, False)
        own = self._floats[split["float_feature_index"]]
        to_right = own["nan_value_treatment"] == "AsTrue"
        return Split(own["flat_feature_index"], "LEQ", border, low, high, not to_right)


def _ensemble(saved: Mapping[str, Any], columns: CategoryColumns) -> Ensemble:
    scale, bias = saved["scale_and_bias"]
    splits = _Splits(saved, columns)
    ensemble = Ensemble(len(bias), [float(each) for each in bias])
    for tree in saved.get("oblivious_trees") or ():
        ensemble.trees.append(_oblivious(tree, len(bias), scale, splits))
    for tree in saved.get("trees") or ():
        ensemble.trees.append(_nested(tree, scale, splits))
    return ensemble


def _oblivious(tree: Mapping[str, Any], targets: int, scale: float, splits: _Splits) -> Node:
    """A tree with one question a level; bit i of a leaf's number answers split i."""
    values = np.asarray(tree["leaf_values"], np.float64).reshape(-1, targets) * scale
    nodes: list[Node] = [Leaf(dict(enumerate(row))) for row in values.tolist()]
    for split in tree["splits"] or ():
        nodes = [splits.node(split, nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def _nested(tree: Mapping[str, Any], scale: float, splits: _Splits) -> Node:
    if "split" not in tree:
        value = tree["value"]
        return Leaf({i: each * scale for i, each in enumerate(value if isinstance(value, list) else [value])})
    low, high = (_nested(tree[side], scale, splits) for side in ("left", "right"))
    return splits.node(tree["split"], low, high)
