"""What was learned about a model is kept: the next start runs no check, unless something has changed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from penstock.backends import onnx as onnx_backend
from penstock.backends import onnx_file
from penstock.backends.backend import Backend
from penstock.backends.onnx import OnnxBackend
from penstock.config import BatchingConfig, Config, RuntimeConfig
from penstock.core.errors import ModelLoadError
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.models.trial import cache as cache_module
from penstock.models.trial.cache import LearnedCache, default_folder
from penstock.models.trial.key import processor
from penstock.models.trial.learned import LearnedArray
from penstock.models.trial.trials import Collaborators
from support import lengths, zoo
from support.work import Tally

CONFIG = Config(runtime=RuntimeConfig(intra_op_threads=1))


class Counted:
    """Opens models with ONNX Runtime, and counts their runs."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs = self.opened = 0
        self._seconds = seconds

    def __call__(self, path: Path, config: RuntimeConfig, runs_in_parallel: int) -> Backend:
        self.opened += 1
        time.sleep(self._seconds)
        backend = OnnxBackend(path, config, runs_in_parallel)
        run = backend.run

        def counted(*args: object) -> object:
            self.runs += 1
            return run(*args)  # type: ignore[arg-type]

        backend.run = counted  # type: ignore[method-assign, assignment]
        return backend


class Started:
    """A server's registry that has loaded a repository, with a folder of what was learned before.

    Attributes:
        runs: how often models were run meanwhile.
        complaints: why nothing was kept.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        config: Config = CONFIG,
        version: str = "1",
        cores: int = 1,
        counted: Counted | None = None,
    ) -> None:
        self.told: list[Model] = []
        self.complaints: list[str] = []
        self._counted = counted or Counted()
        trying = Collaborators(cache=LearnedCache(folder, self.complaints.append), runtime_version=version)
        self.registry = ModelRegistry(config, self._counted, lambda model: Tally(), cores, trying=trying)
        self.registry.load_all(scan(root), self.told.append)

    @property
    def runs(self) -> int:
        return self._counted.runs

    @property
    def opened(self) -> int:
        return self._counted.opened


def repository(folder: Path, models: Mapping[str, onnx.ModelProto], settings: str = "") -> Path:
    root = zoo.repository(folder / "models", models)
    for name in models if settings else ():
        (root / name / "model.toml").write_text(settings)
    return root


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A repository with one model, of which a server has started before."""
    root = repository(tmp_path, {"m": zoo.add()})
    assert Started(root, tmp_path / "cache").runs > 0
    return root


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def test_the_second_start_runs_nothing_and_knows_the_same(tmp_path: Path) -> None:
    models = {
        "batched": zoo.tiny_mlp(),
        "mixes": zoo.centred_rows(),
        "open": zoo.two_open_axes(),
        "scaled": zoo.scaled(),
        "fails": zoo.fails_on(1),
    }
    root = repository(tmp_path, models)
    first, second = (Started(root, tmp_path / "cache", cores=2) for _ in range(2))
    assert first.runs > 0
    assert second.runs == 0
    assert second.opened == len(models)
    for one, other in zip(first.told, second.told, strict=True):
        assert one.batching == other.batching
        assert one.batcher.policy == other.batcher.policy
        assert one.batcher.costs.by_shape.keys() == other.batcher.costs.by_shape.keys()
        for rows in (1, 100):
            expected = one.batcher.costs.first.expect(rows)
            assert other.batcher.costs.first.expect(rows) == pytest.approx(expected)
        assert one.batcher.costs.first.is_known == other.batcher.costs.first.is_known


def test_the_second_start_reads_a_file_once_and_does_not_search_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = zoo.identity()
    for each in (*free.graph.input, *free.graph.output):
        each.type.tensor_type.ClearField("shape")
    root = repository(tmp_path, {"mlp": zoo.tiny_mlp(), "free": free})
    first = Started(root, tmp_path / "cache")
    searched: list[Path] = []
    for module, name in (
        (onnx_backend, "read_ends"),
        (onnx_file, "tensors_of_any_rank"),
        (onnx_file, "opsets"),
    ):
        monkeypatch.setattr(module, name, searched.append)
    reads: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
    second = Started(root, tmp_path / "cache")
    assert searched == []
    assert sorted(reads) == sorted(root.glob("*/1/model.onnx"))
    for one, other in zip(first.told, second.told, strict=True):
        assert one.backend.file.opsets == other.backend.file.opsets
        assert one.backend.signature == other.backend.signature


