"""A batch of live requests that changed an answer is remembered: the next start runs the model alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from models.test_learned import Started, repository
from penstock.config import BatchingConfig, Config, RuntimeConfig
from penstock.models.model import Model
from penstock.models.trial.learned import today
from penstock.scheduling.verification import Mismatch
from support import zoo

BOUND = 20.0
REASON = "output y depends on the other rows of a batch (it differs by 1.0e+00)"
CONFIG = Config(runtime=RuntimeConfig(intra_op_threads=1))


def find_mixing(model: Model, folder: Path) -> Path:
    """As live verification finds it; returns the file that is kept."""
    model.batcher.found_mixing(Mismatch("y", REASON, 1.0))
    end = time.monotonic() + BOUND
    while not (kept := list(folder.glob("*.differed.json"))):
        assert time.monotonic() < end
        time.sleep(0.002)
    return kept[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path, {"m": zoo.tiny_mlp()})


def started(root: Path, config: Config = CONFIG, version: str = "1") -> Model:
    (model,) = Started(root, root.parent / "cache", config=config, version=version).told
    return model


def test_the_next_start_runs_it_alone_and_says_why(root: Path) -> None:
    model = started(root)
    assert model.batching.enabled
    file = find_mixing(model, root.parent / "cache")
    assert model.batching.why[-1] == f"kept for later starts in {file.name} in the cache folder"
    again = started(root)
    assert not again.batching.enabled
    assert not again.batcher.policy.batched
    assert again.batching.reason == (
        f"its batches differed from lone runs on live requests on {today()}: {REASON}"
    )
    assert (
        again.batching.why[-1] == f"to try batches again, remove {file.name} in the cache folder and restart"
    )


def test_it_is_remembered_by_other_releases_and_by_unrelated_settings(root: Path) -> None:
    find_mixing(started(root), root.parent / "cache")
    other = CONFIG.model_copy(update={"batching": BatchingConfig(max_rows=4, queue_rows=100)})
    assert not started(root, version="2").batching.enabled
    assert not started(root, config=other).batching.enabled


def test_a_model_that_changes_is_tried_again(root: Path) -> None:
    find_mixing(started(root), root.parent / "cache")
    path = root / "m/1/model.onnx"
    zoo.write(zoo.add(), path)
    assert started(root).batching.enabled


def test_it_is_cleared_by_removing_the_file(root: Path) -> None:
    find_mixing(started(root), root.parent / "cache").unlink()
    assert started(root).batching.enabled


def test_a_broken_file_is_ignored(root: Path) -> None:
    find_mixing(started(root), root.parent / "cache").write_bytes(b"{")
    assert started(root).batching.enabled


def test_what_comes_from_the_cache_is_said(root: Path) -> None:
    first, second = started(root), started(root)
    said = f"this and the costs were learned on {today()} and come from the cache"
    assert said not in first.batching.why
    assert said in second.batching.why


@pytest.mark.parametrize(
    ("verify", "words"),
    [
        (0.0, "not verified on live requests: batching.verify is 0"),
        (0.001, "one batch in 1000 is verified on live requests, in idle time"),
    ],
)
def test_whether_live_requests_are_verified_is_said(root: Path, verify: float, words: str) -> None:
    config = CONFIG.model_copy(update={"batching": BatchingConfig(verify=verify)})
    assert started(root, config=config).batching.why[-1] == words


@pytest.mark.parametrize(
    ("learned", "runs", "again"), [(0.01, 100, True), (0.001, 100, False), (0.01, 10, False)]
)
def test_a_model_that_was_tried_on_a_busy_machine_is_tried_again(
    root: Path, learned: float, runs: int, again: bool
) -> None:
    folder = root.parent / "cache"
    started(root)
    (entry,) = folder.glob("*.json")
    found = json.loads(entry.read_bytes())
    found["cost"] = {"one_row_seconds": learned, "row_seconds": 0.0, "measured": True}
    entry.write_text(json.dumps(found))
    registry = Started(root, folder, config=CONFIG).registry
    (model,) = registry.all()
    for _ in range(runs):
        model.batcher.costs.first.learn(1, 0.001)
    registry.close()
    assert entry.exists() is not again
