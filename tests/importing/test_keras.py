"""Models of Keras: where `make importing-keras` has installed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from importing.networks import lists, numbers, write
from importing.outcomes import job
from penstock.importing import child

pytest.importorskip("keras", reason="Keras is not installed here: make importing-keras")
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

IMAGE = (6, 6, 3)


@pytest.fixture(scope="module")
def keras() -> Any:
    from importing.networks_keras import _keras

    return _keras()


def convolution(keras: Any) -> Any:
    layers = keras.layers
    hidden = (layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D())
    return keras.Sequential([keras.Input(IMAGE), *hidden, layers.Dense(2)])


def imported(model: Any, frame: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    model.save(folder / "model.keras")
    return child.run({**job(folder / "model.keras", write(frame, folder), folder), **changes})


@pytest.mark.parametrize("vector", [False, True])
def test_columns_or_one_vector(keras: Any, tmp_path: Path, vector: bool) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    report = imported(model, numbers(50, 1), tmp_path, vector=vector)
    assert "refused" not in report, report["refused"]
    assert report["by_position"] == list(numbers(1, 1))
    asked = numbers(20, 2).astype(np.float32)
    feeds = {"x": asked.to_numpy()} if vector else {name: asked[[name]].to_numpy() for name in asked}
    got = ort.InferenceSession(tmp_path / "model.onnx").run(["prediction"], feeds)[0]
    assert np.abs(got - np.asarray(model(asked.to_numpy()))).max() < 1e-5


def test_lists_are_one_input(keras: Any, tmp_path: Path) -> None:
    report = imported(convolution(keras), lists(40, 1, *IMAGE), tmp_path)
    assert "refused" not in report, report["refused"]
    assert report["inputs"] == ["values FP32[batch,6,6,3]"]
    assert report["outputs"] == ["prediction FP32[batch,2]"]
    rows = [json.loads(line) for line in (tmp_path / "golden.jsonl").read_text().splitlines()[1:]]
    assert np.shape(rows[0]["values"]) == IMAGE
    assert "NaN" in json.dumps(rows[-1]) or any("NaN" in json.dumps(each) for each in rows)
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["inputs"]["values"]["min"] < -2


def test_lists_of_another_shape(keras: Any, tmp_path: Path) -> None:
    said = imported(convolution(keras), lists(40, 1, 6, 6, 1), tmp_path)["refused"]
    assert '[rows, 6, 6, 3], and column "values" holds [6, 6, 1]' in said
    ragged = lists(3, 1, *IMAGE)
    ragged.at[1, "values"] = np.zeros((5, 6, 3))
    said = imported(convolution(keras), ragged, tmp_path)["refused"]
    assert 'column "values" holds lists of different shapes: [5, 6, 3], [6, 6, 3]' in said


def test_other_columns_than_the_model_takes(keras: Any, tmp_path: Path) -> None:
    said = imported(convolution(keras), numbers(20, 1, 5), tmp_path)["refused"]
    assert "of 108 numbers; the sample has 5 columns: a, c, d, zero, n0; name the target" in said
    said = imported(convolution(keras), numbers(20, 1).assign(city="Oslo"), tmp_path)["refused"]
    assert "takes numbers; these columns hold texts: city" in said


def test_an_open_axis_is_refused_with_a_way_out_that_works(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
    frame = lists(30, 1, 8, 3)
    said = imported(model, frame, tmp_path)["refused"]
    assert "[rows, ?, 3]: an open axis is lost or misread in recurrent layers" in said
    way = said[said.index("fixed = ") :].replace("'fixed.keras'", repr(str(tmp_path / "fixed.keras")))
    exec(way, {"keras": keras, "model": model})
    report = child.run(job(tmp_path / "fixed.keras", tmp_path / "sample.jsonl", tmp_path))
    assert "refused" not in report, report["refused"]
    assert report["inputs"] == ["values FP32[batch,8,3]"]


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK")
    sample = write(numbers(5, 1), tmp_path)
    assert "cannot load it" in child.run(job(tmp_path / "model.keras", sample, tmp_path))["refused"]


@pytest.mark.parametrize(("flavor", "file"), [("keras", "model.keras"), ("tensorflow", "model.h5")])
def test_a_folder_of_mlflow(keras: Any, tmp_path: Path, flavor: str, file: str) -> None:
    folder, sample = tmp_path / "run", write(numbers(50, 1), tmp_path)
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(f"flavors:\n  {flavor}:\n    data: data\n  python_function: {{}}\n")
    said = child.run(job(folder, sample, tmp_path))["refused"]
    assert said == f"{folder}: its flavor {flavor} has none of model.keras, model.h5, model in data"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(folder / "data" / file)
    report = child.run(job(folder, sample, tmp_path))
    assert "refused" not in report, report["refused"]