def test_of_a_sequence_and_of_padded_lengths(tmp_path: Path) -> None:
    root = repository(tmp_path / "a", {"sum": zoo.running_sum()}, '[sequence]\nstate = { sum = "sumN" }\n')
    first, second = (Started(root, tmp_path / "cache") for _ in range(2))
    assert first.runs > second.runs == 0
    assert str(first.told[0].sequence_state) == str(second.told[0].sequence_state)
    padding = '[padding]\naxes = {input_ids = 1}\nbuckets = [8, 16]\nmask = "attention_mask"\n'
    root = repository(tmp_path / "b", {"padded": lengths.masked_mean()}, padding)
    first, second = (Started(root, tmp_path / "cache") for _ in range(2))
    assert first.runs > second.runs == 0
    assert first.told[0].batching == second.told[0].batching
    keys = [started.told[0].batcher.costs.by_shape.keys() for started in (first, second)]
    assert keys[0] == keys[1]


def test_the_digest_is_the_same(one: Path, tmp_path: Path) -> None:
    (model,) = Started(one, tmp_path / "cache").told
    assert model.backend.file.sha256 == OnnxBackend(one / "m/1/model.onnx", RuntimeConfig(), 1).file.sha256


def test_a_changed_file_is_tried_again(one: Path, tmp_path: Path) -> None:
    onnx.save(zoo.scale(2.0), one / "m/1/model.onnx")
    assert Started(one, tmp_path / "cache").runs > 0


def test_changed_weights_beside_the_file_are_tried_again(tmp_path: Path) -> None:
    root = tmp_path / "models"
    zoo.write(zoo.external(), root / "m/1/model.onnx", external=True)
    assert Started(root, tmp_path / "cache").runs > 0
    assert Started(root, tmp_path / "cache").runs == 0
    (weights,) = [each for each in (root / "m/1").iterdir() if each.name != "model.onnx"]
    weights.write_bytes(bytes(weights.stat().st_size))
    assert Started(root, tmp_path / "cache").runs > 0


@pytest.mark.parametrize("settings", ["runs_in_parallel = 3", "[sample]\nvalues = {a = 1}"])
def test_changed_settings_are_tried_again(one: Path, tmp_path: Path, settings: str) -> None:
    (one / "m/model.toml").write_text(settings)
    assert Started(one, tmp_path / "cache").runs > 0


def test_settings_without_effect_on_it(one: Path, tmp_path: Path) -> None:
    (one / "m/model.toml").write_text("weight = 2.0\nlabels = {stable = 1}")
    assert Started(one, tmp_path / "cache").runs == 0


def test_another_release_other_processors_and_other_settings_of_the_server(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert Started(one, folder, version="2").runs > 0
    assert Started(one, folder, cores=2).runs > 0
    other = CONFIG.model_copy(update={"batching": BatchingConfig(queue_rows=100)})
    assert Started(one, folder, config=other).runs > 0
    assert Started(one, folder).runs == 0
    assert len(entries(folder)) == 4


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"max_rows": "many"}', b"\xff" * 100, None])
def test_a_broken_entry_is_ignored_and_replaced(one: Path, tmp_path: Path, data: bytes | None) -> None:
    folder = tmp_path / "cache"
    (entry,) = entries(folder)
    no_array = entry.read_bytes().replace(b'"<f4"', b'"?!"')
    entry.write_bytes(no_array if data is None else data)
    assert Started(one, folder).runs > 0
    assert Started(one, folder).runs == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runs_in_parallel", 0),
        ("cores", -1),
        ("max_rows", 0),
        ("max_rows", 10**12),
        ("one_row_seconds", math.nan),
        ("one_row_seconds", 1e308),
        ("row_seconds", -1.0),
    ],
)
def test_impossible_numbers_are_ignored_and_replaced(
    one: Path, tmp_path: Path, key: str, value: float
) -> None:
    folder = tmp_path / "cache"
    (entry,) = entries(folder)
    found = json.loads(entry.read_bytes())
    (found["cost"] if key in found["cost"] else found)[key] = value
    entry.write_text(json.dumps(found))
    assert Started(one, folder).runs > 0
    assert Started(one, folder).runs == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layout", {"row_axes": {"a": 7, "b": 7, "y": 7}}),
        ("layout", {"row_axes": {"y": 1}}),  # of fixed length
        ("layout", {"row_axes": {"who": 1}}),
        ("layout", {"shapes": {"who": ["N", 3]}}),
        ("layout", {"shapes": {"y": []}, "row_axes": {"y": 1}}),
        ("shapes", [{"who": [1, 3]}]),
        ("cut", {"y": [5]}),
        ("cut", {"who": [1]}),
        ("rules", {"y": {"5": [1, 0, 1]}}),
        ("example", {"who": {"shape": [1], "dtype": "<f4", "data": "AAAAAA==", "texts": []}}),
    ],
)
def test_what_does_not_fit_the_model_is_ignored_and_replaced(
    one: Path, tmp_path: Path, key: str, value: object
) -> None:
    """Served all the same, every request would fail."""
    folder = tmp_path / "cache"
    (entry,) = entries(folder)
    found = json.loads(entry.read_bytes())
    found[key] = found[key] | value if isinstance(value, dict) else value
    entry.write_text(json.dumps(found))
    assert Started(one, folder).runs > 0
    again = Started(one, folder)
    assert again.runs == 0
    (model,) = again.told
    assert {each.row_axis for each in model.signature.outputs.values()} == {0}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["entry", "differed", "lock", "folder"])
