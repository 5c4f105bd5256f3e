"""What exporters write is served as docs/exporters.md says, with the answers of the libraries themselves.

The models in `models/` were written by the exporters: see make.py, and `make exporters`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from penstock_client import Client, ModelInfo, TensorInfo
from support.servers import RunningServer, running_server

MODELS = Path(__file__).with_name("models")
PAGE = Path(__file__).parents[2] / "docs/exporters.md"
FAMILIES = {path.stem: json.loads(path.read_text()) for path in sorted(MODELS.glob("*.json"))}
ANSWERS: Mapping[str, Any] = {
    name: answer for family in FAMILIES.values() for name, answer in family["models"].items()
}
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|(.*)\|$", re.MULTILINE)
NAMED_APART = ("torchscript_listed", "tf2onnx_open", "keras_export", "paddle_open")
"""Each of their open axes has a name of its own: model.toml says that they are the same."""
DTYPES = {"FP32": np.float32, "INT64": np.int64, "BYTES": np.object_}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("exporters")
    for name in ANSWERS:
        folder = root / name / "1"
        folder.mkdir(parents=True)
        shutil.copy(MODELS / f"{name}.onnx", folder / "model.onnx")
        for weights in MODELS.glob(f"{name}.onnx.data"):
            shutil.copy(weights, folder)
        if name in NAMED_APART:
            (root / name / "model.toml").write_text("[batching]\nenabled = true\n")
    with running_server(root) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.target, timeout=20) as client:
        yield client


def described(info: ModelInfo) -> str:
    """A model as the page writes it."""

    def listed(tensors: list[TensorInfo]) -> str:
        return ", ".join(f"`{each.name} {each}`" for each in tensors if not each.optional)

    how = "batched" if info.batching.enabled else "alone"
    return f"{listed(info.inputs)} → {listed(info.outputs)}; {how}"


def test_every_model_has_a_line_on_the_page_and_every_line_a_model() -> None:
    lines = [name for name, _, _ in ROW.findall(PAGE.read_text())]
    assert sorted(lines) == sorted(ANSWERS)
    assert {path.stem for path in MODELS.glob("*.onnx")} == set(ANSWERS)


def test_the_page_names_the_releases() -> None:
    text = PAGE.read_text()
    missing = [
        f"{name} {release}"
        for family in FAMILIES.values()
        for name, release in family["versions"].items()
        if name != "onnx" and f"{name} {release.partition('+')[0]}" not in text
    ]
    assert not missing


@pytest.mark.parametrize("name", ANSWERS)
def test_it_is_served_as_the_page_says(name: str, client: Client) -> None:
    (line,) = [served for found, _, served in ROW.findall(PAGE.read_text()) if found == name]
    assert line.strip() == described(client.model(name))


@pytest.mark.parametrize("name", ANSWERS)
def test_it_answers_as_the_library_does(name: str, client: Client) -> None:
    inputs, outputs = ANSWERS[name]["inputs"], ANSWERS[name]["outputs"]
    info = client.model(name)
    datatypes = {each.name: DTYPES[each.datatype] for each in info.inputs}
    found = client.predict(name, {key: np.array(value, datatypes[key]) for key, value in inputs.items()})
    for spec, expected in zip(info.outputs, outputs, strict=True):
        array = np.asarray(found[spec.name])
        assert array.shape == np.shape(expected), "as declared, so as a client reads it"
        if spec.datatype == "FP32":
            np.testing.assert_allclose(array, np.array(expected, np.float32), rtol=1e-6, atol=1e-6)
        else:
            assert array.astype(str).tolist() == np.array(expected).astype(str).tolist()


CALLED = ("catboost_classifier", "lightgbm_classifier", "skl2onnx_classifier_texts", "dynamo_decoder")


@pytest.mark.parametrize("name", CALLED)
def test_it_answers_many_callers_as_one(name: str, client: Client) -> None:
    rows = {key: np.array(value, np.float32) for key, value in ANSWERS[name]["inputs"].items()}
    count = len(next(iter(rows.values())))
    alone = [
        client.predict(name, {key: value[row : row + 1] for key, value in rows.items()})
        for row in range(count)
    ]
    wrong: list[str] = []

    def call(row: int) -> None:
        for _ in range(20):
            found = client.predict(name, {key: value[row : row + 1] for key, value in rows.items()})
            for output in alone[row]:
                expected, array = np.asarray(alone[row][output]), np.asarray(found[output])
                floats = array.dtype.kind == "f"
                if not (np.allclose(array, expected, 1e-6, 1e-6) if floats else (array == expected).all()):
                    wrong.append(f"{output}: {array} is not {expected}")

    callers = [Thread(target=call, args=(number % count,)) for number in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not wrong


# What is told


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("catboost_classifier", "ZipMap was cut off: the columns of probabilities are the classes 0, 1"),
        ("skl2onnx_classifier_texts", "the columns of output_probability are the classes no, yes"),
        ("lightgbm_classifier_no_zipmap", "label is declared as label INT64[1] and comes as label INT64[?]"),
        ("catboost_regressor", "declared as predictions FP32[N] and comes as predictions FP32[N,1]"),
    ],
)
def test_what_was_changed_is_told(name: str, changes: str, client: Client, server: RunningServer) -> None:
    assert changes in client.model(name).metadata["penstock.changes"]
    if name.startswith("catboost"):  # the summary has the first twenty models
        assert changes in server.stdout


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("torchscript_fixed", "dynamo=False and dynamic_axes={'x': {0: 'batch'}}"),
        ("dynamo_fixed", "PyTorch leaves it open with dynamic_shapes=({0: 'batch'},)"),
        ("tf2onnx_fixed", "None as its length in the input_signature"),
    ],
)
def test_the_reason_for_running_alone_names_the_exporters_way(name: str, advice: str, client: Client) -> None:
    reason = client.model(name).batching.reason
    assert reason.startswith("the first axis of input x is fixed at 1; ")
    assert advice in reason


def test_weights_as_inputs_are_optional(client: Client) -> None:
    inputs = client.model("torchscript_weights_as_inputs").inputs
    assert [each.name for each in inputs if each.optional] == ["0.weight", "0.bias", "2.weight", "2.bias"]
