"""The converters of skl2onnx, with those of its own that lose nothing in place of some."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from penstock.importing import encoders, scalers, trees_sklearn
from penstock.importing.folded_scalers import folded
from penstock.importing.labels import as_labels, with_labels
from penstock.importing.tree_operators import converter
from penstock.importing.trees_sklearn import NotCarried, Scored

OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
OF_SKLEARN = (
    "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor "
    "RandomForestClassifier RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor "
    "GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier "
    "HistGradientBoostingRegressor"
)


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Has skl2onnx use the converters of this package while it lasts.

    Others of the process who convert with skl2onnx, before or after, get its own converters.
    """
    from skl2onnx import _parse, _supported_operators
    from skl2onnx.common import _registration

    tables = (
        _registration._converter_pool,
        _registration._shape_calculator_pool,
        _supported_operators.sklearn_operator_name_map,
        _parse.sklearn_parsers_map,
    )
    before = [dict(each) for each in tables]
    try:
        _register_estimators()
        _register_boosters()
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)


def _register_estimators() -> None:
    import sklearn.ensemble
    import sklearn.feature_extraction.text
    import sklearn.impute
    import sklearn.preprocessing
    import sklearn.tree
    from skl2onnx import update_registered_converter

    for name in OF_SKLEARN.split():
        kind = getattr(sklearn.ensemble, name, None) or getattr(sklearn.tree, name)
        _register_trees(kind, f"Sklearn{name}", trees_sklearn.trees_of)
    for kind, shape, convert in (
        (sklearn.impute.SimpleImputer, encoders.imputer_shape, encoders.convert_imputer),
        (sklearn.preprocessing.OneHotEncoder, encoders.one_hot_shape, encoders.convert_one_hot),
        (sklearn.preprocessing.OrdinalEncoder, encoders.ordinal_shape, encoders.convert_ordinal),
        (sklearn.preprocessing.StandardScaler, scalers.scaler_shape, scalers.convert_scaler),
        (sklearn.preprocessing.RobustScaler, scalers.scaler_shape, scalers.convert_scaler),
        (sklearn.preprocessing.MaxAbsScaler, scalers.scaler_shape, scalers.convert_scaler),
        (sklearn.preprocessing.MinMaxScaler, scalers.scaler_shape, scalers.convert_min_max),
        (sklearn.feature_extraction.text.TfidfTransformer, scalers.tfidf_shape, scalers.convert_tfidf),
    ):
        update_registered_converter(kind, f"Penstock{kind.__name__}", shape, convert, overwrite=True)


def _register_trees(kind: type, alias: str, read: Callable[[Any], Scored]) -> None:
    from skl2onnx import update_registered_converter

    is_classifier = kind.__name__.endswith("Classifier")
    update_registered_converter(
        kind,
        alias,
        _shape_of_classifier if is_classifier else _shape_of_regressor,
        converter(read),
        overwrite=True,
        options=OPTIONS if is_classifier else None,
    )


def _register_boosters() -> None:
    """The same for the scikit-learn classes of LightGBM and XGBoost, where they are installed."""
    from importlib.util import find_spec

    from penstock.importing import trees_lightgbm, trees_xgboost

    if find_spec("lightgbm"):
        import lightgbm

        for kind in (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, lightgbm.LGBMRanker):
            _register_trees(
                kind, f"Penstock{kind.__name__}", lambda model: trees_lightgbm.trees_of(model.booster_)
            )
    if find_spec("xgboost"):
        import xgboost

        for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"):
            kind = getattr(xgboost, name)
            _register_trees(
                kind, f"Penstock{kind.__name__}", lambda model: of_xgboost(model, trees_xgboost.trees_of)
            )


def of_xgboost(model: Any, read: Callable[..., Scored]) -> Scored:
    """The trees of an estimator of XGBoost, up to the best round where it stopped early."""
    best = getattr(model, "best_iteration", None) if model.early_stopping_rounds else None
    return read(model.get_booster(), None if best is None else best + 1)


