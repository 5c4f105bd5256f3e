"""Imports of scikit-learn's models: a part of what `python -m tests.importing` does with every library."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier

from importing.cases import LIBRARIES, Case
from importing.data import table
from importing.outcomes import ROWS, job, outcome
from penstock.cli.import_model import _found
from penstock.importing import child, hard_rows
from penstock.importing.errors import Refused
from penstock.importing.table import Column, in_order
from penstock.importing.trees import Ensemble, Leaf, Split, attributes, member

KNOWN_LOST = (
    "LinearDiscriminantAnalysis, two classes",
    "RandomForestClassifier, missing values",
    "HistGradientBoostingRegressor(loss='poisson')",
    "HistGradientBoostingClassifier, categories",
    "SimpleImputer of texts, most frequent",
    "OneHotEncoder(drop='first')",
    "OrdinalEncoder(unknown_value=-1)",
    "TfidfVectorizer",
    "TfidfVectorizer(stop_words='english')",
    "TfidfVectorizer(sublinear_tf=True)",
    "StandardScaler and RandomForestRegressor",
    "MinMaxScaler and RandomForestRegressor",
    "RobustScaler and HistGradientBoostingRegressor, whole numbers",
    "TfidfVectorizer and RandomForestClassifier",
    "StandardScaler and HistGradientBoostingRegressor",
    "MinMaxScaler(clip=True) and HistGradientBoostingRegressor",
    "ColumnTransformer of scaled columns and HistGradientBoostingRegressor",
    "OneHotEncoder of booleans and None",
    "OrdinalEncoder of booleans and None",
    "SimpleImputer of booleans and NaN, OneHotEncoder",
    "OrdinalEncoder of texts and None",
)
"""What skl2onnx alone loses or rejects."""

REFUSED = {
    "FunctionTransformer(abs)": "Python code is not converted",
    "TfidfVectorizer(analyzer='char')": "use analyzer='word'",
    "SimpleImputer of booleans and None, OneHotEncoder": "make NaN of None (frame.fillna(numpy.nan))",
    "TfidfVectorizer(strip_accents='unicode')": "take accents off the texts before they are sent",
}


@pytest.fixture(scope="module")
def frame() -> Any:
    return table(ROWS, 1)


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {each.name: each for each in LIBRARIES["scikit-learn"][1]()}


@pytest.mark.parametrize("name", KNOWN_LOST)
def test_what_converters_lose_is_right(cases: dict[str, Case], frame: Any, tmp_path: Path, name: str) -> None:
    result = outcome(cases[name], tmp_path, frame)
    assert (result.result, result.rows > 100) == ("right", True), result.why


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused(
    cases: dict[str, Case], frame: Any, tmp_path: Path, name: str
) -> None:
    result = outcome(cases[name], tmp_path, frame)
    assert result.result == "refused"
    assert REFUSED[name] in result.why


def imported(model: Any, frame: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    """The report of an import of a fitted model, with a sample."""
    path, sample = folder / "model.joblib", folder / "sample.csv"
    joblib.dump(model, path)
    frame.to_csv(sample, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return child.run({**job(path, sample, folder), **changes})


def test_one_vector_gives_what_columns_give(frame: Any, tmp_path: Path) -> None:
    names = ["a", "gap", "c"]
    model = make_pipeline(ColumnTransformer([("all", SimpleImputer(), names)]), LinearRegression())
    model.fit(frame[names], frame["amount"])
    report = imported(model, frame[names], tmp_path, vector=True)
    assert report["inputs"] == ["x FP32[batch,3]"]
    assert report["outputs"] == ["prediction FP32[batch,1]"]
    session = ort.InferenceSession(tmp_path / "model.onnx")
    got = session.run(None, {"x": frame[names].to_numpy(np.float32)})[0]
    assert np.abs(got.ravel() - model.predict(frame[names])).max() < 1e-5


def test_a_wrong_file_is_refused_with_its_worst_row(
    frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.importing import scikit_learn

    convert = scikit_learn.ScikitLearn.convert

    def wrong(self: Any, inputs: Any) -> Any:
        made = convert(self, inputs)
        (weights,) = [
            each for node in made.graph.node for each in node.attribute if each.name == "coefficients"
        ]
        weights.floats[0] *= 1.01
        return made

    monkeypatch.setattr(scikit_learn.ScikitLearn, "convert", wrong)
    model = LinearRegression().fit(frame[["a", "c"]], frame["amount"])
    report = imported(model, frame[["a", "c"]], tmp_path)
    assert report["refused"].startswith("on the sample the ONNX file differs from the original: 400 rows: ")
    assert "prediction: expected" in report["refused"]
    assert '"a": ' in report["refused"]
    assert not (tmp_path / "golden.jsonl").exists()


def test_a_file_that_has_no_answer_for_each_row_is_refused(
    frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.importing import scikit_learn

    convert = scikit_learn.ScikitLearn.convert

    def in_one_row(self: Any, inputs: Any) -> Any:
        made = convert(self, inputs)
        helper = onnx.helper
        for node in made.graph.node:
            node.output[:] = ["column" if each == "prediction" else each for each in node.output]
        made.graph.node.append(helper.make_node("Transpose", ["column"], ["prediction"]))
        del made.graph.output[0].type.tensor_type.shape.dim[:]
        return made

    monkeypatch.setattr(scikit_learn.ScikitLearn, "convert", in_one_row)
    model = LinearRegression().fit(frame[["a", "c"]], frame["amount"])
    report = imported(model, frame[["a", "c"]], tmp_path)
    assert report["refused"] == (
        "the converted file gives prediction in the shape [1, 400] for 400 rows, expected one for each row"
    )


def test_labels_lie_along_the_rows(frame: Any, tmp_path: Path) -> None:
    """The converter of quadratic discriminant analysis puts them into one row."""
    model = QuadraticDiscriminantAnalysis().fit(
        frame[["a", "c"]], (frame["amount"] > frame["amount"].median()).astype(int)
    )
    report = imported(model, frame[["a", "c"]], tmp_path)
    assert report["outputs"] == ["label INT64[batch]", "probabilities FP32[batch,2]"]
    assert report["classes"] == [0, 1]


def test_a_missing_text_is_said_in_the_file(frame: Any, tmp_path: Path) -> None:
    text = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    for columns, said in ((["city"], {"penstock.missing_text": '""'}), (["a"], {})):
        given = frame[columns].fillna({"city": "none", "a": 0})
        imported(text.fit(given, (frame["amount"] > frame["amount"].median()).astype(int)), given, tmp_path)
        session = ort.InferenceSession(str(tmp_path / "model.onnx"))
        assert session.get_modelmeta().custom_metadata_map == said


def test_what_is_written(frame: Any, tmp_path: Path) -> None:
    import tomllib

    model = make_pipeline(
        ColumnTransformer(
            [("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]), ("a", "passthrough", ["a"])]
        ),
        LogisticRegression(),
    ).fit(frame[["plan", "a"]], frame["y"])
    report = imported(model, frame[["y", "plan", "a", "city"]], tmp_path, target="y")
    assert report["ignored"] == ["city"]
    first, *rows = [json.loads(line) for line in (tmp_path / "golden.jsonl").read_text().splitlines()]
    assert first == {"golden": {"tolerance": {"probabilities": pytest.approx(1e-4, rel=0.1)}}}
    assert len(rows) == report["golden"] > ROWS
    assert {tuple(each) for each in rows} == {("plan", "a", "label", "probabilities")}
    written = tomllib.loads((tmp_path / "version.toml").read_text())
    assert written["sample"]["rows"] == ROWS
    assert written["versions"]["scikit-learn"]
    assert written["verified"]["largest"] < 1e-5
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["inputs"]["plan"]["missing"] == pytest.approx(frame["plan"].isna().mean(), abs=1e-4)
    assert profile["inputs"]["a"]["min"] == pytest.approx(frame["a"].min())


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["a"], "the sample lacks columns of the model: c; it has a"),
        (["a", "c", "when"], None),
    ],
)
def test_columns_of_the_sample(frame: Any, tmp_path: Path, columns: Sequence[str], said: str | None) -> None:
    model = LinearRegression().fit(frame[["a", "c"]], frame["amount"])
    given = frame.assign(when="2026-01-01")[list(columns)]
    report = imported(model, given, tmp_path)
    if said is None:
        assert report["ignored"] == ["when"]
    else:
        assert report["refused"] == said


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ({"model": 1}, "the file holds a dict with model: save the model alone"),
        ([1, 2], "which has neither predict nor transform"),
        (
            FunctionTransformer(np.log1p).fit([[1.0, 2.0]]),
            "FunctionTransformer(log1p): Python code is not converted",
        ),
    ],
)
def test_what_is_no_model(frame: Any, tmp_path: Path, thing: Any, said: str) -> None:
    assert said in imported(thing, frame[["a", "d"]], tmp_path)["refused"]


def test_a_broken_pickle_is_refused(tmp_path: Path) -> None:
    path, sample = tmp_path / "model.pkl", tmp_path / "sample.csv"
    path.write_bytes(b"\x80\x04nothing")
    sample.write_text("a\n1\n")
    assert "it cannot be loaded" in child.run(job(path, sample, tmp_path))["refused"]


def test_rows_that_the_original_refuses_are_named(frame: Any, tmp_path: Path) -> None:
    model = make_pipeline(ColumnTransformer([("plan", OneHotEncoder(), ["city"])]), LogisticRegression())
    model.fit(frame[["city"]], frame["y"])
    report = imported(model, frame[["city"]], tmp_path)
    assert "refused" not in report
    assert "unseen in city" in report["not_compared"]
    assert "Found unknown categories" in report["not_compared"]["unseen in city"]


@pytest.mark.parametrize(("flags", "flag"), [({"target": "c"}, "--target"), ({"drop": ["c"]}, "--drop")])
def test_a_target_that_is_an_input_is_said(
    frame: Any, tmp_path: Path, flags: dict[str, Any], flag: str
) -> None:
    model = LinearRegression().fit(frame[["a", "c"]], frame["amount"])
    report = imported(model, frame[["a", "c"]], tmp_path, **flags)
    assert report["refused"].endswith(
        f"it has a; {flag} took c, which is an input of the model: leave that out"
    )


def test_a_missing_text_of_a_vectorizer_is_the_empty_text(frame: Any, tmp_path: Path) -> None:
    given = frame[["note", "a"]].assign(note=frame["note"].where(frame["a"] > -1, ""))
    words = ColumnTransformer([("note", TfidfVectorizer(), "note"), ("a", "passthrough", ["a"])])
    model = make_pipeline(words, LogisticRegression()).fit(given, frame["y"])
    report = imported(model, given, tmp_path)
    assert "refused" not in report
    rows = [json.loads(line) for line in (tmp_path / "golden.jsonl").read_text().splitlines()[1 : ROWS + 1]]
    assert sum(each["note"] == "" for each in rows) == (given["note"] == "").sum() > 0
    wanted = model.predict_proba(given)
    assert np.abs(np.array([each["probabilities"] for each in rows]) - wanted).max() < 1e-6


def test_an_original_that_takes_no_missing_texts_is_told_where_they_are(frame: Any, tmp_path: Path) -> None:
    encoded = ColumnTransformer([("city", OrdinalEncoder(), ["city"])])
    model = make_pipeline(encoded, LogisticRegression()).fit(frame[["city"]], frame["y"])
    given = frame[["city", "a"]].assign(city=frame["city"].where(frame["a"] > -1, ""))
    report = imported(model, given, tmp_path)
    count = (given["city"] == "").sum()
    assert f"missing texts are in city ({count} rows): if it takes none, leave" in report["refused"]


def test_hard_rows_change_one_value_each() -> None:
    frame = pd.DataFrame({"number": [1.0, 5.0, 9.0], "text": ["x", "y", "z"]})
    made = list(hard_rows.hard_rows(frame, [Column("number", False), Column("text", True)]))
    assert {what for what, _ in made} == {
        *("missing in number", "extremes in number"),
        *("missing in text", "unseen in text", "texts in text"),
    }
    for _, rows in made:
        assert sum(not rows[name].equals(frame[name]) for name in frame) <= 1
    left = list(hard_rows.hard_rows(frame, [Column("text", True)], ["missing", "texts"]))
    assert {what for what, _ in left} == {"unseen in text"}


def run_trees(*trees: Any) -> Any:
    """Sums of trees for the values 0 to 3, infinity and a missing one."""
    from onnx import TensorProto, helper

    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        **attributes(Ensemble(1, [0.5], list(trees))),
    )
    ends = [
        [helper.make_tensor_value_info(name, kind, ["n", 1])]
        for name, kind in (("x", TensorProto.DOUBLE), ("y", TensorProto.FLOAT))
    ]
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(helper.make_graph([node], "trees", *ends), opset_imports=opsets, ir_version=8)
    values = np.array([[0.0], [1], [2], [3], [np.inf], [np.nan]])
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": values})[0].ravel().tolist()


@pytest.mark.parametrize("missing", [True, False])
def test_members_of_a_set(missing: bool) -> None:
    low, high = Leaf({0: 1.0}), Leaf({0: 2.0})
    last = 1.5 if missing else 2.5
    assert run_trees(member(0, [1, 3], low, high, missing)) == [2.5, 1.5, 2.5, 1.5, 2.5, last]
    assert run_trees(member(0, [], low, high, missing)) == [2.5, 2.5, 2.5, 2.5, 2.5, last]


def test_thresholds_are_not_rounded() -> None:
    """1 + 1e-12 is 1 in FP32: a value of 1 is not below it otherwise."""
    tree = Split(0, "LT", 1 + 1e-12, Leaf({0: 1.0}), Leaf({0: 2.0}), missing_yes=True)
    assert run_trees(tree) == [1.5, 1.5, 2.5, 2.5, 2.5, 1.5]


def test_a_forest_fitted_on_an_array_takes_columns_in_order(frame: Any, tmp_path: Path) -> None:
    names = ["b", "a"]
    model = RandomForestClassifier(5, random_state=0).fit(frame[names].to_numpy(), frame["y"])
    report = imported(model, frame[[*names, "y"]], tmp_path, target="y")
    assert [each.partition(" ")[0] for each in report["inputs"]] == names
    assert report["by_position"] == names
    assert next(each for each in _found(report) if "by place" in each) == (
        "  by place   the model knows no column names: column 1 is b, 2 is a"
    )
    named = RandomForestClassifier(5, random_state=0).fit(frame[names], frame["y"])
    assert imported(named, frame[[*names, "y"]], tmp_path, target="y")["by_position"] == []
    report = imported(model, frame[[*names, "y"]], tmp_path)
    assert "was fitted on 2 columns without names, the sample has 3: b, a, y" in report["refused"]


def test_where_two_classes_are_as_probable_either_label_is_right(tmp_path: Path) -> None:
    """The only leaf has one half for both: what decides is the last digit."""
    sample = pd.DataFrame({"a": [0.0, 0.0], "y": [0, 1]})
    model = RandomForestClassifier(3, bootstrap=False, random_state=0).fit(sample[["a"]], sample["y"])
    report = imported(model, sample, tmp_path, target="y")
    assert report["sample"] == "2 rows: no labels differ, largest 0"
    assert report["ties"] >= 2


def test_a_booster_that_knows_names_does_not_take_others() -> None:
    sample = pd.DataFrame({"x": [1.0], "y": [2.0]})
    assert in_order("a booster", ["y", "x"], sample) == (["y", "x"], False)
    for own in (None, ["Column_0", "Column_1"], ["f0", "f1"], ["0", "1"]):
        assert in_order("a booster", own, sample) == (["x", "y"], True)
    with pytest.raises(Refused, match=r"lacks columns of the model \(a booster\): age; it has x, y"):
        in_order("a booster", ["age", "x"], sample)


def test_several_targets_of_classes_are_refused(frame: Any, tmp_path: Path) -> None:
    targets = np.column_stack([frame["y"], frame["y3"] == "low"])
    for model in (DecisionTreeClassifier(max_depth=2), MultiOutputClassifier(LogisticRegression())):
        model.fit(frame[["a", "c"]], targets)
        said = imported(model, frame[["a", "c"]], tmp_path)["refused"]
        assert "predicts the classes of several targets: train one classifier for each" in said


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_votes_with_weights(frame: Any, tmp_path: Path, voting: str) -> None:
    members = [("a", LogisticRegression(max_iter=500)), ("b", DecisionTreeClassifier(max_depth=2))]
    model = VotingClassifier([*members, ("c", GaussianNB())], voting=voting, weights=[1, 3, 1.5])
    report = imported(model.fit(frame[["a", "c"]], frame["y3"]), frame[["a", "c"]], tmp_path)
    assert "refused" not in report, report["refused"]


@pytest.mark.parametrize(("text", "is_named"), [("a plain text", False), (hard_rows.TEXTS[0], True)])
def test_the_way_texts_are_split_is_named_only_where_it_may_be_the_reason(text: str, is_named: bool) -> None:
    from types import SimpleNamespace

    from sklearn.feature_extraction.text import CountVectorizer

    from penstock.importing.known_losses import known_loss

    original = SimpleNamespace(model=CountVectorizer())
    assert ("--leave-out texts" in known_loss(original, {"note": text, "a": 1.0})) is is_named
    assert known_loss(original, {}) == ""