def test_a_named_pipe_in_the_folder_holds_nothing_up(one: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "cache"
    (entry,) = entries(folder)
    path = {
        "entry": entry,
        "differed": folder / cache_module.differed_name(entry.stem),
        "lock": folder / "lock",
        "folder": tmp_path / "pipe",
    }[name]
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    folder = path if name == "folder" else folder
    done = threading.Event()

    def start() -> None:
        Started(one, folder)
        Started(one, folder)
        done.set()

    threading.Thread(target=start, daemon=True).start()
    assert done.wait(30.0)


def test_what_cannot_be_loaded_is_not_remembered(tmp_path: Path) -> None:
    root = repository(tmp_path, {"m": zoo.add()})
    (root / "m/1/model.onnx").write_bytes(b"garbage")
    for _ in range(2):
        with pytest.raises(ModelLoadError):
            Started(root, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    root = repository(tmp_path, {"a": zoo.add(), "b": zoo.scale(2.0)})
    started = Started(root, folder)
    assert started.runs > 0
    assert started.complaints == [f"{folder}: Not a directory"]


def test_old_entries_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache_module, "MOST_FILES", 4)
    models = {f"m{number}": zoo.scale(float(number)) for number in range(4)}
    Started(repository(tmp_path, models), folder)
    old = entries(folder)
    assert len(old) == 4
    for place, entry in enumerate(old):
        os.utime(entry, (1000.0 + place, 1000.0 + place))
    left_over = folder / "0.1.tmp"
    left_over.write_bytes(b"")
    os.utime(left_over, (1000.0, 1000.0))
    Started(repository(tmp_path / "more", {"n": zoo.scale(9.0)}), folder)
    assert len(entries(folder)) == 3
    assert [entry.exists() for entry in old] == [False, False, True, True]
    assert not left_over.exists()


def test_an_entry_that_is_used_is_not_old(one: Path, tmp_path: Path) -> None:
    (entry,) = entries(tmp_path / "cache")
    os.utime(entry, (1000.0, 1000.0))
    Started(one, tmp_path / "cache")
    assert entry.stat().st_mtime > 1000.0


SERVER = """if True:
    import sys
    from pathlib import Path
    from models.test_learned import Counted, Started
    print("tried" if Started(*map(Path, sys.argv[1:]), counted=Counted(seconds=0.5)).runs else "knew")
    """


def test_two_servers_that_share_the_folder_try_a_model_once(tmp_path: Path) -> None:
    """One waits for what the other learns."""
    root = repository(tmp_path, {"a": zoo.add()})
    command = [sys.executable, "-c", SERVER, str(root), str(tmp_path / "cache")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    assert sorted(each.communicate()[0].strip() for each in both) == ["knew", "tried"]


def test_many_threads_read_and_write_one_entry(tmp_path: Path, one: Path) -> None:
    folder = tmp_path / "cache"
    (entry,) = entries(folder)
    learned = LearnedCache(folder).read(entry.stem)
    assert learned is not None
    wrong: list[object] = []

    def work() -> None:
        cache = LearnedCache(folder)
        for _ in range(50):
            cache.write(entry.stem, learned)
            wrong.extend([None] if cache.read(entry.stem) != learned else [])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/penstock")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/penstock")


def test_the_kind_of_processor(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    text = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 1234.5\nflags\t\t: sse avx\n\nprocessor\t: 1\n"
    one.write_text(text)
    other.write_text(text.replace("1234.5", "999.9"))
    assert processor(one) == processor(other)
    third = tmp_path / "third"
    third.write_text(text.replace("sse avx", "sse"))
    assert processor(third) != processor(one)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((2, 300), np.int64),
        np.array([["a", "ü"]], dtype=object),
        np.full((2, 2), "same", dtype=object),
        np.array(True),
        np.zeros((0, 3), np.float16),
        np.array([1.5], ">f8"),
    ],
)
def test_arrays_are_plain_data(array: np.ndarray) -> None:
    again = LearnedArray.of(array).array()
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_the_example_and_the_advice_are_kept(tmp_path: Path) -> None:
    root = repository(tmp_path, {"sum": zoo.running_sum()})
    started = [Started(root, tmp_path / "cache") for _ in range(2)]
    (entry,) = entries(tmp_path / "cache")
    learned = LearnedCache(tmp_path / "cache").read(entry.stem)
    assert learned is not None
    for each in started:
        assert each.told[0].example.keys() == {"x", "sum"}
        assert each.told[0].example["x"].dtype == np.int64
    assert 'sum = "sumN"' in learned.advice
    assert all(each.told[0].batching.reason.endswith(learned.advice) for each in started)
