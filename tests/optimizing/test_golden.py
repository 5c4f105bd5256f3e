"""`penstock optimize` and golden rows: a variant gets them, with what it loses in their tolerance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from optimizing.kit import as_json, mlp, optimize
from penstock_client import Client
from support.servers import running_server

ROWS = 80


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Version 1 of a classifier, with golden rows, and its sample beside the folder of the models."""
    folder = tmp_path / "models/mlp/1"
    folder.mkdir(parents=True)
    onnx.save(mlp(), folder / "model.onnx")
    x = np.random.default_rng(5).normal(0, 1, (ROWS, 16)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x)
    write(folder, rows_of(folder, x), {"tolerance": {"p": 1e-5}})
    return folder


def rows_of(folder: Path, x: Any) -> list[dict[str, Any]]:
    label, p = ort.InferenceSession(folder / "model.onnx").run(None, {"x": x})
    return [{"x": x[i].tolist(), "label": int(label[i]), "p": p[i].tolist()} for i in range(len(x))]


def write(folder: Path, rows: list[dict[str, Any]], header: object) -> None:
    lines = [{"golden": header}, *rows]
    (folder / "golden.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))


def read(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    header, *rows = map(json.loads, (folder / "golden.jsonl").read_text().splitlines())
    return header["golden"]["tolerance"], rows


def flags(version: Path, difference: float = 0.3, name: str = "int8-static") -> list[object]:
    sample = version.parents[2] / "rows.npz"
    return ["--sample", sample, "--variant", name, "--max-difference", difference, "--allow-slower"]


def test_a_variant_gets_the_golden_rows_with_what_it_loses_as_tolerance(version: Path) -> None:
    run = optimize(version.parent, *flags(version))
    assert run.returncode == 0, run.stdout + run.stderr
    new = version.parent / "2"
    tolerance, rows = read(new)
    assert tolerance.keys() == {"p"}
    assert 1e-4 < tolerance["p"] < 0.3
    assert f"int8-static: good; {ROWS} golden rows: tolerance {tolerance['p']:g}" in run.stdout
    found = json.loads((new / "optimized.json").read_text())["variants"][1]["golden"]
    assert found["rows"] == ROWS
    assert found["tolerance"] == tolerance
    assert found["differences"]["p"] <= tolerance["p"] <= 1.1 * (found["differences"]["p"] + 1e-5)
    assert len(rows) == ROWS - found["other_labels"]
    old = read(version)
    assert old[0] == {"p": 1e-5}
    assert all(row in old[1] for row in rows)  # the answers are still the original's
    with running_server(version.parents[1], "--no-http") as server, Client(server.target) as client:
        assert client.model("mlp", "2").metadata["penstock.golden"].startswith(f"{len(rows)} rows: ")
        got = client.predict("mlp", {"x": rows[0]["x"]}, version="2")["p"]
    assert 0 < float(np.abs(got - np.float32(rows[0]["p"])).max()) <= tolerance["p"]


def test_rows_with_another_label_are_left_out_and_counted(version: Path) -> None:
    onnx.save(mlp(gain=30.0), version / "model.onnx")
    x = np.load(version.parents[2] / "rows.npz")["x"]
    write(version, [{"x": row["x"], "label": row["label"]} for row in rows_of(version, x)], {})
    found = as_json(optimize(version.parent, *flags(version, 0.0), "--dry-run", "--json"))
    golden = found["variants"]["int8-static"]["golden"]
    count = golden["other_labels"]
    assert 0 < count < ROWS / 2
    assert golden["tolerance"] is None
    said = f"golden rows: {count} of {ROWS} have another label, more than 0.0%"
    assert found["variants"]["int8-static"]["refused"] == said

    run = optimize(version.parent, *flags(version, 1.0))
    assert run.returncode == 0, run.stdout + run.stderr
    have = "row has another label and is" if count == 1 else "rows have another label and are"
    assert f"good; {ROWS} golden rows: {count} {have} left out" in run.stdout
    lines = (version.parent / "2/golden.jsonl").read_text().splitlines()
    assert len(lines) == 1 + ROWS - count
    with running_server(version.parents[1], "--no-http") as server, Client(server.target) as client:
        said = client.model("mlp", "2").metadata["penstock.golden"]
    assert said == f"{ROWS - count} rows: no labels differ"


def test_a_variant_that_misses_golden_rows_is_refused(version: Path) -> None:
    """The golden rows have values that the sample, from which int8 learns its ranges, has not."""
    x = np.load(version.parents[2] / "rows.npz")["x"]
    write(version, rows_of(version, x * 8), {"tolerance": 1e-4})
    run = optimize(version.parent, *flags(version, 0.4))
    assert run.returncode == 1
    assert "int8-static: refused: golden rows: p differs by 0." in run.stdout
    assert ", more than 0.4" in run.stdout
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_a_tolerance_that_is_enough_stays(version: Path) -> None:
    write(version, read(version)[1], {"tolerance": {"p": 0.02}})
    run = optimize(version.parent, *flags(version, 0.01, "fp16"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"fp16: good; {ROWS} golden rows: tolerance 0.02\n" in run.stdout
    assert read(version.parent / "2") == read(version)


def test_golden_rows_beside_a_lone_file_go_along(version: Path) -> None:
    lone = version.parents[2] / "lone"
    version.rename(lone)
    run = optimize(lone / "model.onnx", *flags(version), "--to", lone.parent / "models/mlp")
    assert run.returncode == 0, run.stdout + run.stderr
    assert (lone.parent / "models/mlp/1/golden.jsonl").is_file()


def test_an_original_that_misses_its_golden_rows_is_no_measure(version: Path) -> None:
    rows = read(version)[1]
    rows[40]["p"] = [0.2] * 5
    write(version, rows, {"tolerance": 1e-4})
    run = optimize(version.parent, *flags(version))
    assert run.returncode == 1
    assert f"{version}: it misses its golden rows: {ROWS} rows: no labels differ" in run.stderr
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_golden_rows_that_cannot_be_read_are_said(version: Path) -> None:
    (version / "golden.jsonl").write_text('{"y": 1}\n')
    run = optimize(version.parent, *flags(version))
    assert run.returncode == 1
    assert "golden.jsonl: no column for an output" in run.stderr
    assert "Traceback" not in run.stderr
