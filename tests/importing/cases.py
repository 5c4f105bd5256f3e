"""Estimators and their settings, each as a function that fits one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One estimator with its settings.

    Attributes:
        library: what it is of.
        name: of the estimator, with the settings that matter.
        columns: what it is fitted on.
        target: the column that it predicts.
        make: gives it, not fitted.
        fit: how it is fitted: on a "frame", on an "array", on a "series" of texts, or on a frame whose texts
            and codes are "categories" of pandas.
        suffix: the format that it is saved in.
    """

    library: str
    name: str
    columns: Sequence[str]
    target: str
    make: Callable[[], Any]
    fit: str = "frame"
    suffix: str = ".joblib"


class Lazy:
    """A class of a library that is imported when one is made: the cases have names without the library.

    Args:
        module: where it is.
        name: its name.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self.__name__ = module, name

    def __call__(self, **settings: Any) -> Any:
        return getattr(import_module(self._module), self.__name__)(**settings)


NUMBERS = ("a", "b", "c", "d")
GAPS = ("a", "gap", "zero", "c")
CATEGORIES = ("a", "gap", "city", "plan", "code")
COMBINED = {"max_ctr_complexity": 3, "combinations_ctr": ["Borders", "Counter"]}
ASCII = ("a", "gap", "plan", "code", "size")
MIXED = ("a", "gap", "city", "plan")


def _scikit_learn() -> list[Case]:  # long: a list
    import sklearn.discriminant_analysis as discriminant
    import sklearn.feature_selection as selection
    import sklearn.linear_model as linear
    import sklearn.model_selection as search
    import sklearn.naive_bayes as bayes
    import sklearn.neural_network as neural
    import sklearn.preprocessing as pre
    from sklearn import (
        calibration,
        cluster,
        compose,
        decomposition,
        ensemble,
        impute,
        multiclass,
        neighbors,
        pipeline,
        svm,
        tree,
    )
    from sklearn.feature_extraction import text

    def scaled(make: Callable[[], Any], step: Callable[[], Any] = pre.StandardScaler) -> Callable[[], Any]:
        return lambda: pipeline.make_pipeline(step(), make())

    def by_column(*steps: Any, last: Callable[[], Any] = linear.LogisticRegression) -> Callable[[], Any]:
        named = [(f"step{i}", step, list(columns)) for i, (step, columns) in enumerate(steps)]
        return lambda: pipeline.make_pipeline(compose.ColumnTransformer(named), last())

    def of_text(step: Any, last: Callable[[], Any] = linear.LogisticRegression) -> Callable[[], Any]:
        chosen = [("text", step, "note"), ("rest", "passthrough", ["a"])]
        return lambda: pipeline.make_pipeline(compose.ColumnTransformer(chosen, sparse_threshold=0), last())

    forest = partial(ensemble.RandomForestRegressor, n_estimators=15, random_state=0)
    histograms = partial(ensemble.HistGradientBoostingRegressor, max_iter=12)

    numbers = [
        ("LogisticRegression", "y", scaled(linear.LogisticRegression)),
        ("LogisticRegression, three named classes", "y3", scaled(linear.LogisticRegression)),
        ("LogisticRegressionCV", "y", scaled(lambda: linear.LogisticRegressionCV(Cs=2, cv=2))),
        ("LinearRegression", "amount", linear.LinearRegression),
        ("Ridge", "amount", linear.Ridge),
        ("Lasso", "amount", scaled(lambda: linear.Lasso(0.01))),
        ("ElasticNet", "amount", scaled(lambda: linear.ElasticNet(0.01))),
        ("BayesianRidge", "amount", scaled(linear.BayesianRidge)),
        ("HuberRegressor", "amount", scaled(linear.HuberRegressor)),
        ("PoissonRegressor", "count", scaled(linear.PoissonRegressor)),
        ("GammaRegressor", "amount", scaled(linear.GammaRegressor)),
        ("TweedieRegressor(power=1.5)", "count", scaled(lambda: linear.TweedieRegressor(power=1.5))),
        (
            "SGDClassifier(loss='log_loss')",
            "y",
            scaled(lambda: linear.SGDClassifier(loss="log_loss", random_state=0)),
        ),
        (
            "SGDClassifier(loss='modified_huber')",
            "y",
            scaled(lambda: linear.SGDClassifier(loss="modified_huber", random_state=0)),
        ),
        ("SGDClassifier, no probabilities", "y", scaled(lambda: linear.SGDClassifier(random_state=0))),
        ("RidgeClassifier", "y", scaled(linear.RidgeClassifier)),
        ("Perceptron", "y", scaled(lambda: linear.Perceptron(random_state=0))),
        ("LinearSVC", "y3", scaled(svm.LinearSVC)),
        ("SVC", "y", scaled(svm.SVC)),
        ("SVR", "amount", scaled(svm.SVR)),
        ("KNeighborsClassifier", "y", scaled(neighbors.KNeighborsClassifier)),
        ("KNeighborsRegressor", "amount", scaled(neighbors.KNeighborsRegressor)),
        ("GaussianNB", "y", scaled(bayes.GaussianNB)),
        ("BernoulliNB", "y", scaled(bayes.BernoulliNB)),
        ("LinearDiscriminantAnalysis, two classes", "y", scaled(discriminant.LinearDiscriminantAnalysis)),
        ("LinearDiscriminantAnalysis, three classes", "y3", scaled(discriminant.LinearDiscriminantAnalysis)),
        ("QuadraticDiscriminantAnalysis", "y", scaled(discriminant.QuadraticDiscriminantAnalysis)),
        (
            "MLPClassifier",
            "y",
            scaled(lambda: neural.MLPClassifier(hidden_layer_sizes=(8,), max_iter=60, random_state=0)),
        ),
        (
            "MLPRegressor",
            "amount",
            scaled(lambda: neural.MLPRegressor(hidden_layer_sizes=(8,), max_iter=60, random_state=0)),
        ),
        ("DecisionTreeClassifier", "y", lambda: tree.DecisionTreeClassifier(random_state=0)),
        ("DecisionTreeRegressor", "amount", lambda: tree.DecisionTreeRegressor(random_state=0)),
        ("RandomForestClassifier", "y3", lambda: ensemble.RandomForestClassifier(15, random_state=0)),
        ("RandomForestRegressor", "amount", lambda: ensemble.RandomForestRegressor(15, random_state=0)),
        ("ExtraTreesClassifier", "y", lambda: ensemble.ExtraTreesClassifier(15, random_state=0)),
        ("GradientBoostingClassifier", "y", lambda: ensemble.GradientBoostingClassifier(n_estimators=15)),
        (
            "GradientBoostingClassifier(loss='exponential')",
            "y",
            lambda: ensemble.GradientBoostingClassifier(n_estimators=15, loss="exponential"),
        ),
        (
            "GradientBoostingClassifier, three classes",
            "y3",
            lambda: ensemble.GradientBoostingClassifier(n_estimators=9),
        ),
        ("GradientBoostingRegressor", "amount", lambda: ensemble.GradientBoostingRegressor(n_estimators=15)),
        ("AdaBoostClassifier", "y", lambda: ensemble.AdaBoostClassifier(n_estimators=8, random_state=0)),
        ("BaggingClassifier", "y", lambda: ensemble.BaggingClassifier(n_estimators=5, random_state=0)),
        (
            "VotingClassifier(voting='soft')",
            "y",
            lambda: ensemble.VotingClassifier(
                [
                    ("lr", linear.LogisticRegression(max_iter=500)),
                    ("tree", tree.DecisionTreeClassifier(max_depth=3)),
                ],
                voting="soft",
            ),
        ),
        (
            "StackingClassifier",
            "y",
            lambda: ensemble.StackingClassifier(
                [("nb", bayes.GaussianNB()), ("tree", tree.DecisionTreeClassifier(max_depth=3))], cv=2
            ),
        ),
        ("CalibratedClassifierCV", "y", lambda: calibration.CalibratedClassifierCV(bayes.GaussianNB(), cv=2)),
        (
            "OneVsRestClassifier",
            "y3",
            scaled(lambda: multiclass.OneVsRestClassifier(linear.LogisticRegression())),
        ),
        (
            "GridSearchCV",
            "y",
            lambda: search.GridSearchCV(tree.DecisionTreeClassifier(), {"max_depth": [2, 3]}, cv=2),
        ),
        ("IsolationForest", "y", lambda: ensemble.IsolationForest(n_estimators=15, random_state=0)),
        ("KMeans", "y", scaled(lambda: cluster.KMeans(3, n_init=1, random_state=0))),
        ("PCA and LogisticRegression", "y", scaled(linear.LogisticRegression, lambda: decomposition.PCA(2))),
        ("PolynomialFeatures and Ridge", "amount", scaled(linear.Ridge, lambda: pre.PolynomialFeatures(2))),
        ("SelectKBest", "y", scaled(linear.LogisticRegression, lambda: selection.SelectKBest(k=2))),
        ("RobustScaler", "y", scaled(linear.LogisticRegression, pre.RobustScaler)),
        ("MinMaxScaler", "y", scaled(linear.LogisticRegression, pre.MinMaxScaler)),
        ("MaxAbsScaler", "y", scaled(linear.LogisticRegression, pre.MaxAbsScaler)),
        *(
            (f"{step.__name__} and RandomForestRegressor", "amount", scaled(forest, step))
            for step in (pre.StandardScaler, pre.MinMaxScaler, pre.RobustScaler, pre.MaxAbsScaler)
        ),
        ("StandardScaler and HistGradientBoostingRegressor", "amount", scaled(histograms)),
        (
            "MinMaxScaler(clip=True) and HistGradientBoostingRegressor",
            "amount",
            scaled(histograms, lambda: pre.MinMaxScaler(clip=True)),
        ),
        ("Normalizer", "y", scaled(linear.LogisticRegression, pre.Normalizer)),
        ("PowerTransformer", "y", scaled(linear.LogisticRegression, pre.PowerTransformer)),
        (
            "QuantileTransformer",
            "y",
            scaled(linear.LogisticRegression, lambda: pre.QuantileTransformer(n_quantiles=50)),
        ),
        ("KBinsDiscretizer", "y", scaled(linear.LogisticRegression, lambda: pre.KBinsDiscretizer(4))),
        ("SplineTransformer", "y", scaled(linear.LogisticRegression, lambda: pre.SplineTransformer(4))),
        (
            "FunctionTransformer(abs)",
            "y",
            scaled(linear.LogisticRegression, lambda: pre.FunctionTransformer(abs)),
        ),
        (
            "TransformedTargetRegressor(log)",
            "amount",
            lambda: compose.TransformedTargetRegressor(linear.Ridge(), func=log_of, inverse_func=exp_of),
        ),
    ]
    gaps = [
        (
            "RandomForestClassifier, missing values",
            "y",
            lambda: ensemble.RandomForestClassifier(15, random_state=0),
        ),
        (
            "DecisionTreeRegressor, missing values",
            "amount",
            lambda: tree.DecisionTreeRegressor(random_state=0),
        ),
        ("HistGradientBoostingClassifier", "y", lambda: ensemble.HistGradientBoostingClassifier(max_iter=12)),
        (
            "HistGradientBoostingClassifier, three classes",
            "y3",
            lambda: ensemble.HistGradientBoostingClassifier(max_iter=9),
        ),
        (
            "HistGradientBoostingRegressor",
            "amount",
            lambda: ensemble.HistGradientBoostingRegressor(max_iter=12),
        ),
        *(
            (
                f"HistGradientBoostingRegressor(loss='{loss}')",
                "count" if loss == "poisson" else "amount",
                lambda loss=loss: ensemble.HistGradientBoostingRegressor(
                    max_iter=12, loss=loss, quantile=0.8
                ),
            )
            for loss in ("poisson", "gamma", "quantile", "absolute_error")
        ),
        (
            "SimpleImputer(strategy='median')",
            "y",
            scaled(linear.LogisticRegression, lambda: impute.SimpleImputer(strategy="median")),
        ),
        (
            "SimpleImputer(add_indicator=True)",
            "y",
            scaled(linear.LogisticRegression, lambda: impute.SimpleImputer(add_indicator=True)),
        ),
        ("KNNImputer", "y", scaled(linear.LogisticRegression, impute.KNNImputer)),
    ]
    onehot, ordinal, simple = pre.OneHotEncoder, pre.OrdinalEncoder, impute.SimpleImputer
    mixed = [
        (
            "OneHotEncoder(handle_unknown='ignore')",
            by_column((onehot(handle_unknown="ignore"), ["city", "plan"]), (simple(), ["gap"])),
        ),
        (
            "OneHotEncoder(drop='first')",
            by_column(
                (onehot(drop="first", handle_unknown="ignore"), ["city", "plan"]), ("passthrough", ["a"])
            ),
        ),
        (
            "OneHotEncoder(max_categories=3)",
            by_column(
                (onehot(max_categories=3, handle_unknown="infrequent_if_exist"), ["city"]),
                ("passthrough", ["a"]),
            ),
        ),
        (
            "OneHotEncoder() that rejects unknown ones",
            by_column((onehot(), ["plan"]), ("passthrough", ["a"])),
        ),
        (
            "OrdinalEncoder(unknown_value=-1)",
            by_column(
                (
                    ordinal(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
                    ["city", "plan"],
                ),
                ("passthrough", ["a"]),
                last=lambda: ensemble.RandomForestClassifier(9, random_state=0),
            ),
        ),
        (
            "SimpleImputer of texts, most frequent",
            by_column(
                (
                    pipeline.make_pipeline(simple(strategy="most_frequent"), onehot(handle_unknown="ignore")),
                    ["plan"],
                ),
                (simple(), ["gap"]),
            ),
        ),
        (
            "SimpleImputer of texts, constant",
            by_column(
                (
                    pipeline.make_pipeline(
                        simple(strategy="constant", fill_value="none"), onehot(handle_unknown="ignore")
                    ),
                    ["plan"],
                ),
                (simple(), ["gap"]),
            ),
        ),
        (
            "ColumnTransformer of scaled columns and HistGradientBoostingRegressor",
            by_column(
                (onehot(sparse_output=False, handle_unknown="ignore"), ["city"]),
                (pipeline.make_pipeline(simple(), pre.StandardScaler()), ["gap"]),
                (pre.RobustScaler(), ["a"]),
                last=histograms,
            ),
        ),
        ("TargetEncoder", by_column((pre.TargetEncoder(), ["city"]), ("passthrough", ["a"]))),
        (
            "ColumnTransformer(remainder=…)",
            lambda: pipeline.make_pipeline(
                compose.ColumnTransformer(
                    [
                        (
                            "c",
                            onehot(handle_unknown="ignore"),
                            compose.make_column_selector(dtype_exclude="number"),
                        )
                    ],
                    remainder=simple(),
                ),
                linear.LogisticRegression(),
            ),
        ),
        (
            "HistGradientBoostingClassifier, categories",
            lambda: ensemble.HistGradientBoostingClassifier(
                max_iter=12, categorical_features=["city", "plan"]
            ),
        ),
    ]
    texts = [
        ("TfidfVectorizer", of_text(text.TfidfVectorizer())),
        ("TfidfVectorizer(ngram_range=(1, 2))", of_text(text.TfidfVectorizer(ngram_range=(1, 2)))),
        ("TfidfVectorizer(stop_words='english')", of_text(text.TfidfVectorizer(stop_words="english"))),
        (
            "TfidfVectorizer(ngram_range=(1, 2), stop_words='english')",
            of_text(text.TfidfVectorizer(stop_words="english", ngram_range=(1, 2))),
        ),
        ("TfidfVectorizer(lowercase=False)", of_text(text.TfidfVectorizer(lowercase=False))),
        ("TfidfVectorizer(sublinear_tf=True)", of_text(text.TfidfVectorizer(sublinear_tf=True))),
        *(
            (f"TfidfVectorizer and {last.__name__}", of_text(text.TfidfVectorizer(), partial(last, **some)))
            for last, some in (
                (ensemble.RandomForestClassifier, {"n_estimators": 15, "random_state": 0}),
                (ensemble.HistGradientBoostingClassifier, {"max_iter": 12}),
            )
        ),
        ("TfidfVectorizer(analyzer='char')", of_text(text.TfidfVectorizer(analyzer="char"))),
        ("TfidfVectorizer(strip_accents='unicode')", of_text(text.TfidfVectorizer(strip_accents="unicode"))),
        ("CountVectorizer(binary=True)", of_text(text.CountVectorizer(binary=True))),
        ("HashingVectorizer", of_text(text.HashingVectorizer(n_features=64))),
    ]
    flags = [
        case
        for flag, missing in (("flag", "NaN"), ("maybe", "None"))
        for case in (
            (
                f"OneHotEncoder of booleans and {missing}",
                flag,
                by_column((onehot(handle_unknown="ignore"), [flag]), (simple(), ["gap"])),
            ),
            (
                f"SimpleImputer of booleans and {missing}, OneHotEncoder",
                flag,
                by_column(
                    (pipeline.make_pipeline(simple(strategy="most_frequent"), onehot()), [flag]),
                    (simple(), ["gap"]),
                ),
            ),
            (
                f"OrdinalEncoder of booleans and {missing}",
                flag,
                by_column((ordinal(), [flag]), ("passthrough", ["gap"]), last=histograms),
            ),
            (f"HistGradientBoostingRegressor, booleans and {missing}", flag, histograms),
        )
    ]
    nones = [
        ("OneHotEncoder of texts and None", by_column((onehot(handle_unknown="ignore"), ["tier"]))),
        ("OrdinalEncoder of texts and None", by_column((ordinal(), ["tier"]), last=histograms)),
    ]
    return [
        *(Case("scikit-learn", name, ("tier", "gap"), "y", make) for name, make in nones),
        *(Case("scikit-learn", name, NUMBERS, target, make) for name, target, make in numbers),
        *(Case("scikit-learn", name, (flag, "gap"), "y", make) for name, flag, make in flags),
        *(Case("scikit-learn", name, GAPS, target, make) for name, target, make in gaps),
        *(
            Case("scikit-learn", f"{step.__name__} and {name}, whole numbers", ("c",), "amount", make)
            for step in (pre.StandardScaler, pre.MinMaxScaler, pre.RobustScaler, pre.MaxAbsScaler)
            for name, make in (("HistGradientBoostingRegressor", scaled(histograms, step)),)
        ),
        Case(
            "scikit-learn",
            "RandomForestClassifier, fitted on an array",
            NUMBERS,
            "y",
            lambda: ensemble.RandomForestClassifier(9, random_state=0),
            "array",
        ),
        Case(
            "scikit-learn",
            "RandomForestRegressor, two targets",
            NUMBERS,
            "count,amount",
            lambda: ensemble.RandomForestRegressor(9, random_state=0),
        ),
        Case(
            "scikit-learn",
            "RandomForestClassifier, a skops file",
            NUMBERS,
            "y",
            lambda: ensemble.RandomForestClassifier(9, random_state=0),
            suffix=".skops",
        ),
        *(Case("scikit-learn", name, MIXED, "y", make) for name, make in mixed),
        *(Case("scikit-learn", name, ("note", "a"), "y", make) for name, make in texts),
        Case(
            "scikit-learn",
            "TfidfVectorizer, fitted on texts alone",
            ("note",),
            "y",
            lambda: pipeline.make_pipeline(text.TfidfVectorizer(), linear.LogisticRegression()),
            "series",
        ),
    ]


def _passed(model: Any) -> Any:
    """A pipeline whose first step gives the table that it takes."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    whole = ColumnTransformer([("all", "passthrough", list(CATEGORIES))], verbose_feature_names_out=False)
    return make_pipeline(whole.set_output(transform="pandas"), model)


