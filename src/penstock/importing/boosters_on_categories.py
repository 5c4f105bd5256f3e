"""Models of LightGBM and XGBoost that were fitted on a table with categories of pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.core.names import many
from penstock.importing import categories as kept
from penstock.importing.coded_trees import CodedTrees, graph_of
from penstock.importing.errors import Refused
from penstock.importing.labels import as_labels
from penstock.importing.table import Inputs, column, in_order
from penstock.importing.trees_sklearn import NotCarried

TITLES = {"lightgbm": "LightGBM", "xgboost": "XGBoost"}


class OnCategories:
    """A booster, or an estimator with one; see `Original`."""

    def __init__(self, model: Any) -> None:
        self.model, self._booster = model, kept.booster_of(model)
        self._library = type(model).__module__.partition(".")[0]
        self.title = f"{TITLES[self._library]} {type(model).__name__}"
        self.libraries: Sequence[str] = [self._library]
        self._is_booster = model is self._booster
        is_light = self._library == "lightgbm"
        names = self._booster.feature_name() if is_light else self._booster.feature_names
        self._own_names: Sequence[str] | None = names
        self._names: Sequence[str] = ()
        found = kept.categories_of(self._booster, self.title)
        self._are_known = found is not None
        self._categories: kept.Categories = found or {}

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        own = self._own_names or columns
        for place, known in self._categories.items():
            if kept.are_texts(known) and place < len(own):
                yield own[place]

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        names, by_position = in_order(self.title, self._own_names, frame)
        count = len(self._own_names or names)
        if len(names) != count:
            raise Refused(
                f"{self.title} takes {many(count, 'column')}, the sample has {len(names)}: {', '.join(names)}"
            )
        if not self._are_known:
            self._categories = kept.of_sample(self._booster, self.title, frame, names)
        if vector:
            raise Refused("--as vector takes no categories; import it with --as columns")
        kept.check(self.title, self._categories, frame, names, self._booster)
        columns = [column(frame, each) for each in names]
        texts = [each.name for i, each in enumerate(columns) if each.text and i not in self._categories]
        if texts:
            raise Refused(f"{self.title} takes numbers and categories; {', '.join(texts)} holds texts")
        self._names = names
        return Inputs(columns, by_position=by_position)

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        if self._library == "xgboost":
            # It takes an unknown category for the next known one in order, or fails where there is none.
            kept.check_known(frame, self._categories, self._names)
        given = kept.as_categories(frame, self._categories, self._names)
        for place, name in enumerate(self._names):
            if place not in self._categories:
                given[name] = given[name].astype(np.float64)
        if self._is_booster and self._library == "xgboost":
            import xgboost

            made = self.model.predict(xgboost.DMatrix(given, enable_categorical=True))
        elif hasattr(self.model, "classes_"):
            label = as_labels(self.model.predict(given))
            return {"label": label, "probabilities": np.asarray(self.model.predict_proba(given))}
        else:
            made = self.model.predict(given)
        array = np.asarray(made, np.float64)
        return {"prediction": array.reshape(-1, 1) if array.ndim == 1 else array}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        from penstock.importing import estimators, trees_lightgbm, trees_xgboost

        try:
            if self._library == "lightgbm":
                scored = trees_lightgbm.trees_of(self._booster)
            elif self._is_booster:
                scored = trees_xgboost.trees_of(self._booster)
            else:
                scored = estimators.of_xgboost(self.model, trees_xgboost.trees_of)
            classes = getattr(self.model, "classes_", None)
            classes = None if classes is None else as_labels(classes)
        except NotCarried as error:
            raise Refused(str(error)) from error
        return graph_of(CodedTrees(scored, kept.codes_of(self._categories), classes), inputs)
