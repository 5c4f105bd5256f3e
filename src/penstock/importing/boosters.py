"""Boosters of LightGBM and XGBoost without the interface of scikit-learn: one output, `prediction`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.core.names import many
from penstock.importing.coded_trees import CodedTrees, graph_of
from penstock.importing.errors import Refused
from penstock.importing.table import Inputs, column, in_order
from penstock.importing.trees_sklearn import NotCarried


class Booster:
    """A booster; see `Original`."""

    def __init__(
        self, model: Any, title: str, library: str, names: Sequence[str] | None, features: int
    ) -> None:
        self.model, self.title, self.libraries = model, title, [library]
        self._names, self._features = names, features
        self._is_light = library == "lightgbm"

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        names, by_position = in_order(self.title, self._names, frame)
        if len(names) != self._features:
            wanted = f" ({', '.join(self._names[:20])})" if self._names else ""
            raise Refused(
                f"{self.title} takes {many(self._features, 'column')}{wanted}, the sample has {len(names)}: "
                f"{', '.join(names)}"
            )
        columns = [column(frame, each) for each in names]
        texts = [each.name for each in columns if each.text]
        if texts:
            raise Refused(
                f"{self.title} on texts ({', '.join(texts)}): it numbers categories by the table that it was "
                "trained on; encode them with scikit-learn's OrdinalEncoder in a Pipeline"
            )
        self._order = names
        return Inputs(columns, vector, by_position=by_position)

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        values = frame[self._order].to_numpy(np.float64)
        if self._is_light:
            made = self.model.predict(values)
        else:
            import xgboost

            made = self.model.predict(
                xgboost.DMatrix(
                    values, feature_names=self.model.feature_names, feature_types=self.model.feature_types
                )
            )
        array = np.asarray(made, np.float64)
        return {"prediction": array.reshape(-1, 1) if array.ndim == 1 else array}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        from penstock.importing import trees_lightgbm, trees_xgboost

        try:
            read = trees_lightgbm.trees_of if self._is_light else trees_xgboost.trees_of
            scored = read(self.model)
        except NotCarried as error:
            raise Refused(str(error)) from error
        return graph_of(CodedTrees(scored, {}), inputs)


def of_booster(model: Any) -> Booster:
    """The original that a `Booster` of LightGBM or XGBoost is."""
    if type(model).__module__.startswith("lightgbm"):
        return Booster(model, "LightGBM Booster", "lightgbm", model.feature_name(), model.num_feature())
    return Booster(model, "XGBoost Booster", "xgboost", model.feature_names, model.num_features())