def log_of(values: Any) -> Any:
    """The natural logarithm."""
    import numpy

    return numpy.log(values)


def exp_of(values: Any) -> Any:
    """Its inverse."""
    import numpy

    return numpy.exp(values)


def _lightgbm() -> list[Case]:
    classifier, regressor = Lazy("lightgbm", "LGBMClassifier"), Lazy("lightgbm", "LGBMRegressor")
    usual = {"n_estimators": 12, "verbose": -1, "n_jobs": 1}
    classifiers: list[tuple[str, dict[str, Any], str]] = [
        ("", {}, "y"),
        (", three named classes", {}, "y3"),
        ("(linear_tree=True)", {"linear_tree": True}, "y"),
        ("(boosting_type='rf')", {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}, "y"),
        ("(boosting_type='dart')", {"boosting_type": "dart"}, "y"),
        ("(zero_as_missing=True)", {"zero_as_missing": True}, "y"),
        ("(use_missing=False)", {"use_missing": False}, "y"),
        ("(sigmoid=2)", {"sigmoid": 2.0}, "y"),
        ("(objective='multiclassova')", {"objective": "multiclassova"}, "y3"),
    ]
    regressors: list[tuple[str, dict[str, Any], str]] = [
        ("", {}, "amount"),
        ("(reg_sqrt=True)", {"reg_sqrt": True}, "amount"),
        *(
            (f"(objective='{each}')", {"objective": each}, "amount")
            for each in ("poisson", "gamma", "tweedie", "quantile", "mape")
        ),
    ]
    return [
        *(
            Case(
                "LightGBM",
                f"LGBMClassifier{name}",
                GAPS,
                target,
                lambda more=more: classifier(**usual, **more),
            )
            for name, more, target in classifiers
        ),
        *(
            Case(
                "LightGBM",
                f"LGBMRegressor{name}",
                GAPS,
                target,
                lambda more=more: regressor(**usual, **more),
            )
            for name, more, target in regressors
        ),
        *(
            Case(
                "LightGBM",
                f"{kind.__name__}{more}, categories of pandas",
                CATEGORIES,
                target,
                lambda kind=kind: kind(min_child_samples=4, min_data_per_group=4, **usual),
                "categories",
                suffix,
            )
            for kind, more, target, suffix in (
                (classifier, "", "y", ".joblib"),
                (classifier, ", three named classes", "y3", ".joblib"),
                (regressor, "", "amount", ".joblib"),
                (regressor, ", a model file", "amount", ".txt"),
            )
        ),
        Case(
            "LightGBM",
            "LGBMClassifier behind a ColumnTransformer that gives categories of pandas",
            CATEGORIES,
            "y",
            lambda: _passed(classifier(**usual)),
            "categories",
        ),
        Case(
            "LightGBM",
            "LGBMClassifier, a model file",
            GAPS,
            "y",
            lambda: classifier(**usual),
            suffix=".txt",
        ),
    ]


