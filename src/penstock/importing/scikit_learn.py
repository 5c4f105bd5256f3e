"""Estimators and pipelines of scikit-learn, and those of LightGBM and XGBoost that have its interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.core.names import many
from penstock.importing import estimators
from penstock.importing.categories import WAY_OUT, has_categories
from penstock.importing.errors import LacksColumns, Refused
from penstock.importing.fitted_texts import chosen, nones_of, texts_of
from penstock.importing.graph_ends import TARGET_OPSET, call_inputs, finished
from penstock.importing.labels import as_labels
from penstock.importing.table import VECTOR, Inputs, column
from penstock.importing.trees_sklearn import NotCarried


class ScikitLearn:
    """A fitted estimator; see `Original`."""

    def __init__(self, model: Any) -> None:
        self.model = getattr(model, "best_estimator_", model)  # a search is its best estimator
        name = type(self.model).__name__
        package = type(self.model).__module__.partition(".")[0]
        title = {"sklearn": "scikit-learn", "lightgbm": "LightGBM", "xgboost": "XGBoost"}.get(
            package, package
        )
        self.last = _last(self.model)
        inner = "" if self.last is self.model else f" ending in {type(self.last).__name__}"
        self.title = f"{title} {name}{inner}"
        packages = {type(each).__module__.partition(".")[0] for each in estimators.parts(self.model)}
        self.libraries: Sequence[str] = ["scikit-learn", *sorted(packages & {"lightgbm", "xgboost"})]
        self._first = _first(self.model)
        self._names: list[str] | None = None
        self._texts: list[str] = []

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        if isinstance(getattr(self.last, "classes_", None), list):
            raise Refused(
                f"{self.title} predicts the classes of several targets: train one classifier for each and "
                "import each as a model of its own"
            )
        for each in estimators.parts(self.model):
            if has_categories(each):
                raise Refused(
                    f"{self.title}: {type(each).__name__} was fitted on categories of pandas that steps "
                    f"before it give: fit it on the table itself, without a pipeline, or {WAY_OUT}"
                )
        names = self._own_names(frame.columns)
        if names is None and _is_of_texts(self._first):
            names = [each for each in frame.columns if column(frame, each).text]
            if len(names) != 1:
                raise Refused(
                    f"{self.title} takes one text; the sample has {len(names)} columns of texts: {names}"
                )
        self._names = None if names is None else [str(each) for each in names]
        wanted = self._names or list(frame.columns)
        missing = [each for each in wanted if each not in frame.columns]
        if missing:
            raise LacksColumns(
                f"the sample lacks columns of the model: {', '.join(missing)}; it has "
                f"{', '.join(frame.columns)}",
                missing,
            )
        count = getattr(self.model, "n_features_in_", None) or getattr(self._first, "n_features_in_", None)
        if count is not None and count != len(wanted):
            raise Refused(
                f"the model was fitted on {many(count, 'column')} without names, the sample has "
                f"{len(wanted)}: {', '.join(wanted)}; name the target with --target, and what else is no "
                "feature with --drop"
            )
        columns = [column(frame, each) for each in self._used(wanted)]
        texts = [each.name for each in columns if each.text]
        if vector and texts:
            raise Refused(f"--as vector takes numbers only; these columns hold texts: {', '.join(texts)}")
        return Inputs(columns, vector, by_position=names is None)

    def _own_names(self, columns: Sequence[str]) -> Any:
        """The names of the columns that the estimator knows; None if it was fitted on an array."""
        names = getattr(self.model, "feature_names_in_", None)
        if names is None:
            names = getattr(self._first, "feature_names_in_", None)
        own = getattr(self._first, "feature_name_", None)
        return own if names is None and own is not None and all(each in columns for each in own) else names

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        names = self._own_names(columns)
        return texts_of(self.model, columns if names is None else [str(each) for each in names])

    def nones(self, columns: Sequence[str]) -> Iterable[str]:
        """The columns that it was fitted with None in, as far as it knows."""
        names = self._own_names(columns)
        return nones_of(self.model, columns if names is None else [str(each) for each in names])

    def _used(self, names: Sequence[str]) -> list[str]:
        """The columns that a ColumnTransformer at the begin takes."""
        if type(self._first).__name__ != "ColumnTransformer":
            return list(names)
        used = {
            each
            for _, step, taken in self._first.transformers_
            if step != "drop"
            for each in chosen(taken, names)
        }
        self._texts = [
            each
            for _, step, taken in self._first.transformers_
            if isinstance(taken, str | int | np.integer) and _is_of_texts(_first(step))
            for each in chosen(taken, names)
        ]
        return [each for each in names if each in used]

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        given = self._given(frame)
        model = self.model
        if hasattr(self.last, "classes_") or _is(self.last, "classifier"):
            made = {"label": as_labels(model.predict(given))}
            if hasattr(model, "predict_proba"):
                made["probabilities"] = np.asarray(model.predict_proba(given))
            return made
        if _is(self.last, "outlier_detector"):
            return {
                "label": model.predict(given).astype(np.int64),
                "score": _column(model.decision_function(given)),
            }
        if _is(self.last, "clusterer") and hasattr(model, "predict"):
            return {
                "label": model.predict(given).astype(np.int64),
                "distances": np.asarray(model.transform(given)),
            }
        if hasattr(model, "predict"):
            return {"prediction": _column(model.predict(given))}
        made_of = model.transform(given)
        return {"features": np.asarray(made_of.todense() if hasattr(made_of, "todense") else made_of)}

    def _given(self, frame: Any) -> Any:
        """What the estimator was fitted on: a table, a matrix or texts."""
        if _is_of_texts(self._first):
            return frame[self._names[0]].fillna("") if self._names else frame
        if self._names is None:
            return frame.to_numpy()
        for name in self._texts:  # a request has the empty text there, and the original takes no missing one
            frame = frame.assign(**{name: frame[name].fillna("")})
        return frame[self._names]

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        outputs = list(self._outputs())
        try:
            model = estimators.prepared(self.model)
            kinds = self._types(inputs, model)
            options = estimators.options_of(model)
            with estimators.registered():
                made = _to_onnx(model, kinds, options)
            call_inputs(made, [name for name, _ in kinds])
        except NotCarried as error:
            raise Refused(str(error)) from error
        except Exception as error:  # skl2onnx has no root of its errors
            raise Refused(_why(error, self.model)) from error
        return finished(made, inputs, outputs)

    def _outputs(self) -> Sequence[str]:
        if hasattr(self.last, "classes_") or _is(self.last, "classifier"):
            return ("label", "probabilities") if hasattr(self.model, "predict_proba") else ("label",)
        if _is(self.last, "outlier_detector"):
            return ("label", "score")
        if _is(self.last, "clusterer"):
            return ("label", "distances")
        return ("prediction",) if hasattr(self.model, "predict") else ("features",)

    def _types(self, inputs: Inputs, model: Any) -> list[tuple[str, Any]]:
        """The inputs for skl2onnx: one a column, or one for all where the estimator takes a matrix."""
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType

        first = _first(model)
        if type(first).__name__ == "ColumnTransformer" or _is_of_texts(first):
            return [
                (each.name, (StringTensorType if each.text else FloatTensorType)([None, 1]))
                for each in inputs.columns
            ]
        texts = {each.text for each in inputs.columns}
        if len(texts) > 1:
            raise NotCarried(
                f"{type(first).__name__} on texts and numbers together: choose the columns with a "
                "ColumnTransformer"
            )
        kind = StringTensorType if texts == {True} else FloatTensorType
        return [(VECTOR, kind([None, len(inputs.columns)]))]


def _to_onnx(model: Any, kinds: Any, options: Mapping[int, Mapping[str, Any]]) -> Any:
    """Converts a model; without ZipMap where it would have one."""
    from skl2onnx import to_onnx

    if hasattr(model, "classes_"):
        try:
            whole = {**options, id(model): {"zipmap": False}}
            return to_onnx(model, initial_types=kinds, options=whole, target_opset=TARGET_OPSET)
        except NameError as error:  # an estimator that never has it
            if "zipmap" not in str(error):
                raise
    return to_onnx(model, initial_types=kinds, options=options, target_opset=TARGET_OPSET)


def _last(model: Any) -> Any:
    """The estimator that decides what comes out."""
    while True:
        if hasattr(model, "steps"):
            model = model.steps[-1][1]
        elif type(model).__name__ in (
            "TransformedTargetRegressor",
            "TunedThresholdClassifierCV",
            "FixedThresholdClassifier",
        ):
            return model
        else:
            return model


def _first(model: Any) -> Any:
    while hasattr(model, "steps"):
        model = model.steps[0][1]
    return model


def _is_of_texts(first: Any) -> bool:
    return hasattr(first, "build_analyzer")


def _is(model: Any, kind: str) -> bool:
    import sklearn.base

    check = getattr(sklearn.base, f"is_{kind}")
    try:
        return bool(check(model))
    except Exception:  # an estimator that does not know scikit-learn's tags
        return getattr(model, "_estimator_type", "") == kind


def _column(values: Any) -> Any:
    array = np.asarray(values, np.float64)
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _why(error: Exception, model: Any) -> str:
    """The error of a converter, with what is known of it."""
    text = " ".join(str(error).split())
    if "Unable to find a shape calculator" in text or "Unable to find a converter" in text:
        names = sorted({type(each).__name__ for each in estimators.parts(model)})
        kind = text.partition("for type '<class '")[2].partition("'")[0].rpartition(".")[2]
        return (
            f"no converter is known for {kind or 'a part of it'} (parts: {', '.join(names)}): do this step "
            "before the request is sent, or use another estimator"
        )
    return f"{type(error).__name__}: {text[:400]}"
