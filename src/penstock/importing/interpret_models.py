"""Explainable boosting machines of InterpretML: each term is a table, and a table is a tree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.importing.coded_trees import CodedTrees, Codes, graph_of
from penstock.importing.errors import LacksColumns, Refused
from penstock.importing.labels import as_labels
from penstock.importing.table import Inputs, column
from penstock.importing.trees import Ensemble, Leaf, Node, Split
from penstock.importing.trees_sklearn import Scored

LINKS = {"identity": "identity", "log": "exp", "logit": "sigmoid", "mlogit": "softmax"}


class Explainable:
    """An explainable boosting machine; see `Original`."""

    def __init__(self, model: Any) -> None:
        if not hasattr(model, "term_scores_"):
            raise Refused(
                f"InterpretML {type(model).__name__}: only explainable boosting machines can be imported"
            )
        self.model = model
        self.title = f"InterpretML {type(model).__name__}"
        self.libraries: Sequence[str] = ["interpret-core"]

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        # Numbers are categories by their shortest form: all others are texts.
        for name, levels in zip(self.model.feature_names_in_, self.model.bins_, strict=True):
            if isinstance(levels[0], dict) and not all(_is_number(each) for each in levels[0]):
                yield str(name)

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        names = [str(each) for each in self.model.feature_names_in_]
        if missing := [each for each in names if each not in frame.columns]:
            raise LacksColumns(f"the sample lacks columns of the model: {', '.join(missing)}", missing)
        self._names = names
        columns = [column(frame, each) for each in names]
        if vector and (texts := [each.name for each in columns if each.text]):
            raise Refused(f"--as vector takes numbers only; these columns hold texts: {', '.join(texts)}")
        return Inputs(columns, vector)

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        given = frame[self._names]
        if not hasattr(self.model, "classes_"):
            return {"prediction": np.asarray(self.model.predict(given), np.float64).reshape(-1, 1)}
        label = as_labels(self.model.predict(given))
        return {"label": label, "probabilities": np.asarray(self.model.predict_proba(given))}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        model = self.model
        link = getattr(model, "link_", "identity")
        if link not in LINKS:
            raise Refused(f"{self.title} with link={link}: it is not known")
        intercept = np.atleast_1d(np.asarray(model.intercept_, np.float64))
        ensemble = Ensemble(len(intercept), intercept.tolist())
        codes = {
            i: _codes(levels[0], inputs.columns[i].text)
            for i, levels in enumerate(model.bins_)
            if isinstance(levels[0], dict)
        }
        for features, scores in zip(model.term_features_, model.term_scores_, strict=True):
            table = np.asarray(scores, np.float64)
            if len(intercept) == 1 and table.ndim == len(features):
                table = table[..., np.newaxis]
            bins = [model.bins_[each][min(len(features), len(model.bins_[each])) - 1] for each in features]
            ensemble.trees.append(_tree(features, bins, table, codes))
        if inputs.vector and codes:
            raise Refused("--as vector takes no categories; import it with --as columns")
        classes = getattr(model, "classes_", None)
        return graph_of(CodedTrees(Scored(ensemble, LINKS[link]), codes, classes), inputs)


def _codes(places: Mapping[str, int], text: bool) -> Codes:
    numbers: dict[str | float, float] = {}
    for name, place in places.items():
        try:
            numbers[name if text else float(name)] = float(place)
        except ValueError:
            continue  # a text among numbers: no request has it
    return Codes(numbers, float(max(places.values(), default=0) + 1), 0.0)


def _tree(features: Sequence[int], bins: Sequence[Any], table: Any, codes: Mapping[int, Codes]) -> Node:
    """A term: its first feature finds a part of the table, and the others what is in it."""
    if not features:
        return Leaf(dict(enumerate(table.tolist())))
    feature, cuts = features[0], bins[0]
    parts = [_tree(features[1:], bins[1:], part, codes) for part in table]
    if isinstance(cuts, dict):
        # Codes are the places of the level of main terms; those of interactions may be coarser.
        own = codes[feature].numbers
        edges, order = [], [0]
        by_code = {own.get(name, own.get(_number(name), -1.0)): place for name, place in cuts.items()}
        for code, place in sorted(by_code.items()):
            edges.append(code - 0.5)
            order.append(place)
        edges.append(codes[feature].unknown - 0.5)
        order.append(len(parts) - 1)
        return _searched(feature, edges, [parts[each] for each in order])
    # The first part is of missing values, the last of unknown ones.
    known = _searched(feature, [float(each) for each in cuts], parts[1:-1])
    return Split(feature, "LT", -math.inf, parts[0], known, True)


def _is_number(name: str) -> bool:
    """Whether a category is what a number is as a text."""
    number = _number(name)
    return name in (str(number), str(int(number)) if math.isfinite(number) else "")


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan


def _searched(feature: int, cuts: Sequence[float], parts: Sequence[Node]) -> Node:
    """A search tree: part i is that of values from cut i - 1 up to below cut i."""
    if not cuts:
        return parts[0]
    middle = len(cuts) // 2
    low = _searched(feature, cuts[:middle], parts[: middle + 1])
    high = _searched(feature, cuts[middle + 1 :], parts[middle + 1 :])
    return Split(feature, "LT", cuts[middle], low, high, False)