def _xgboost() -> list[Case]:
    classifier, regressor = Lazy("xgboost", "XGBClassifier"), Lazy("xgboost", "XGBRegressor")
    usual = {"n_estimators": 12, "n_jobs": 1}
    return [
        Case("XGBoost", "XGBClassifier", GAPS, "y", lambda: classifier(**usual)),
        Case(
            "XGBoost",
            "XGBClassifier(booster='dart')",
            GAPS,
            "y",
            lambda: classifier(booster="dart", rate_drop=0.3, **usual),
        ),
        Case(
            "XGBoost",
            "XGBClassifier(booster='gblinear')",
            NUMBERS,
            "y",
            lambda: classifier(booster="gblinear", **usual),
        ),
        Case("XGBoost", "XGBRFClassifier", GAPS, "y", lambda: Lazy("xgboost", "XGBRFClassifier")(**usual)),
        Case("XGBoost", "XGBRegressor", GAPS, "amount", lambda: regressor(**usual)),
        Case(
            "XGBoost",
            "XGBRegressor(objective='reg:logistic')",
            GAPS,
            "y",
            lambda: regressor(objective="reg:logistic", **usual),
        ),
        *(
            Case(
                "XGBoost",
                f"XGBRegressor(objective='{each}')",
                GAPS,
                "amount",
                lambda each=each: regressor(objective=each, **usual),
            )
            for each in ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "reg:absoluteerror")
        ),
        Case(
            "XGBoost",
            "XGBRegressor, two targets",
            GAPS,
            "count,amount",
            lambda: regressor(**usual),
        ),
        Case(
            "XGBoost",
            "XGBRegressor(multi_strategy='multi_output_tree')",
            GAPS,
            "count,amount",
            lambda: regressor(multi_strategy="multi_output_tree", tree_method="hist", **usual),
        ),
        *(
            Case(
                "XGBoost",
                f"{kind.__name__}{more}, categories of pandas",
                columns,
                target,
                lambda kind=kind, some=some: kind(enable_categorical=True, **some, **usual),
                "categories",
                suffix,
            )
            for kind, more, some, columns, target, suffix in (
                (classifier, "", {}, ASCII, "y", ".joblib"),
                (
                    classifier,
                    "(max_cat_to_onehot=9)",
                    {"max_cat_to_onehot": 9},
                    ASCII,
                    "y",
                    ".joblib",
                ),
                (regressor, "", {}, ASCII, "amount", ".joblib"),
                (regressor, ", a model file", {}, ASCII, "amount", ".ubj"),
                (regressor, ", accents in", {}, CATEGORIES, "amount", ".joblib"),
            )
        ),
        Case(
            "XGBoost",
            "XGBRegressor, a model file",
            GAPS,
            "amount",
            lambda: regressor(**usual),
            suffix=".ubj",
        ),
    ]


