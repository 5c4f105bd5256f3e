"""The shapes that ran while a model was loaded have had their first run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.protocols.tensors import layout
from support import lengths, zoo
from support.work import Tally

CONFIG = Config(runtime=RuntimeConfig(intra_op_threads=1))


def load(root: Path, settings: str = "", **models: object) -> Model:
    zoo.repository(root, models)  # type: ignore[arg-type]
    for name in models if settings else ():
        (root / name / "model.toml").write_text(settings)
    told: list[Model] = []
    ModelRegistry(CONFIG, OnnxBackend, lambda model: Tally()).load_all(scan(root), told.append)
    return told[0]


def has_run(model: Model, *shape: int, dtype: type = np.float32, name: str = "x") -> bool:
    return model.batcher.costs.has_run(layout(model, {name: np.zeros(shape, dtype)})[1])


def test_of_open_axes(tmp_path: Path) -> None:
    model = load(tmp_path, "[sample]\nshapes = {x = [1, 7]}\n", m=zoo.two_open_axes())
    assert model.batching.enabled
    assert has_run(model, 5, 7)
    assert not has_run(model, 5, 8)


def test_of_padded_lengths(tmp_path: Path) -> None:
    settings = '[padding]\naxes = {input_ids = 1}\nbuckets = [8, 16]\nmask = "attention_mask"\n'
    model = load(tmp_path, settings, m=lengths.masked_mean())
    assert has_run(model, 2, 3, dtype=np.int64, name="input_ids")
    assert not has_run(model, 2, 100, dtype=np.int64, name="input_ids")


def test_of_fixed_shapes(tmp_path: Path) -> None:
    assert has_run(load(tmp_path, m=zoo.scale(2)), 4, 3)


def test_of_a_model_that_is_not_batched(tmp_path: Path) -> None:
    assert has_run(load(tmp_path, "[batching]\nenabled = false\n", m=zoo.two_open_axes()), 4, 9)


def test_the_first_that_ran_is_the_example_and_equal_values_take_no_memory(tmp_path: Path) -> None:
    model = load(tmp_path, m=zoo.scale(2, ("N", 3, 100, 100)))
    example = model.example["x"]
    assert example.shape == (1, 3, 100, 100)
    assert (example == 0.5).all()
    assert example.base is not None
    assert example.strides == (0, 0, 0, 0)


def test_a_model_that_never_ran_has_no_example(tmp_path: Path) -> None:
    assert load(tmp_path, m=lengths.at_a_rate(8000)).example == {}
