"""The registry loads what the repository found, or says of everything that cannot be served why not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import BatchingConfig, Config, RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array
from penstock.models.checks import trying
from penstock.models.model import Model, ModelState
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.models.trial.learning import HEAVY_SECONDS
from support import lengths, zoo
from support.work import HandBackend, RunByHand, Tally, caller, echo, request, signature_of, spec

CONFIG = Config(runtime=RuntimeConfig(intra_op_threads=1))


class Loaded:
    """A registry that has loaded what lies at a path, and what it has told of it."""

    def __init__(self, path: Path, config: Config = CONFIG, cores: int = 1) -> None:
        self.told: list[Model] = []
        self.tallies: dict[str, Tally] = {}
        self.registry = ModelRegistry(config, OnnxBackend, self._observer, cores)
        self.registry.load_all(scan(path), self.told.append)

    def _observer(self, model: Model) -> Tally:
        assert model.signature is not None, "the observer is made for a model that is there"
        return self.tallies.setdefault(str(model), Tally())

    def model(self, text: str) -> Model:
        (found,) = [each for each in self.registry.all() if str(each) == text]
        return found


def load(
    folder: Path,
    models: Mapping[str, onnx.ModelProto | Mapping[int | str, onnx.ModelProto]],
    settings: Mapping[str, str] | None = None,
    **changes: Any,
) -> Loaded:
    root = zoo.repository(folder / "models", models)
    for name, text in (settings or {}).items():
        (root / name / "model.toml").write_text(text)
    return Loaded(root, **changes)


def test_models_are_in_order_of_name_and_version(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"b": zoo.add(), "a": {10: zoo.scale(10), 9: zoo.scale(9)}})
    names = ["a version 9", "a version 10", "b version 1"]
    assert [str(model) for model in loaded.registry.all()] == names
    assert [str(model) for model in loaded.told] == names
    assert all(model.state is ModelState.READY for model in loaded.told)


def test_the_highest_version_is_the_default_and_labels_are_the_models(tmp_path: Path) -> None:
    versions: Mapping[int | str, onnx.ModelProto] = {number: zoo.scale(number) for number in (1, 2, 10)}
    loaded = load(tmp_path, {"a": versions}, {"a": "labels = {stable = 2, old = 1, first = 1}"})
    assert [(model.version, model.is_default, model.labels) for model in loaded.registry.all()] == [
        (1, False, ("first", "old")),
        (2, False, ("stable",)),
        (10, True, ()),
    ]


def test_the_highest_version_served_is_the_default(tmp_path: Path) -> None:
    versions: Mapping[int | str, onnx.ModelProto] = {number: zoo.scale(number) for number in (1, 2, 3)}
    loaded = load(tmp_path, {"a": versions}, {"a": "versions = [1, 2]"})
    assert [(model.version, model.is_default) for model in loaded.registry.all()] == [(1, False), (2, True)]


def test_every_version_answers_for_itself(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": {1: zoo.scale(2), 2: zoo.scale(3)}})
    answers = []
    for model in loaded.registry.all():
        sent = request({"x": np.ones((1, 3), np.float32)})
        model.batcher.put(sent)
        model.batcher.run_once()
        answers.append(caller(sent).output()[0, 0].item())
        assert loaded.tallies[str(model)].done == [sent], "every version has an observer of its own"
    assert answers == [2.0, 3.0]


def test_what_is_known_of_a_model(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"text": zoo.two_open_axes(), "plain": zoo.multi_output()})
    assert loaded.model("text version 1").open_shapes
    plain = loaded.model("plain version 1")
    assert not plain.open_shapes
    assert plain.output_names == ("double", "total", "positive")
    assert plain.version_text == "1"
    assert plain.backend.file.size_bytes > 0


def test_batching_is_what_the_check_found(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"fine": zoo.add(), "mixing": zoo.centred_rows(), "fixed": zoo.fixed_batch()})
    assert [
        (model.name, model.batching.enabled, model.batcher.policy.batched) for model in loaded.registry.all()
    ] == [("fine", True, True), ("fixed", False, False), ("mixing", False, False)]


@pytest.mark.parametrize(
    ("settings", "enabled", "reason"),
    [
        ("", False, "different names"),
        ("batching.enabled = 'auto'", False, "different names"),
        ("batching.enabled = true", True, "bit for bit"),
        ("batching.enabled = false", False, "switched off in model.toml"),
        ("batching.enabled = true\nbatching.max_rows = 1", False, "max_rows is 1"),
    ],
)
def test_model_toml_decides_on_batching(settings: str, enabled: bool, reason: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": zoo.axes_not_shared()}, {"a": settings})
    batching = loaded.told[0].batching
    assert (batching.enabled, reason in batching.reason) == (enabled, True)


def test_a_model_whose_rows_mix_cannot_be_forced(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": zoo.centred_rows()}, {"a": "batching.enabled = true"})
    assert not loaded.told[0].batching.enabled


def test_a_models_own_settings_come_before_the_servers(tmp_path: Path) -> None:
    config = Config(
        batching=BatchingConfig(max_rows=16, max_delay_seconds=0.5, queue_rows=99),
        runtime=RuntimeConfig(intra_op_threads=2),
    )
    own = "runs_in_parallel = 3\n[batching]\nmax_rows = 4\n[runtime]\nintra_op_threads = 1\n"
    loaded = load(tmp_path, {"a": zoo.add(), "b": zoo.add()}, {"b": own}, config=config)
    first, second = (model.batcher.policy for model in loaded.registry.all())
    assert (first.max_rows, first.max_delay_seconds, first.queue_rows, first.runs_in_parallel) == (
        16,
        0.5,
        99,
        1,
    )
    assert (second.max_rows, second.max_delay_seconds, second.queue_rows) == (4, 0.5, 99)
    assert second.runs_in_parallel == 3
    assert [
        model.backend._session.get_session_options().intra_op_num_threads  # type: ignore[attr-defined]
        for model in loaded.registry.all()
    ] == [2, 1]


def test_what_is_not_batched_is_not_held_back(tmp_path: Path) -> None:
    config = Config(batching=BatchingConfig(max_delay_seconds=0.5), runtime=CONFIG.runtime)
    loaded = load(tmp_path, {"a": zoo.add(), "b": zoo.centred_rows()}, config=config)
    assert [model.batcher.policy.max_delay_seconds for model in loaded.registry.all()] == [0.5, 0.0]


def test_everything_that_cannot_be_loaded_is_named_at_once(tmp_path: Path) -> None:
    root = zoo.repository(
        tmp_path / "models", {"a": {1: zoo.sequence_output(), 2: zoo.add()}, "b": zoo.add(), "c": zoo.add()}
    )
    (root / "c" / "1" / "model.onnx").write_bytes(b"garbage")
    registry = ModelRegistry(CONFIG, OnnxBackend, lambda model: Tally())
    told: list[Model] = []
    with pytest.raises(ModelLoadError) as refused:
        registry.load_all(scan(root), told.append)
    first, second = str(refused.value).splitlines()
    assert first.startswith("model a version 1: ")
    assert "only tensors can be served" in first
    assert str(root / "a" / "1" / "model.onnx") in first
    assert second.startswith("model c version 1: ")
    assert [str(model) for model in told] == ["a version 2", "b version 1"]


def test_close_closes_every_backend_once(tmp_path: Path) -> None:
    backends = []

    def open_backend(path: Path, config: RuntimeConfig, parallel: int) -> HandBackend:
        backends.append(HandBackend(echo))
        return backends[-1]

    registry = ModelRegistry(CONFIG, open_backend, lambda model: Tally())
    registry.load_all(scan(zoo.repository(tmp_path, {"a": zoo.add(), "b": zoo.add()})), lambda model: None)
    registry.close()
    assert [backend.closed for backend in backends] == [True, True]
    assert registry.all() == ()
    registry.close()


# The most rows of a batch, where the settings leave it open


def test_the_most_rows_follow_what_a_run_costs(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": zoo.add(), "b": zoo.add()}, {"b": "batching.max_rows = 5"})
    assert [model.batcher.policy.max_rows for model in loaded.registry.all()] == [256, 5]


def test_batches_are_no_larger_than_what_may_wait(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": zoo.add()}, {"a": "batching.queue_rows = 5"})
    assert [model.batcher.policy.max_rows for model in loaded.registry.all()] == [5]


def test_batches_are_no_larger_than_rows_were_seen_to_agree(tmp_path: Path) -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 100:
            raise ModelFailed("too many rows")
        return echo(outputs, inputs)

    assert rows_chosen(run, tmp_path) == 32


def test_batches_are_no_larger_than_it_pays(tmp_path: Path) -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 100:
            time.sleep(0.005)
        return echo(outputs, inputs)

    assert rows_chosen(run, tmp_path) == 32


def rows_chosen(run: RunByHand, folder: Path) -> int:
    registry = ModelRegistry(CONFIG, lambda *_: HandBackend(run), lambda model: Tally())
    registry.load_all(scan(zoo.repository(folder, {"a": zoo.add()})), lambda model: None)
    (model,) = registry.all()
    assert model.batching.enabled
    return model.batcher.policy.max_rows


# What model.toml says of requests

AT_A_RATE = "[sample]\nshapes = { audio = [1, 576] }\nvalues = { rate = 8000 }\n"


@pytest.mark.parametrize("cores", [1, 2])
def test_a_model_is_tried_on_what_its_requests_hold(cores: int, tmp_path: Path) -> None:
    graph = lengths.at_a_rate(8000)
    loaded = load(
        tmp_path,
        {"said": graph, "unsaid": graph},
        {"said": AT_A_RATE, "unsaid": "batching.max_rows = 8"},
        config=Config(),
        cores=cores,
    )
    said, unsaid = loaded.registry.all()
    assert said.batching.enabled, said.batching.reason
    assert said.batcher.costs.of(None).expect(1) < 0.5, "it was timed"
    assert not unsaid.batching.enabled
    assert "the model fails on every generated input: " in unsaid.batching.reason


def test_a_model_that_fails_is_tried_again_on_what_its_requests_hold(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"m": lengths.at_a_rate(8000)}, {"m": AT_A_RATE})
    (model,) = loaded.registry.all()
    assert trying.runs_on_generated_input(model.backend, model.sample)
    assert not trying.runs_on_generated_input(model.backend)


def test_the_graph_names_what_rows_that_are_all_alike_do_not_show(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"m": zoo.centred_rows()}, {"m": "sample.values = { x = 1 }"})
    (model,) = loaded.registry.all()
    assert model.batching.reason == "node 0 ReduceMean combines all rows"
    assert not model.batching.enabled


def test_large_requests_make_small_batches(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {"large": zoo.identity(shape=("N", "L")), "small": zoo.identity(shape=("N", "L"))},
        {"large": "sample.shapes = { x = [1, 50_000] }"},
    )
    large, small = loaded.registry.all()
    assert large.batcher.policy.max_rows == 32
    assert small.batcher.policy.max_rows > 32


def test_a_sample_that_does_not_fit_names_the_model(tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"^model m version 1: sample\.shapes: \[1\] does not fit input a"
    ):
        load(tmp_path, {"m": zoo.add()}, {"m": "sample.shapes = { a = [1] }"})


# How the cores are shared out


@pytest.mark.parametrize(
    ("seconds", "cores", "settings", "opened", "runs"),
    [
        (0.0, 4, "", [4], 4),
        (2 * HEAVY_SECONDS, 4, "", [4, 1], 1),
        (2 * HEAVY_SECONDS, 1, "", [1], 1),
        (0.0, 4, "runs_in_parallel = 2", [2], 2),
        (2 * HEAVY_SECONDS, 4, "runs_in_parallel = 2", [2], 2),
        (0.0, 4, "runtime.intra_op_threads = 2", [2], 2),
        (0.0, 4, "runtime.intra_op_threads = 9", [1], 1),
    ],
)
def test_light_models_run_once_a_core_and_heavy_ones_on_all(
    seconds: float, cores: int, settings: str, opened: list[int], runs: int, tmp_path: Path
) -> None:
    asked: list[int] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        time.sleep(seconds)
        return echo(outputs, inputs)

    def open_backend(path: Path, config: RuntimeConfig, parallel: int) -> HandBackend:
        asked.append(parallel)
        return HandBackend(run, signature_of([spec("x", (1, 1))], [spec("y", (1, 1))]))

    root = zoo.repository(tmp_path, {"a": zoo.add()})
    (root / "a" / "model.toml").write_text(settings)
    told: list[Model] = []
    ModelRegistry(Config(), open_backend, lambda model: Tally(), cores).load_all(scan(root), told.append)
    assert asked == opened
    assert told[0].batcher.policy.runs_in_parallel == runs
