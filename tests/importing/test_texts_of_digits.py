"""Columns of texts that look like numbers, booleans or times: what the model was fitted with decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from importing.outcomes import job
from penstock.importing import child

ROWS = 60
HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
FILLED = make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), HOT)
VALUES = {
    "zips": ["01067", "10115", "80331"],
    "booleans": ["True", "False", "True"],
    "floats": ["1.0", "1", "2"],
}


def table(values: list[Any]) -> Any:
    return pd.DataFrame({"b": np.arange(ROWS) % 7, "code": [values[i % len(values)] for i in range(ROWS)]})


def imported(model: Any, frame: Any, folder: Path, suffix: str = "csv", **changes: Any) -> dict[str, Any]:
    path, sample = folder / "model.joblib", folder / f"sample.{suffix}"
    joblib.dump(model, path)
    if suffix == "csv":
        frame.to_csv(sample, index=False)
    elif suffix == "jsonl":
        frame.to_json(sample, orient="records", lines=True)
    else:
        frame.to_parquet(sample)
    return child.run({**job(path, sample, folder), **changes})


def pipeline(step: Any, last: Any, frame: Any, columns: Any = ("code",)) -> Any:
    first = ColumnTransformer([("code", step, columns if isinstance(columns, str) else list(columns))])
    first.set_params(remainder="passthrough")
    return make_pipeline(first, last).fit(frame, frame["code"] == frame["code"][0])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("step", [HOT, ORDINAL, FILLED], ids=["hot", "ordinal", "filled"])
def test_an_encoder_of_texts_takes_texts(step: Any, values: list[str], suffix: str, tmp_path: Path) -> None:
    frame = table(values)
    model = pipeline(step, DecisionTreeClassifier(random_state=0), frame)
    report = imported(model, frame, tmp_path, suffix)
    assert "refused" not in report, report["refused"]
    assert report["inputs"] == ["b FP32[batch,1]", "code BYTES[batch,1]"]
    session = ort.InferenceSession(tmp_path / "model.onnx")
    feeds = {"b": frame[["b"]].to_numpy(np.float32), "code": frame[["code"]].to_numpy(object)}
    assert (session.run(["label"], feeds)[0] == model.predict(frame)).all()


def test_a_vectorizer_takes_texts(tmp_path: Path) -> None:
    frame = table(["101 202", "202", "303"])
    report = imported(pipeline(TfidfVectorizer(), LogisticRegression(), frame, "code"), frame, tmp_path)
    assert "refused" not in report, report["refused"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["101", "202"] * 9, [0, 1] * 9)
    report = imported(model, pd.DataFrame({"said": ["101", "202", "303"]}), tmp_path)
    assert report["inputs"] == ["said BYTES[batch,1]"]


def test_categories_of_a_boosting_are_texts(tmp_path: Path) -> None:
    frame = table(VALUES["zips"]).astype({"code": "category"})
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype")
    model.fit(frame, frame["code"] == "01067")
    report = imported(model, frame, tmp_path)
    assert report["inputs"] == ["b FP32[batch,1]", "code BYTES[batch,1]"], report.get("refused")


def test_a_column_without_values_is_of_texts(tmp_path: Path) -> None:
    model = pipeline(FILLED, LogisticRegression(), table(["a", None]))
    report = imported(model, table([None]), tmp_path)
    assert report["inputs"] == ["b FP32[batch,1]", "code BYTES[batch,1]"], report.get("refused")


def test_numbers_where_the_model_has_texts(tmp_path: Path) -> None:
    model = pipeline(HOT, LogisticRegression(), table(["5", "6"]))
    said = 'column "code" of the sample holds numbers or booleans (5) where the model was fitted with texts'
    for suffix in ("jsonl", "parquet"):
        assert said in imported(model, table([5, 6]), tmp_path, suffix)["refused"]
    assert "refused" not in imported(model, table([5, 6]), tmp_path, "csv")  # "5" in the file


def test_texts_that_the_command_names(tmp_path: Path) -> None:
    model = LogisticRegression().fit(table([1, 2])[["b"]], [0, 1] * (ROWS // 2))
    report = imported(model, table([1, 2]), tmp_path, text=["b"])
    assert "refused" in report
    said = imported(model, table([1, 2]), tmp_path, text=["zip"])["refused"]
    assert said == 'the sample has no column "zip"; it has b, code'


def test_texts_where_the_model_takes_numbers(tmp_path: Path) -> None:
    model = make_pipeline(ColumnTransformer([("code", StandardScaler(), ["code"])]), LogisticRegression())
    model.fit(table([1, 2]), [0, 1] * (ROWS // 2))
    said = imported(model, table(["low", "high"]), tmp_path)["refused"]
    assert "the original fails on the sample: ValueError: could not convert string to float: 'low'" in said
    assert "read as texts: code; as numbers: none; --text COLUMN" in said


def test_numbers_of_a_column_named_like_a_time(tmp_path: Path) -> None:
    rows = np.arange(ROWS)
    frame = pd.DataFrame({"created_at": 40_000_000 + rows, "date": rows / 3})
    model = DecisionTreeClassifier().fit(frame, rows > 30)
    report = imported(model, frame, tmp_path, "jsonl")
    assert report["inputs"] == ["created_at FP32[batch,1]", "date FP32[batch,1]"], report.get("refused")


def test_numbers_that_are_quoted_in_json_stay_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["1.5", "NaN", "2.5"], "b": [1.0, 2.0, None]})
    model = HistGradientBoostingClassifier().fit([[1.0, 2.0], [3.0, 1.0]] * 20, [0, 1] * 20)
    report = imported(model, frame, tmp_path, "jsonl")
    assert report.get("inputs") == ["a FP32[batch,1]", "b FP32[batch,1]"], report


def test_lines_that_are_no_json_objects(tmp_path: Path) -> None:
    model = DecisionTreeClassifier().fit([[1.0], [2.0]], [0, 1])
    path, sample = tmp_path / "model.joblib", tmp_path / "sample.jsonl"
    joblib.dump(model, path)
    for text, said in (('{"a": 1}\n[1]\n', "line 2 is no JSON object"), ("\n{a}\n", "line 2 is no JSON: ")):
        sample.write_text(text)
        assert f"{sample}: {said}" in child.run(job(path, sample, tmp_path))["refused"]
