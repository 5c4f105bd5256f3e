"""The settings of one model."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import (
    BatchingConfig,
    ModelBatching,
    ModelConfig,
    ModelRuntime,
    RuntimeConfig,
    effective_batching,
    effective_runtime,
    load_model_config,
)
from penstock.core.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.toml"


def test_a_missing_file_means_defaults(file: Path) -> None:
    config = load_model_config(file)
    assert config == ModelConfig()
    assert config.versions == "all"
    assert config.batching.enabled == "auto"
    assert config.runs_in_parallel == 0


def test_everything_can_be_set(file: Path) -> None:
    file.write_text(
        """
        versions = [3, 4]
        labels = {stable = 3, "release candidate" = 4}
        runs_in_parallel = 2
        [batching]
        enabled = false
        max_rows = 8
        max_delay_seconds = 0.5
        queue_rows = 9
        [runtime]
        intra_op_threads = 2
        inter_op_threads = 3
        optimization = "basic"
        providers = ["A"]
        arena = false
        spinning = true
        """
    )
    config = load_model_config(file)
    assert config.versions == (3, 4)
    assert config.labels == {"stable": 3, "release candidate": 4}
    assert config.runs_in_parallel == 2
    assert config.batching.enabled is False
    assert effective_batching(BatchingConfig(), config.batching) == BatchingConfig(
        max_rows=8, max_delay_seconds=0.5, queue_rows=9
    )
    assert effective_runtime(RuntimeConfig(), config.runtime) == RuntimeConfig(
        intra_op_threads=2,
        inter_op_threads=3,
        optimization="basic",
        providers=("A",),
        arena=False,
        spinning=True,
    )


def test_what_a_model_leaves_out_it_inherits() -> None:
    server = BatchingConfig(max_rows=64, queue_rows=10)
    assert effective_batching(server, ModelBatching()) == server
    assert effective_batching(server, ModelBatching(max_delay_seconds=0.0, max_rows=1)) == BatchingConfig(
        max_rows=1, queue_rows=10
    )
    runtime = RuntimeConfig(spinning=True, arena=True)
    assert effective_runtime(runtime, ModelRuntime(arena=False)) == RuntimeConfig(spinning=True, arena=False)


def test_a_model_can_override_every_setting_of_the_server_with_the_same_bounds() -> None:
    assert set(ModelRuntime.model_fields) == set(RuntimeConfig.model_fields)
    assert set(ModelBatching.model_fields) - {"enabled", "axes"} == set(BatchingConfig.model_fields)
    for server, model in ((RuntimeConfig, ModelRuntime), (BatchingConfig, ModelBatching)):
        for name in server.model_fields:
            for bad in (-1, True, "", []):
                wrong = (_refuses(server, name, bad), _refuses(model, name, bad))
                assert wrong[0] == wrong[1], (name, bad)


def _refuses(section: type, name: str, value: object) -> bool:
    try:
        section(**{name: value})
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("versions = []", "should name at least one version"),
        ("versions = [0]", "greater than 0"),
        ("versions = ['1']", "valid integer"),
        ("versions = [true]", "valid integer"),
        ("versions = 'newest'", "should be 'all' or 'latest'"),
        ("labels = {'' = 1}", "a label should not be empty"),
        ("labels = {' ' = 1}", "a label should not be empty"),
        ("labels = {7 = 1}", "the label '7' could not be told from a version number"),
        ("labels = {'-7' = 1}", "the label '-7' could not be told from a version number"),
        ("labels = {stable = 0}", "stable should be greater than 0"),
        ("labels = {stable = true}", "stable should be a valid integer"),
        ("labels = 'stable'", "should be a table, such as {name = value}"),
        ("runs_in_parallel = -1", "greater than or equal to 0"),
        ("runs_in_parallel = true", "should not be true or false"),
        ("batching.enabled = 'no way'", "should be"),
        ("batching.enabled = 1", "should be true or false"),
        ("batching.exact = 1", "should be true or false"),
        ("batching.exact = 0.0", "should be true or false"),
        ("runtime.arena = 1", "should be true or false"),
        ("batching.max_rows = -1", "greater than or equal to 0"),
        ("runtime.providers = []", "at least 1 item"),
        ("batching.max_row = 0", "did you mean batching.max_rows?"),
        ("label.stable = 1", "did you mean labels? Known: labels"),
        ("label.production = 1", "did you mean labels? Known: labels"),
        ("sequenc.stat = {}", "did you mean sequence.state? Known"),
        ("sample.shapes = {x = [0]}", "x.0 should be greater than or equal to 1"),
        ("sample.shapes = {x = 1}", "x should be a"),
        ("sample.values = {x = nan}", "should be a finite number"),
        ("server.port = 1", "server.port is not a setting"),
    ],
)
def test_bad_settings_name_file_key_and_reason(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    key = text.partition(" ")[0]
    with pytest.raises(ConfigError) as caught:
        load_model_config(file)
    assert str(caught.value).startswith(f"{file}: {key} = ")
    assert reason in str(caught.value)
