"""Classes of every type that scikit-learn takes: labels are INT64 or texts, and those of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from importing.outcomes import job
from penstock.importing import child
from penstock.importing.labels import as_labels
from penstock.importing.trees_sklearn import NotCarried

Y = np.arange(90) % 3 == 0
TARGETS = {
    "float": Y.astype(float),
    "bool": Y,
    "int8": Y.astype(np.int8),
    "uint8": Y.astype(np.uint8),
    "negative": np.where(Y, -1, 7),
    "negative float": np.where(Y, -1.0, 7.0),
    "texts of numpy": np.array([np.str_(each) for each in np.where(Y, "é", "n")], object),
}


def sample() -> Any:
    random = np.random.default_rng(0)
    return pd.DataFrame({"a": Y + random.normal(0, 0.3, 90), "b": random.normal(0, 1, 90)}).round(3)


def imported(model: Any, folder: Path) -> dict[str, Any]:
    path, table = folder / "model.joblib", folder / "sample.csv"
    joblib.dump(model, path)
    sample().to_csv(table, index=False)
    return child.run(job(path, table, folder))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_depth=3),
        LogisticRegression(),
        SGDClassifier(random_state=0),
        KNeighborsClassifier(),
        GaussianNB(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_labels_of_every_type(model: Any, kind: str, tmp_path: Path) -> None:
    frame = sample()
    model.fit(frame, TARGETS[kind])
    report = imported(model, tmp_path)
    assert "refused" not in report, report["refused"]
    session = ort.InferenceSession(tmp_path / "model.onnx")
    feeds = {name: frame[[name]].to_numpy(np.float32) for name in frame}
    (got,) = session.run(["label"], feeds)
    assert got.dtype == (object if kind == "texts of numpy" else np.int64)
    assert got.tolist() == list(model.predict(frame))


def test_inner_classifiers_have_labels_of_their_own(tmp_path: Path) -> None:
    model = VotingClassifier([("a", RandomForestClassifier(3)), ("b", GaussianNB())], voting="soft")
    report = imported(model.fit(sample(), Y.astype(float)), tmp_path)
    assert "refused" not in report, report["refused"]


def test_numbers_that_are_no_labels() -> None:
    assert as_labels([2.0, -3.0]).tolist() == [2, -3]
    for classes in ([0.5, 1.5], [np.nan, 1.0], [1e20], np.array([2**63], np.uint64), [1j]):
        with pytest.raises(NotCarried, match=r"^the classes .*: a label is a"):
            as_labels(classes)


def test_labels_that_the_converter_cuts_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = SGDClassifier(random_state=0).fit(sample(), np.where(Y, 2**40, 3))
    assert "known: labels beyond 2,147,483,647 are cut" in imported(model, tmp_path)["refused"]


def test_other_conversions_of_the_process_keep_the_converters_of_skl2onnx(tmp_path: Path) -> None:
    model = DecisionTreeClassifier(max_depth=3).fit(sample()[["a", "b"]].to_numpy(), TARGETS["bool"])
    before = to_onnx(model, np.zeros((1, 2), np.float32), target_opset=17).graph.node
    imported(model, tmp_path)
    after = to_onnx(model, np.zeros((1, 2), np.float32), target_opset=17).graph.node
    assert [each.op_type for each in after] == [each.op_type for each in before]
