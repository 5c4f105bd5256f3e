"""Boosters of LightGBM and XGBoost without the interface of scikit-learn: one output, `prediction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.importing.errors import Refused
from penstock.importing.graph_ends import finished
from penstock.importing.table import VECTOR, Inputs, column
from penstock.importing.trees_sklearn import NotCarried, Scored


class RawTrees:
    """A stand-in estimator for skl2onnx.

    Args:
        scored: the trees.
        features: the number of columns.
    """

    def __init__(self, scored: Scored, features: int) -> None:
        self.scored, self.features = scored, features
        self.n_outputs_ = 1 if scored.linear else scored.ensemble.targets

    def fit(self) -> None:
        """It is fitted."""


def graph_of(scored: Scored, features: int) -> Any:
    """The graph of trees alone: `VECTOR` FP32 [N, features] to one output, [N, targets]."""
    from skl2onnx import to_onnx, update_registered_converter
    from skl2onnx.common.data_types import FloatTensorType

    from penstock.importing.scikit_learn import TARGET_OPSET
    from penstock.importing.tree_operators import converter

    def shape(operator: Any) -> None:
        operator.outputs[0].type = FloatTensorType([None, operator.raw_operator.n_outputs_])

    update_registered_converter(
        RawTrees, "PenstockRawTrees", shape, converter(lambda model: model.scored), overwrite=True,
        parser=_parser,
    )  # fmt: skip
    kinds = [(VECTOR, FloatTensorType([None, features]))]
    return to_onnx(RawTrees(scored, features), initial_types=kinds, target_opset=TARGET_OPSET)


def _parser(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx.common.data_types import FloatTensorType

    operator = scope.declare_local_operator("PenstockRawTrees", model)
    operator.inputs = inputs
    operator.outputs.append(
        scope.declare_local_variable("variable", FloatTensorType([None, model.n_outputs_]))
    )
    return operator.outputs


class Booster:
    """A booster; see `Original`."""

    def __init__(
        self, model: Any, title: str, library: str, names: Sequence[str] | None, features: int
    ) -> None:
        self.model, self.title, self.libraries = model, title, [library]
        self._names, self._features = names, features
        self._is_light = library == "lightgbm"

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        names = list(frame.columns)
        if self._names and all(each in frame.columns for each in self._names):
            names = list(self._names)
        if len(names) != self._features:
            wanted = f" ({', '.join(self._names[:20])})" if self._names else ""
            raise Refused(
                f"{self.title} takes {self._features} columns{wanted}, the sample has {len(names)}: {', '.join(names)}"
            )
        columns = [column(frame, each) for each in names]
        texts = [each.name for each in columns if each.text]
        if texts:
            raise Refused(
                f"{self.title} on texts ({', '.join(texts)}): it numbers categories by the table that it was trained "
                "on; encode them with scikit-learn's OrdinalEncoder in a Pipeline"
            )
        self._order = names
        return Inputs(columns, vector)

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
        return finished(graph_of(scored, self._features), inputs, ["prediction"])


def of_booster(model: Any) -> Booster:
    """The original that a `Booster` of LightGBM or XGBoost is."""
    if type(model).__module__.startswith("lightgbm"):
        return Booster(model, "LightGBM Booster", "lightgbm", model.feature_name(), model.num_feature())
    return Booster(model, "XGBoost Booster", "xgboost", model.feature_names, model.num_features())
