"""Boosters on categories: where `make importing` has installed their libraries."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest

from importing.cases import LIBRARIES
from importing.data import table
from importing.outcomes import ROWS, job, outcome
from penstock.importing import child

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
catboost = pytest.importorskip("catboost")

FEW = {"n_estimators": 12, "verbose": -1, "n_jobs": 1, "min_child_samples": 4, "min_data_per_group": 4}
QUIET = {"iterations": 12, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


@pytest.fixture(scope="module")
def frame() -> Any:
    return table(ROWS, 1)


def imported(model: Any, frame: Any, folder: Path, suffix: str = "csv", **changes: Any) -> dict[str, Any]:
    path, sample = folder / "model.joblib", folder / f"sample.{suffix}"
    joblib.dump(model, path)
    frame.to_csv(sample, index=False) if suffix == "csv" else frame.to_parquet(sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return child.run({**job(path, sample, folder), **changes})


@pytest.mark.parametrize("library", ["LightGBM", "XGBoost", "CatBoost"])
def test_categories_are_right_or_refused_with_a_reason(library: str, frame: Any, tmp_path: Path) -> None:
    cases = [each for each in LIBRARIES[library][1]() if {"city", "size"} & {*each.columns}]
    assert len(cases) > 4
    for case in cases:
        folder = tmp_path / str(cases.index(case))
        folder.mkdir()
        result = outcome(case, folder, frame)
        is_refused = "behind a Column" in case.name or "accents" in case.name
        assert result.result == ("refused" if is_refused else "right"), (case.name, result.why)


def test_numbers_of_categories_lose_their_decimals_as_in_lightgbm(frame: Any, tmp_path: Path) -> None:
    names = ["a", "c"]
    model = lightgbm.LGBMClassifier(max_cat_to_onehot=1, **FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame[names], frame["y"], categorical_feature=["c"])
    assert "refused" not in imported(model, frame[names], tmp_path)
    asked = pd.DataFrame({"a": 0.0, "c": np.arange(-2, 9, 0.25)})
    session = ort.InferenceSession(tmp_path / "model.onnx")
    got = session.run(["probabilities"], {each: asked[[each]].to_numpy(np.float32) for each in names})[0]
    assert np.abs(got - model.predict_proba(asked)).max() < 1e-6


def test_texts_of_digits_are_categories(frame: Any, tmp_path: Path) -> None:
    given = frame[["a"]].assign(zip=np.array(["01067", "10115", "80331"])[frame["c"] % 3])
    model = lightgbm.LGBMRegressor(**FEW).fit(given.astype({"zip": "category"}), frame["amount"])
    assert imported(model, given, tmp_path)["inputs"] == ["a FP32[batch,1]", "zip BYTES[batch,1]"]
    model = catboost.CatBoostRegressor(cat_features=["zip"], **QUIET).fit(given, frame["amount"])
    assert "the sample lacks categories of zip" in imported(model, given, tmp_path)["refused"]
    assert "refused" not in imported(model, given, tmp_path, text=["zip"])


def test_ordered_categories_need_a_sample_that_says_which_they_are(frame: Any, tmp_path: Path) -> None:
    sizes = pd.Categorical(frame["size"], categories=["S", "M", "L"], ordered=True)
    given = frame[["a", "city"]].assign(size=sizes).astype({"city": "category"})
    model = lightgbm.LGBMRegressor(**FEW).fit(given, frame["amount"])
    assert "give a sample of Parquet" in imported(model, given, tmp_path)["refused"]
    assert "refused" not in imported(model, given, tmp_path, "parquet")


def test_numbers_of_categories_that_mean_nothing_are_refused(frame: Any, tmp_path: Path) -> None:
    values = frame[["a", "c"]].to_numpy()
    data = xgboost.DMatrix(values, frame["y"], feature_types=["float", "c"], enable_categorical=True)
    model = xgboost.train({"objective": "binary:logistic"}, data, 3)
    said = imported(model, frame[["a", "c"]], tmp_path)["refused"]
    assert "it has numbers of categories, and not what they stand for" in said


def test_a_category_that_the_sample_lacks_is_refused(frame: Any, tmp_path: Path) -> None:
    for one_hot in (2, 10):
        model = catboost.CatBoostClassifier(cat_features=["size"], one_hot_max_size=one_hot, **QUIET)
        model.fit(frame[["size", "c"]], frame["size"] == "M")
        sample = frame.loc[frame["size"] != "M", ["size", "c"]]
        said = imported(model, sample, tmp_path)["refused"]
        assert "the sample lacks categories of size that the model knows" in said


def test_large_numbers_are_taken_as_texts(frame: Any, tmp_path: Path) -> None:
    given = frame[["a"]].assign(user=123_456_789 + frame["c"])
    model = catboost.CatBoostRegressor(cat_features=["user"], **QUIET).fit(given, frame["amount"])
    said = imported(model, given, tmp_path)["refused"]
    assert "which FP32 rounds: take them as texts with --text user" in said
    assert "refused" not in imported(model, given, tmp_path, text=["user"])
