"""Models of PyTorch: where `make importing-torch` has installed it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from importing.data import table
from importing.outcomes import ROWS, job
from penstock.importing import child

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

NAMES = ["a", "c", "d"]


@pytest.fixture(scope="module")
def frame() -> Any:
    return table(ROWS, 1)[NAMES]


def module() -> Any:
    torch.manual_seed(0)
    layers = torch.nn
    hidden = (layers.BatchNorm1d(3), layers.Linear(3, 8), layers.ReLU(), layers.Dropout(0.5))
    return layers.Sequential(*hidden, layers.Linear(8, 2), layers.Softmax(1))


def whole(model: Any, path: Path) -> None:
    torch.save(model, path)


def script(model: Any, path: Path) -> None:
    torch.jit.script(model.eval()).save(path)


def program(model: Any, path: Path) -> None:
    rows = {0: torch.export.Dim.DYNAMIC}
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 3),), dynamic_shapes=(rows,)), path)


def fixed(model: Any, path: Path) -> None:
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 3),)), path)


def weights(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path)


def imported(save: Any, frame: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    path, sample = folder / ("model.pt2" if save in (program, fixed) else "model.pt"), folder / "sample.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(module(), path)
    frame.to_csv(sample, index=False)
    return child.run({**job(path, sample, folder), **changes})


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("save", [whole, script, program])
def test_a_model_of_numbers(save: Any, vector: bool, frame: Any, tmp_path: Path) -> None:
    report = imported(save, frame, tmp_path, vector=vector)
    assert "refused" not in report, report["refused"]
    assert report["by_position"] == NAMES
    asked = table(50, 2)[NAMES].astype(np.float32)
    feeds = {"x": asked.to_numpy()} if vector else {each: asked[[each]].to_numpy() for each in NAMES}
    got = ort.InferenceSession(tmp_path / "model.onnx").run(["prediction"], feeds)[0]
    with torch.no_grad():
        wanted = module().eval()(torch.from_numpy(asked.to_numpy())).numpy()
    assert np.abs(got - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (fixed, "it takes 2 rows at a time: write it with torch.export.save(torch.export.export("),
        (weights, "the file holds a OrderedDict, such as the weights of a model without its graph"),
    ],
)
def test_what_is_refused(save: Any, said: str, frame: Any, tmp_path: Path) -> None:
    assert said in imported(save, frame, tmp_path)["refused"]


def test_other_columns_than_those_of_the_program(frame: Any, tmp_path: Path) -> None:
    said = imported(program, frame[["a", "c"]], tmp_path)["refused"]
    assert "expected one [rows, 2], the columns of the sample" in said
    said = imported(whole, frame.assign(city="Oslo"), tmp_path)["refused"]
    assert "takes numbers; these columns hold texts: city" in said
