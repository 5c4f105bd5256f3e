"""`penstock optimize`: what it makes of real graphs, what it refuses, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from optimizing.kit import as_json, mlp, optimize
from penstock.core.tensors import DataType, TensorSpec
from penstock.models.model import Batching
from penstock.optimizing.measuring import Difference, differences
from penstock.optimizing.verdicts import Limits, Report, why_refused
from penstock_client import Client
from support import zoo
from support.servers import running_server

ROWS = 60


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "rows.npz"
    np.savez(path, x=np.random.default_rng(5).normal(0, 1, (ROWS, 16)).astype(np.float32))
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "mlp/3").mkdir(parents=True)
    onnx.save(mlp(), folder / "mlp/3/model.onnx")
    return folder


def test_each_variant_is_compared_with_the_original(models: Path, sample: Path) -> None:
    run = optimize(models / "mlp", "--sample", sample, "--dry-run", "--json")
    assert run.stderr == ""
    found = as_json(run)
    variants = found["variants"]
    assert found["rows"] == ROWS
    assert list(variants) == ["original", "graph", "fp16", "int8-dynamic", "int8-static"]
    assert all(set(each["seconds"]) == {"1", "8", "32"} for each in variants.values())
    batched = {name: each["batched"] for name, each in variants.items()}
    assert batched["int8-dynamic"] is False
    assert "takes one scale over the whole batch" in variants["int8-dynamic"]["batching_reason"]
    assert batched["original"]
    assert "one scale" not in variants["int8-static"]["batching_reason"]
    size = variants["original"]["size_bytes"]
    assert variants["int8-static"]["size_bytes"] < 0.35 * size
    assert 0.4 * size < variants["fp16"]["size_bytes"] < 0.6 * size
    worst = {
        name: max(e["difference"] for e in each["differences"] if e["output"] == "p")
        for name, each in variants.items()
        if name != "original"
    }
    assert worst["graph"] < 1e-5 < worst["fp16"] < 1e-2
    assert 1e-4 < worst["int8-static"] < 0.2
    assert [path.name for path in (models / "mlp").iterdir()] == ["3"]


def test_a_good_variant_becomes_the_next_version(models: Path, sample: Path) -> None:
    before = (models / "mlp/3/model.onnx").read_bytes()
    flags = ["--sample", sample, "--variant", "int8-static", "--max-difference", "0.3", "--allow-slower"]
    run = optimize(models / "mlp/3", *flags)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"as {models / 'mlp/4'}" in run.stdout
    assert sorted(path.name for path in (models / "mlp").iterdir()) == ["3", "4"]
    assert (models / "mlp/3/model.onnx").read_bytes() == before
    written = json.loads((models / "mlp/4/optimized.json").read_text())
    assert (written["of_version"], written["sample"]) == (3, "rows.npz")
    assert written["variant"] == "int8-static"
    x = np.load(sample)["x"]
    with running_server(models, "--no-http") as server, Client(server.target) as client:
        new, old = (client.predict("mlp", {"x": x}, version=version)["p"] for version in ("4", "3"))
    assert 0 < float(np.abs(new - old).max()) < 0.3


def test_what_differs_too_much_is_refused(models: Path, sample: Path) -> None:
    run = optimize(models / "mlp", "--sample", sample, "--variant", "int8-static", "--max-difference", "1e-6")
    assert run.returncode == 1
    assert "int8-static: refused: " in run.stdout
    assert "more than 1e-06" in run.stdout
    assert [path.name for path in (models / "mlp").iterdir()] == ["3"]


def test_labels_that_differ_count_by_the_row(tmp_path: Path, sample: Path) -> None:
    onnx.save(mlp(gain=30.0), tmp_path / "steep.onnx")
    flags = ["--sample", sample, "--variant", "int8-static", "--dry-run", "--json"]
    found = as_json(optimize(tmp_path / "steep.onnx", *flags))
    [label, _] = found["variants"]["int8-static"]["differences"]
    assert label["output"] == "label"
    assert label["difference"] == pytest.approx(1 - label["same_top"])
    assert label["difference"] * ROWS == pytest.approx(round(label["difference"] * ROWS))


def test_a_model_without_anything_to_quantize_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones((4, 3), np.float32))
    (tmp_path / "m/1").mkdir(parents=True)
    onnx.save(zoo.identity(), tmp_path / "m/1/model.onnx")
    run = optimize(tmp_path / "m", "--sample", tmp_path / "rows.npz")
    assert run.returncode == 1
    assert "int8-dynamic: refused: none of its operators can be quantized: Identity" in run.stdout
    assert "fp16: refused: it has no weights of 32 bits that can be halved" in run.stdout
    assert "graph: refused: it gains nothing" in run.stdout


def test_a_lone_file_needs_a_folder_to_write_to(tmp_path: Path, sample: Path) -> None:
    onnx.save(mlp(), tmp_path / "lone.onnx")
    run = optimize(tmp_path / "lone.onnx", "--sample", sample)
    assert run.returncode == 2
    assert "say where to write with --to" in run.stderr
    flags = ["--variant", "fp16", "--allow-slower", "--to", tmp_path / "models/lone"]
    run = optimize(tmp_path / "lone.onnx", "--sample", sample, *flags)
    assert f"written: fp16 as {tmp_path / 'models/lone/1'}" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no file or folder"),
        (["."], "has no version: expected"),
        (["mlp"], "variants are compared on real rows: give a file with --sample"),
        (["mlp", "--sample", "missing.csv"], "sample.file missing.csv: No such file or directory"),
        (["mlp", "--sample", "empty.npz"], "no array for input x FP32[N,16]"),
    ],
)
def test_what_cannot_be_used_is_said(models: Path, arguments: list[str], said: str) -> None:
    np.savez(models / "empty.npz")
    words = [word if word.startswith("-") else str(models / word) for word in arguments]
    run = optimize(*words)
    assert run.returncode == 1
    assert said in run.stderr.replace(f"{models}/", "")
    assert "Traceback" not in run.stderr


def test_a_failed_write_leaves_nothing(models: Path, sample: Path) -> None:
    """In a place of which only the write tells; those that can be told before are in tests/cli."""
    place = models / ("m" * 300)
    flags = ["--sample", sample, "--variant", "fp16", "--allow-slower", "--to", place]
    run = optimize(models / "mlp", *flags)
    assert run.returncode == 1
    assert "cannot be written: File name too long" in run.stderr


def report(name: str, seconds: list[float], size: int = 100, difference: float = 0.0) -> Report:
    found = Report(name, Path("model.onnx"), size, Batching(True, "the graph is row-wise"), seconds)
    found.differences = [Difference("p", difference, 7, None)]
    return found


@pytest.mark.parametrize(
    ("seconds", "size", "why"),
    [
        ([1.0, 1.0, 1.0], 100, "it gains nothing: neither faster nor smaller"),
        ([1.0, 1.0, 1.0], 50, ""),
        ([1.0, 0.8, 1.0], 100, ""),
        ([1.0, 0.8, 1.2], 50, "slower: 32 rows take 1.2e+03 ms instead of 1e+03 ms"),
        ([1.2, 0.1, 0.1], 50, "slower: 1 row takes 1.2e+03 ms instead of 1e+03 ms"),
        ([1.09, 0.95, 1.0], 100, "it gains nothing: neither faster nor smaller"),  # within the noise
    ],
)
def test_a_variant_must_gain_and_may_not_lose(seconds: list[float], size: int, why: str) -> None:
    original = report("original", [1.0, 1.0, 1.0])
    assert why_refused(report("variant", seconds, size), original, Limits(0.01, noise=0.1)) == why


def test_slower_ones_may_be_allowed_for_their_size() -> None:
    original, slow = report("original", [1.0] * 3), report("variant", [2.0] * 3, 50)
    assert why_refused(slow, original, Limits(0.01, noise=0.1, allow_slower=True)) == ""
    slow.differences = [Difference("p", 0.02, 7, None)]
    said = "p differs by 0.02 in row 7, more than 0.01"
    assert why_refused(slow, original, Limits(0.01, noise=0.1, allow_slower=True)) == said


def test_rows_that_run_alone_are_said_with_the_time() -> None:
    original, alone = report("original", [1.0] * 3), report("variant", [0.5, 4.0, 16.0])
    alone.batching = Batching(False, "node 3 takes one scale")
    said = why_refused(alone, original, Limits(0.01, noise=0.1))
    assert said.endswith("; its rows run alone: node 3 takes one scale")
    assert said.startswith("slower: 8 rows")


def test_differences_see_what_is_not_finite() -> None:
    spec = TensorSpec("y", DataType.FP32, ("N", 2))
    rows = [np.array([[1.0, np.nan]], np.float32), np.array([[4.0, np.inf]], np.float32)]
    [same] = differences([spec], [[each] for each in rows], [[each] for each in rows])
    assert (same.size, same.row) == (0.0, 0)
    [other] = differences(
        [spec], [[each] for each in rows], [[rows[0]], [np.array([[4.0, 1.0]], np.float32)]]
    )
    assert (other.size, other.row) == (float("inf"), 2)
    [near] = differences([spec], [[each] for each in rows], [[rows[0]], [rows[1] - np.float32([[1.0, 0.0]])]])
    assert (near.size, near.row) == (0.25, 2)  # of the largest value, 4
