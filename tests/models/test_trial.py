"""A model is tried in a child process: what ends that process, or takes too much, is named and not served."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig, ServerConfig, TrialConfig
from penstock.core.errors import ModelLoadError
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.models.trial import process as trial_process
from penstock.models.trial.process import TrialProcess
from penstock.models.trial.trials import Collaborators
from support import zoo
from support.trial_openers import OPENER
from support.work import Tally

ROOT = Path(__file__).parents[2]
SERVE_THE_OTHERS = Config(runtime=RuntimeConfig(intra_op_threads=1), server=ServerConfig(on_broken="serve"))
BOUND = 30.0


@pytest.fixture(scope="module")
def child() -> Iterator[TrialProcess]:
    """One for all tests that do not set bounds of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))
        process = TrialProcess(TrialConfig(seconds=BOUND), OPENER)
        yield process
        process.close()


class Loaded:
    """A registry that has loaded a repository with a child process, which it has ended."""

    def __init__(self, root: Path, process: TrialProcess, config: Config = SERVE_THE_OTHERS) -> None:
        self.told: list[Model] = []
        self.unable: list[str] = []
        trying = Collaborators(process=process, no_process=self.unable.append)
        self.registry = ModelRegistry(config, OnnxBackend, lambda model: Tally(), trying=trying)
        self.registry.load_all(scan(root), self.told.append)

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.told]

    @property
    def reasons(self) -> dict[str, str]:
        return {each.name: each.reason for each in self.registry.broken}


def load(
    folder: Path,
    process: TrialProcess,
    models: Mapping[str, onnx.ModelProto],
    settings: str = "",
    config: Config = SERVE_THE_OTHERS,
) -> Loaded:
    root = zoo.repository(folder / "models", models)
    for name in models if settings else ():
        (root / name / "model.toml").write_text(settings)
    return Loaded(root, process, config)


def test_what_is_learned_in_the_child_is_as_if_learned_here(child: TrialProcess, tmp_path: Path) -> None:
    models = {"sum": zoo.row_sum(), "mixes": zoo.centred_rows(), "fixed": zoo.fixed_batch()}
    tried = load(tmp_path / "a", child, models).told
    here: list[Model] = []
    registry = ModelRegistry(SERVE_THE_OTHERS, OnnxBackend, lambda model: Tally())
    registry.load_all(scan(zoo.repository(tmp_path / "b", models)), here.append)
    assert [model.name for model in tried] == ["fixed", "mixes", "sum"]
    for one, other in zip(tried, here, strict=True):
        assert one.batching == other.batching
        assert one.signature == other.signature
        assert one.batcher.policy.runs_in_parallel == other.batcher.policy.runs_in_parallel
        assert list(one.batcher.costs.by_shape) == list(other.batcher.costs.by_shape)
        assert 0 < one.batcher.costs.first.expect(1) < 1
        assert not one.batcher.costs.first.runs


