"""CatBoost: model files (.cbm) and pickled models."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
                f"{self.title} takes {len(self.model.feature_names_)} columns "
                f"({', '.join(map(str, self.model.feature_names_))}), the sample has "
                f"{', '.join(frame.columns)}"
            )
        self._names = names
        if self.model.get_cat_feature_indices() or self.model.get_text_feature_indices():
            raise Refused(
                f"{self.title} with cat_features or text_features: CatBoost makes statistics of the training "
                "data of them (CTR), which ONNX cannot carry; encode categories with scikit-learn's "
                "OrdinalEncoder or OneHotEncoder in a Pipeline"
            )
        columns = [column(frame, each) for each in names]
        if texts := [each.name for each in columns if each.text]:
            raise Refused(f"{self.title} takes numbers; these columns hold texts: {', '.join(texts)}")
        return Inputs(columns, vector, by_position=by_position)

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        values = frame[self._names].to_numpy(np.float64)
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
            path = Path(folder) / "model.json"
            self.model.save_model(str(path), format="json")
            saved = json.loads(path.read_text(encoding="utf-8"))
        classes = None
        if self._is_classifier and self._loss not in SEVERAL_LABELS:
            try:
                classes = as_labels(self.model.classes_)
            except NotCarried as error:
                raise Refused(f"{self.title} with {error}") from error
        scored = Scored(_ensemble(saved), LINKS.get(self._loss, "identity"))
        return graph_of(CodedTrees(scored, {}, classes), inputs)


def _ensemble(saved: Mapping[str, Any]) -> Ensemble:
    scale, bias = saved["scale_and_bias"]
    floats = saved["features_info"]["float_features"]
    places = [each["flat_feature_index"] for each in floats]
    to_right = [each["nan_value_treatment"] == "AsTrue" for each in floats]
    ensemble = Ensemble(len(bias), [float(each) for each in bias])
    for tree in saved.get("oblivious_trees") or ():
        ensemble.trees.append(_oblivious(tree, len(bias), scale, places, to_right))
    for tree in saved.get("trees") or ():
        ensemble.trees.append(_nested(tree, scale, places, to_right))
    return ensemble


def _split(
    split: Mapping[str, Any], low: Node, high: Node, places: Sequence[int], to_right: Sequence[bool]
) -> Split:
    feature = split["float_feature_index"]
    border = float(np.float32(split["border"]))
    return Split(places[feature], "LEQ", border, low, high, not to_right[feature])


def _oblivious(
    tree: Mapping[str, Any], targets: int, scale: float, places: Sequence[int], to_right: Sequence[bool]
) -> Node:
    """A tree with one question a level; bit i of a leaf's number answers split i."""
    values = np.asarray(tree["leaf_values"], np.float64).reshape(-1, targets) * scale
    nodes: list[Node] = [Leaf(dict(enumerate(row))) for row in values.tolist()]
    for split in tree["splits"] or ():
        nodes = [_split(split, nodes[i], nodes[i + 1], places, to_right) for i in range(0, len(nodes), 2)]
    return nodes[0]


def _nested(tree: Mapping[str, Any], scale: float, places: Sequence[int], to_right: Sequence[bool]) -> Node:
    if "split" not in tree:
        value = tree["value"]
        return Leaf({i: each * scale for i, each in enumerate(value if isinstance(value, list) else [value])})
    low, high = (_nested(tree[side], scale, places, to_right) for side in ("left", "right"))
    return _split(tree["split"], low, high, places, to_right)
