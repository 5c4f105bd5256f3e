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


class Two(torch.nn.Module):  # type: ignore[misc]  # its library has no types
    """Takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, numbers: torch.Tensor, more: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.layer(torch.cat((numbers, more), 1)) * scale


class One(torch.nn.Module):  # type: ignore[misc]
    """Takes them side by side, as the refusal says."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Two()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x[:, :2], x[:, 2:])


@pytest.mark.parametrize("kind", ["module", "script", "program"])
def test_several_tensors_are_refused_with_the_way_out(kind: str, frame: Any, tmp_path: Path) -> None:
    model, named = Two().eval(), "numbers, more"
    path, sample = tmp_path / "model.pt", tmp_path / "sample.csv"
    if kind == "module":
        torch.save(model, path)
    elif kind == "script":
        torch.jit.script(model).save(path)
    else:
        rows = {0: torch.export.Dim.DYNAMIC}
        example = (torch.zeros(2, 2), torch.zeros(2, 1))
        path, named = tmp_path / "model.pt2", "numbers [s"
        torch.export.save(torch.export.export(model, example, dynamic_shapes=(rows, rows)), path)
    frame.to_csv(sample, index=False)
    said = child.run(job(path, sample, tmp_path))["refused"]
    assert f"takes 2 tensors, {named}" in said
    assert said.endswith(
        "whose forward(self, x) is return self.model(x[:, :3], x[:, 3:]) for three numbers and the rest"
    )
    torch.save(One().eval(), tmp_path / "one.pt")
    assert "refused" not in child.run(job(tmp_path / "one.pt", sample, tmp_path))


@pytest.mark.parametrize("save", [whole, program])
def test_a_folder_of_mlflow(save: Any, frame: Any, tmp_path: Path) -> None:
    folder, sample = tmp_path / "run", tmp_path / "sample.csv"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n  python_function: {}\n")
    frame.to_csv(sample, index=False)
    said = child.run(job(folder, sample, tmp_path))["refused"]
    assert said == f"{folder}: its flavor pytorch has none of model.pt2, model.pth in data"
    save(module().eval(), folder / "data" / ("model.pth" if save is whole else "model.pt2"))
    assert "refused" not in child.run(job(folder, sample, tmp_path))