def test_a_file_that_ends_the_process_is_named_and_the_others_are_served(
    child: TrialProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One child tries many models; only after one that ended it there is another."""
    started = note_starts(monkeypatch)
    names = ("a", "b", "dies_at_load", "dies_in_a_run", "y", "z")
    loaded = load(tmp_path, child, {name: zoo.add() for name in names})
    assert loaded.names == ["a", "b", "y", "z"]
    path = tmp_path / "models/dies_at_load/1/model.onnx"
    assert loaded.reasons["dies_at_load"] == (
        f"{path} ended the process that tried it, by SIGABRT, when it was loaded"
    )
    words = r"ended the process that tried it, by SIGABRT, when it ran on a FP32\[\d, 3\], b FP32\[\d, 3\]"
    assert re.search(f"{words}$", loaded.reasons["dies_in_a_run"])
    assert len(started) <= 3
    assert child.pid is None, "it ends when all models are loaded"


def note_starts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list of the children that are started from now on."""
    started: list[object] = []
    popen = subprocess.Popen

    def note(*args: object, **kwargs: object) -> object:
        made = popen(*args, **kwargs)  # type: ignore[call-overload]
        started.append(made)
        return made

    monkeypatch.setattr(trial_process.subprocess, "Popen", note)
    return started


def test_by_default_the_server_does_not_start(child: TrialProcess, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"^model dies_at_load version 1: .*by SIGABRT"):
        load(tmp_path, child, {"dies_at_load": zoo.add()}, config=Config())


def test_what_cannot_be_loaded_is_reported_as_without_a_child(child: TrialProcess, tmp_path: Path) -> None:
    root = zoo.repository(tmp_path / "models", {"bad": zoo.add(), "good": zoo.add()})
    path = root / "bad/1/model.onnx"
    path.write_bytes(b"garbage")
    loaded = Loaded(root, child)
    with pytest.raises(ModelLoadError) as refused:
        OnnxBackend(path, RuntimeConfig(), 1)
    assert loaded.reasons == {"bad": str(refused.value)}
    assert loaded.names == ["good"]


def test_a_child_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    process = TrialProcess(TrialConfig(seconds=BOUND), OPENER)
    killer = threading.Thread(target=kill_in_a_run, args=(process,))
    killer.start()
    with pytest.raises(ModelLoadError, match=r"by SIGKILL, .* if memory runs out, when it ran on a FP32"):
        load(tmp_path, process, {"waits": zoo.add()})
    killer.join()


def test_a_child_that_answers_no_more_and_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setattr(trial_process, "EXIT_SECONDS", 0.2)
    process = TrialProcess(TrialConfig(seconds=BOUND), OPENER)
    with pytest.raises(ModelLoadError, match=r"model\.onnx stopped answering when it ran on a FP32"):
        load(tmp_path, process, {"hangs_up": zoo.add()})
    assert process.pid is None


def kill_in_a_run(process: TrialProcess) -> None:
    """Once it runs the model that waits."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        pid = process.pid
        if pid is not None and process.doing().startswith("it ran on") and is_asleep(pid):
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.005)


def is_asleep(pid: int) -> bool:
    """Whether it waits in a `sleep`, which no model does that is sound."""
    try:
        return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return False


def test_an_idle_child_that_is_killed_is_replaced(child: TrialProcess, tmp_path: Path) -> None:
    child.start()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert load(tmp_path, child, {"a": zoo.add()}).names == ["a"]


@pytest.mark.parametrize(
    ("bounds", "name", "words"),
    [
        (
            {"seconds": 0.5},
            "waits",
            r"took longer than 0\.5 s when it ran on a FP32\[\d, 3\], .*trial\.seconds",
        ),
        (
            {"memory_bytes": 1 << 28},
            "fills_memory",
            r"took more than 268,435,456 bytes of memory when it ran on a .*trial\.memory_bytes",
        ),
    ],
)
def test_bounds(
    bounds: dict[str, float], name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    process = TrialProcess(TrialConfig.model_validate(bounds), OPENER)
    with pytest.raises(ModelLoadError, match=words):
        load(tmp_path, process, {name: zoo.add()})


def test_a_child_that_is_killed_before_it_is_ready_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    process = TrialProcess(TrialConfig(seconds=BOUND), OPENER)
    started = kill_when_started(monkeypatch, times=1)
    loaded = load(tmp_path, process, {"a": zoo.add()})
    assert (loaded.names, loaded.unable, len(started)) == (["a"], [], 2)


def test_a_child_that_is_killed_again_and_again_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = TrialProcess(TrialConfig(seconds=BOUND), OPENER)
    started = kill_when_started(monkeypatch, times=9)
    loaded = load(tmp_path, process, {"a": zoo.add(), "b": zoo.add()})
    assert loaded.names == ["a", "b"]
    assert loaded.unable == ["it ended by SIGKILL before it was ready, 2 times"]
    assert len(started) == 2


def kill_when_started(monkeypatch: pytest.MonkeyPatch, times: int) -> list[object]:
    """The first children are killed as soon as they are started; a list of all."""
    started: list[object] = []
    popen = subprocess.Popen

    def kill(*args: object, **kwargs: object) -> object:
        made = popen(*args, **kwargs)  # type: ignore[call-overload]
        started.append(made)
        if len(started) <= times:
            made.kill()
        return made

    monkeypatch.setattr(trial_process.subprocess, "Popen", kill)
    return started


def test_without_a_child_models_are_tried_here(tmp_path: Path) -> None:
    process = TrialProcess(TrialConfig(), "no.such.module:opened")
    loaded = load(tmp_path, process, {"a": zoo.add(), "b": zoo.add()})
    assert loaded.names == ["a", "b"]
    (reason,) = loaded.unable
    assert "it ended with exit code 1" in reason
    assert "No module named 'no'" in reason


def test_the_child_ends_with_its_server(tmp_path: Path) -> None:
    """Also if that is killed, in the middle of a trial."""
    root = zoo.repository(tmp_path / "models", {"waits": zoo.add()})
    program = f"""if True:
        import threading, time, sys
        from pathlib import Path
        from penstock.backends.onnx import OnnxBackend
        from penstock.config import Config, TrialConfig
        from penstock.models.registry import ModelRegistry
        from penstock.models.repository import scan
        from penstock.models.trial.process import TrialProcess
        from penstock.models.trial.trials import Collaborators
        process = TrialProcess(TrialConfig(), {OPENER!r})
        def tell():
            while not process.doing().startswith("it ran on"):
                time.sleep(0.01)
            print(process.pid, flush=True)
        threading.Thread(target=tell, daemon=True).start()
        trying = Collaborators(process=process)
        registry = ModelRegistry(Config(), OnnxBackend, lambda model: None, trying=trying)
        registry.load_all(scan(Path({str(root)!r})), lambda model: None)
        """
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert is_running(pid)
        server.kill()
    end = time.monotonic() + BOUND
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