def _shape_of_classifier(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    classes = as_labels(operator.raw_operator.classes_)
    kind = StringTensorType if classes.dtype.kind == "O" else Int64TensorType
    operator.outputs[0].type = kind([None])
    operator.outputs[1].type = FloatTensorType([None, len(classes)])


def _shape_of_regressor(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    targets = getattr(operator.raw_operator, "n_outputs_", 1)
    operator.outputs[0].type = FloatTensorType([None, targets])


def parts(model: Any) -> list[Any]:
    """An estimator and all that it is made of, as far as scikit-learn's own compositions show."""
    found, waiting = [], [model]
    while waiting:
        each = waiting.pop()
        if each is None or isinstance(each, str):
            continue
        found.append(each)
        for key in ("steps", "transformers_", "transformer_list", "estimators_", "named_estimators_"):
            inner = getattr(each, key, None)
            if isinstance(inner, list | tuple):
                waiting += [each[1] if isinstance(each, tuple) and len(each) > 1 else each for each in inner]
        for key in (
            "estimator",
            "estimator_",
            "base_estimator_",
            "final_estimator_",
            "best_estimator_",
            "regressor_",
        ):
            waiting += [getattr(each, key)] if hasattr(each, key) else []
    return [each for each in found if hasattr(each, "get_params") or hasattr(each, "fit")]


def options_of(model: Any) -> Mapping[int, Mapping[str, Any]]:
    """The options for skl2onnx, by the id of each part."""
    from sklearn.feature_extraction.text import CountVectorizer

    options: dict[int, Mapping[str, Any]] = {}
    for each in parts(model):
        if isinstance(each, CountVectorizer):
            options[id(each)] = encoders.token_options(each)
    return options


def prepared(model: Any) -> Any:
    """A copy in which each part can be converted as it is: the original stays to be compared with.

    Raises:
        NotCarried: a part holds Python code.
    """
    made = copy.deepcopy(model)
    for each in parts(made):
        with_labels(each)
        name = type(each).__name__
        if name == "VotingClassifier" and each.weights is not None:
            each.weights = np.asarray(each._weights_not_none)
        if name == "FunctionTransformer" and each.func is not None:
            code = getattr(each.func, "__name__", "a function")
            raise NotCarried(
                f"FunctionTransformer({code}): Python code is not converted; do this before the request is "
                "sent, or with a transformer of scikit-learn"
            )
        steps = getattr(each, "steps", None)
        if isinstance(steps, list):
            folded(each)  # before a boosting gets steps of its own
            each.steps = [(key, _replaced(step)) for key, step in each.steps]
        _without_stop_words(each)
    return _replaced(made)


def _replaced(model: Any) -> Any:
    """An estimator that gives the same and is converted right."""
    if type(model).__name__ in ("LinearDiscriminantAnalysis", "LinearSVC"):
        return _as_logistic(model)
    if type(model).__name__ == "VotingClassifier":
        model.flatten_transform = False  # only its `transform` has it
    return without_encoder(model)


def _as_logistic(model: Any) -> Any:
    """A linear model as a logistic regression, which finds the same class.

    The converter of discriminant analysis doubles the log-odds of two classes, and that of `LinearSVC` fails
    in a pipeline.
    """
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression()
    for key in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(made, key, getattr(model, key))
    return made


def _without_stop_words(model: Any) -> None:
    """Takes the stop words from a vectorizer of single words: its vocabulary has none of them.

    Raises:
        NotCarried: it counts pairs of words, which stop words change.
    """
    if getattr(model, "stop_words", None) is None or not hasattr(model, "vocabulary_"):
        return
    if tuple(model.ngram_range) != (1, 1):
        raise NotCarried(
            f"{type(model).__name__} with stop_words and ngram_range={model.ngram_range}: a graph cannot "
            "leave words out of a text; train it without stop_words"
        )
    model.stop_words = None


def without_encoder(model: Any) -> Any:
    """A histogram-based boosting whose encoder of categories is a step before it."""
    if getattr(model, "_preprocessor", None) is None or not type(model).__name__.startswith("HistGradient"):
        return model
    from sklearn.pipeline import Pipeline

    plain = copy.copy(model)
    encoder, plain._preprocessor = copy.copy(model._preprocessor), None
    names = getattr(model, "feature_names_in_", None)
    encoder.transformers_ = [
        (key, "passthrough" if type(step).__name__ == "FunctionTransformer" else step, _places(chosen, names))
        for key, step, chosen in encoder.transformers_
    ]
    return Pipeline([("categories", encoder), ("model", plain)])


def _places(mask: Any, names: Any) -> list[Any]:
    """The columns of a mask, as skl2onnx takes them: by name, or by number where there are no names."""
    places = np.flatnonzero(np.asarray(mask)).tolist()
    return places if names is None else [str(names[i]) for i in places]
