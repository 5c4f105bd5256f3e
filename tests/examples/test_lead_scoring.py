"""The bundled model is what its script trains, and scores as scikit-learn does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from support import zoo

COMMITTED = zoo.EXAMPLES / "models" / "lead_scoring" / "1" / "model.onnx"
README = zoo.EXAMPLES / "lead_scoring" / "README.md"


@pytest.fixture(scope="module")
def train() -> Any:
    """The script. It imports scikit-learn, which takes seconds: not in every process that collects tests."""
    return zoo.example("lead_scoring/train.py")


@pytest.fixture(scope="module")
def pipeline(train: Any) -> Any:
    return train.fit(train.make_leads(train.ROWS, train.SEED))


@pytest.fixture(scope="module")
def unseen(train: Any) -> Any:
    """1,000 leads that are not in the training data, some of a source that is not there either."""
    features = train.make_leads(1000, seed=123).features
    features[::50, 0] = "carrier_pigeon"
    features[1::50, 0] = ""
    return features


@pytest.fixture
def session() -> Any:
    return ort.InferenceSession(COMMITTED)


def structure(model: onnx.ModelProto) -> list[Any]:
    """Everything about a graph but its numbers."""
    graph = model.graph
    return [
        [(node.op_type, list(node.input), list(node.output)) for node in graph.node],
        [value.SerializeToString(deterministic=True) for value in (*graph.input, *graph.output)],
        [(each.name, each.data_type, list(each.dims)) for each in graph.initializer],
    ]


def test_training_again_gives_the_committed_model(
    train: Any, pipeline: Any, unseen: Any, tmp_path: Path
) -> None:
    path = train.write(train.export(pipeline), tmp_path)
    assert path == tmp_path / "lead_scoring" / "1" / "model.onnx"
    assert structure(onnx.load(path)) == structure(onnx.load(COMMITTED))
    inputs = train.as_inputs(unseen)
    labels, probabilities = ort.InferenceSession(path).run(None, inputs)
    committed_labels, committed_probabilities = ort.InferenceSession(COMMITTED).run(None, inputs)
    np.testing.assert_allclose(probabilities, committed_probabilities, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(labels, committed_labels)


def test_committed_model_scores_as_scikit_learn_does(
    train: Any, pipeline: Any, unseen: Any, session: Any
) -> None:
    labels, probabilities = session.run(["label", "probabilities"], train.as_inputs(unseen))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(unseen), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(labels, pipeline.predict(unseen))


def test_signature(session: Any) -> None:
    def declared(values: Any) -> list[tuple[str, str, Any]]:
        return [(each.name, each.type, each.shape) for each in values]

    assert declared(session.get_inputs()) == [
        ("lead_source", "tensor(string)", ["N", 1]),
        ("number_of_courses_viewed", "tensor(int64)", ["N", 1]),
        ("annual_income", "tensor(float)", ["N", 1]),
    ]
    assert declared(session.get_outputs()) == [
        ("label", "tensor(int64)", ["N"]),
        ("probabilities", "tensor(float)", ["N", 2]),
    ]


def test_file_says_what_it_is(train: Any, session: Any) -> None:
    about = session.get_modelmeta()
    assert about.description == train.DESCRIPTION
    assert about.custom_metadata_map == {"author": "Penstock", "version": "1"}
    assert about.version == 1
    assert COMMITTED.stat().st_size < 2000


def test_finds_the_rule_behind_the_data(train: Any, session: Any) -> None:
    """The odds of the rule in the script's docstring, worked out by hand, are the model's to 3 %."""
    leads = {
        ("paid_ads", 1, 50_000.0): -2.2 - 0.6 + 0.8 - 0.2,
        ("paid_ads", 4, 50_000.0): -2.2 - 0.6 + 3.2 - 0.2,
        ("paid_ads", 1, 90_000.0): -2.2 - 0.6 + 0.8 + 0.6,
        ("referral", 1, 50_000.0): -2.2 + 1.0 + 0.8 - 0.2,
    }
    truth = 1 / (1 + np.exp(-np.array(list(leads.values()))))
    found = session.run(None, train.as_inputs(np.array(list(leads), object)))[1][:, 1]
    np.testing.assert_allclose(found, truth, rtol=0, atol=0.03)


def test_readme_shows_what_the_script_prints(
    train: Any, monkeypatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--repository", str(tmp_path)])
    train.main()
    assert capsys.readouterr().out.splitlines()[0] in README.read_text()


def test_readme_gives_the_models_answer(train: Any, session: Any) -> None:
    lead = np.array([["paid_ads", 2, 79276.0]], object)
    label, probabilities = session.run(None, train.as_inputs(lead))
    text = " ".join(README.read_text().split())
    assert f"with probability {probabilities[0, 1]:.3f}, so its label is {label[0]}." in text
