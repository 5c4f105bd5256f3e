"""Weights in files of their own: what was loaded answers, whatever becomes of them; and their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from penstock.backends import digest, onnx_file, private_memory
from penstock.backends.digest import Digest, Stamps
from penstock.backends.onnx import OnnxBackend
from penstock.core.errors import ModelLoadError
from support import zoo
from support.work import ONE_THREAD, wait_until

ROWS, WIDTH = 100_000, 4
LAST = ROWS - 1


def table(value: float) -> onnx.ModelProto:
    """y FP32 [N, 4]: the rows `ids` of a table that holds one value; it stays mapped while it is served."""
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N"])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", WIDTH])
    weights = numpy_helper.from_array(np.full((ROWS, WIDTH), value, np.float32), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    return helper.make_model(
        helper.make_graph([node], "g", [ids], [y], [weights]),
        opset_imports=[helper.make_opsetid("", zoo.OPSET)],
        ir_version=zoo.IR_VERSION,
    )


def answers(backend: OnnxBackend) -> list[float]:
    """The first and the last row of the table, as the model gives them."""
    (y,) = backend.run(["y"], {"ids": np.array([0, LAST])})
    return np.asarray(y)[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return zoo.write(table(1.0), tmp_path / "model.onnx", external=True)


@pytest.fixture
def weights(path: Path) -> Path:
    return path.with_name("model.onnx.data")


def write_over(weights: Path) -> None:
    with weights.open("r+b") as file:
        file.write(np.full(ROWS * WIDTH, 2.0, np.float32).tobytes())


def cut_off(weights: Path) -> None:
    os.truncate(weights, 0)


def copy_over(weights: Path) -> None:
    """As `cp` does: the file is cut off, then written."""
    weights.write_bytes(np.full(ROWS * WIDTH, 2.0, np.float32).tobytes())


def rename_over(weights: Path) -> None:
    new = weights.with_name("new")
    copy_over(new)
    new.replace(weights)


def remove(weights: Path) -> None:
    weights.unlink()


CHANGES = [write_over, cut_off, copy_over, rename_over, remove]


# In memory of our own


@pytest.mark.skipif(not private_memory.AVAILABLE, reason="only Linux tells what is mapped")
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_answers_from_what_was_loaded(
    change: Callable[[Path], None], path: Path, weights: Path
) -> None:
    backend = OnnxBackend(path, ONE_THREAD, 1)
    change(weights)
    assert answers(backend) == [1.0, 1.0]
    assert private_memory.mapped([weights]) == []


def test_this_model_would_stay_mapped(path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests here would show nothing."""
    if not private_memory.AVAILABLE:
        pytest.skip("only Linux tells what is mapped")
    monkeypatch.setattr("penstock.backends.onnx.make_private", lambda files: 0)
    backend = OnnxBackend(path, ONE_THREAD, 1)
    assert sum(length for _, length in private_memory.mapped([weights])) >= weights.stat().st_size
    assert private_memory.make_private([weights]) >= weights.stat().st_size
    assert answers(backend) == [1.0, 1.0]


@pytest.mark.skipif(not private_memory.AVAILABLE, reason="only Linux tells what is mapped")
@pytest.mark.parametrize("name", ["two words.bin", "line\nbreak.bin", "ü\u2028.bin"])
def test_files_are_found_by_any_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(table(1.0), path, save_as_external_data=True, location=name, size_threshold=0)
    backend = OnnxBackend(path, ONE_THREAD, 1)
    cut_off(tmp_path / name)
    assert answers(backend) == [1.0, 1.0]


@pytest.mark.skipif(not private_memory.AVAILABLE, reason="only Linux tells what is mapped")
def test_files_are_found_behind_links(path: Path, weights: Path, tmp_path: Path) -> None:
    store, link = tmp_path / "store", tmp_path / "served"
    store.mkdir()
    shutil.move(path, store / "model.onnx")
    shutil.move(weights, store / "model.onnx.data")
    link.symlink_to(store)
    backend = OnnxBackend(link / "model.onnx", ONE_THREAD, 1)
    cut_off(store / "model.onnx.data")
    assert answers(backend) == [1.0, 1.0]


def test_memory_is_given_back(path: Path) -> None:
    """The copies go with the session; the process runs on."""
    for _ in range(3):
        backend = OnnxBackend(path, ONE_THREAD, 1)
        assert answers(backend) == [1.0, 1.0]
        backend.close()