def _set(**more: object) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in more.items())


def _catboost() -> list[Case]:
    usual = {"iterations": 12, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    classifier, regressor = Lazy("catboost", "CatBoostClassifier"), Lazy("catboost", "CatBoostRegressor")
    return [
        Case("CatBoost", "CatBoostClassifier", GAPS, "y", lambda: classifier(**usual)),
        Case("CatBoost", "CatBoostClassifier, three named classes", GAPS, "y3", lambda: classifier(**usual)),
        Case(
            "CatBoost",
            "CatBoostClassifier(loss_function='MultiClassOneVsAll')",
            GAPS,
            "y3",
            lambda: classifier(loss_function="MultiClassOneVsAll", **usual),
        ),
        Case(
            "CatBoost",
            "CatBoostClassifier(loss_function='MultiLogloss')",
            GAPS,
            "y,y",
            lambda: classifier(loss_function="MultiLogloss", **usual),
        ),
        *(
            Case(
                "CatBoost",
                f"{kind.__name__}({_set(cat_features=list(cats), **more)}){said}",
                ("a", "gap", *cats),
                target,
                lambda kind=kind, cats=cats, more=more: kind(cat_features=list(cats), **{**usual, **more}),
                suffix=suffix,
            )
            for kind, cats, target, more, said, suffix in (
                (classifier, ("city",), "y", {}, "", ".joblib"),
                (classifier, ("city", "size", "code"), "y", {"iterations": 60}, "", ".joblib"),
                (classifier, ("city", "size", "code"), "y", {"iterations": 40, **COMBINED}, "", ".joblib"),
                (classifier, ("city", "size"), "y", {"one_hot_max_size": 10}, "", ".joblib"),
                (classifier, ("city", "size"), "y3", {}, ", three named classes", ".joblib"),
                (regressor, ("city", "size", "code"), "amount", {"iterations": 60}, "", ".joblib"),
                (regressor, ("city", "size"), "amount", {"grow_policy": "Depthwise"}, "", ".joblib"),
                (regressor, ("city", "code"), "amount", {"max_ctr_complexity": 1}, ", a model file", ".cbm"),
            )
        ),
        Case("CatBoost", "CatBoostRegressor", GAPS, "amount", lambda: regressor(**usual)),
        Case(
            "CatBoost",
            "CatBoostRegressor(grow_policy='Lossguide')",
            GAPS,
            "amount",
            lambda: regressor(grow_policy="Lossguide", **usual),
        ),
        Case(
            "CatBoost",
            "CatBoostRegressor(loss_function='Poisson')",
            GAPS,
            "count",
            lambda: regressor(loss_function="Poisson", **usual),
        ),
        Case(
            "CatBoost",
            "CatBoostRegressor(loss_function='Tweedie')",
            GAPS,
            "amount",
            lambda: regressor(loss_function="Tweedie:variance_power=1.5", **usual),
        ),
        Case(
            "CatBoost",
            "CatBoostRegressor(loss_function='MultiRMSE')",
            GAPS,
            "count,amount",
            lambda: regressor(loss_function="MultiRMSE", **usual),
        ),
        Case(
            "CatBoost",
            "CatBoostClassifier, a model file",
            GAPS,
            "y",
            lambda: classifier(**usual),
            suffix=".cbm",
        ),
    ]


def _interpret() -> list[Case]:
    classifier = Lazy("interpret.glassbox", "ExplainableBoostingClassifier")
    regressor = Lazy("interpret.glassbox", "ExplainableBoostingRegressor")
    usual = {"max_rounds": 40, "n_jobs": 1, "interactions": 2, "random_state": 0}
    return [
        Case(
            "InterpretML",
            "ExplainableBoostingClassifier",
            MIXED,
            "y",
            lambda: classifier(**usual),
        ),
        Case(
            "InterpretML",
            "ExplainableBoostingClassifier, three classes",
            MIXED,
            "y3",
            lambda: classifier(**{**usual, "interactions": 0}),
        ),
        Case(
            "InterpretML",
            "ExplainableBoostingRegressor",
            MIXED,
            "amount",
            lambda: regressor(**usual),
        ),
        Case(
            "InterpretML",
            "ExplainableBoostingRegressor(objective='poisson_deviance')",
            MIXED,
            "count",
            lambda: regressor(objective="poisson_deviance", **usual),
        ),
    ]


LIBRARIES: dict[str, tuple[str, Callable[[], list[Case]]]] = {
    "scikit-learn": ("sklearn", _scikit_learn),
    "LightGBM": ("lightgbm", _lightgbm),
    "XGBoost": ("xgboost", _xgboost),
    "CatBoost": ("catboost", _catboost),
    "InterpretML": ("interpret", _interpret),
}
"""For each library its module, and its cases."""