def test_a_file_that_changes_while_it_is_loaded_is_refused(
    path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(files: list[Path]) -> int:
        write_over(weights)
        return 0

    monkeypatch.setattr("penstock.backends.onnx.make_private", meanwhile)
    with pytest.raises(ModelLoadError, match=r"model\.onnx\.data changed while it was loaded: put a new"):
        OnnxBackend(path, ONE_THREAD, 1)


def test_a_lack_of_memory_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(files: list[Path]) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("penstock.backends.onnx.make_private", lacking)
    with pytest.raises(ModelLoadError, match=r"cannot be read into memory: Cannot allocate memory"):
        OnnxBackend(path, ONE_THREAD, 1)


# The SHA-256


def sha256sum(folder: Path, *weights: str) -> str:
    """What the documented command prints."""
    command = f"(sha256sum < model.onnx; sha256sum {' '.join(weights)}) | sha256sum"
    run = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.split()[0]


@pytest.fixture
def of_two(tmp_path: Path) -> Path:
    """A model with two files of weights, the second in a folder."""
    path = zoo.write(table(1.0), tmp_path / "model.onnx", external=True)
    model = onnx.load(path, load_external_data=False)
    more = onnx.TensorProto(name="more", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    more.external_data.add(key="location", value="below/b.bin")
    model.graph.initializer.append(more)
    path.write_bytes(model.SerializeToString())
    (tmp_path / "below").mkdir()
    (tmp_path / "below/b.bin").write_bytes(b"\0" * 4)
    return path


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="this system has no sha256sum")
def test_it_is_what_sha256sum_says(of_two: Path) -> None:
    found = OnnxBackend(of_two, ONE_THREAD, 1).file.sha256
    assert found == sha256sum(of_two.parent, "below/b.bin", "model.onnx.data")


def test_other_weights_have_another(tmp_path: Path) -> None:
    paths = [
        zoo.write(table(value), tmp_path / str(value) / "model.onnx", external=True) for value in (1.0, 2.0)
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    first, second = (OnnxBackend(path, ONE_THREAD, 1).file.sha256 for path in paths)
    assert first != second
    assert first == OnnxBackend(paths[0], ONE_THREAD, 1).file.sha256


def test_without_external_data_it_is_that_of_the_file(tmp_path: Path) -> None:
    path = zoo.write(table(1.0), tmp_path / "model.onnx")
    found = OnnxBackend(path, ONE_THREAD, 1).file.sha256
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()


class Gate:
    """Holds up the thread that works a digest out."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.threads: list[threading.Thread] = []

    def sha256(self, path: Path, stopped: Callable[[], bool]) -> str:
        self.threads.append(threading.current_thread())
        self.open.wait()
        return onnx_file.sha256(path, stopped)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(digest, "sha256", made.sha256)
    monkeypatch.setattr(digest, "SMALL_BYTES", 1000)
    yield made
    made.open.set()


def test_that_of_large_files_is_worked_out_meanwhile(gate: Gate, path: Path) -> None:
    backend = OnnxBackend(path, ONE_THREAD, 1)
    assert answers(backend) == [1.0, 1.0]
    assert backend.file.sha256 == ""
    gate.open.set()
    wait_until(lambda: backend.file.sha256)
    small = Digest(path, ["model.onnx.data"], Stamps([]))
    assert backend.file.sha256 == small.value


@pytest.mark.parametrize("change", CHANGES)
def test_that_of_files_that_changed_before_is_not_known(
    change: Callable[[Path], None], gate: Gate, path: Path, weights: Path
) -> None:
    backend = OnnxBackend(path, ONE_THREAD, 1)
    wait_until(lambda: gate.threads)
    change(weights)
    gate.open.set()
    gate.threads[0].join()
    assert backend.file.sha256 == ""


def test_a_model_that_is_closed_gives_up(gate: Gate, path: Path) -> None:
    backend = OnnxBackend(path, ONE_THREAD, 1)
    wait_until(lambda: gate.threads)
    backend.close()
    gate.open.set()
    gate.threads[0].join()
    assert backend.file.sha256 == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_others_come_first(gate: Gate, path: Path) -> None:
    OnnxBackend(path, ONE_THREAD, 1)
    wait_until(lambda: gate.threads)
    thread = gate.threads[0].native_id
    assert thread is not None
    assert os.getpriority(os.PRIO_PROCESS, thread) == digest.LEAST_URGENT
    assert os.getpriority(os.PRIO_PROCESS, 0) < digest.LEAST_URGENT
