"""Repositories as they lie on disks, served: what is passed over, what is refused, what stays loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock_client import Client
from support import zoo
from support.servers import SCRIPT, RunningServer, running_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server of one graph with three versions of weights in files of their own, among other things."""
    root = tmp_path_factory.mktemp("served") / "models"
    for version in (1, 2, 3):
        zoo.write(weights_of(float(version)), root / f"m/{version}/model.onnx", external=True)
    (root / "lost+found").mkdir()
    (root / "gone").symlink_to("nowhere")
    with running_server(root) as server:
        yield server, root


def weights_of(value: float) -> zoo.onnx.ModelProto:
    """y FP32 [N, 64]: x times a matrix that holds one value on its diagonal."""
    model = zoo.external()
    weights = np.eye(64, dtype=np.float32) * value
    model.graph.initializer[0].CopyFrom(zoo.numpy_helper.from_array(weights, "matrix"))
    return model


def test_what_is_passed_over_is_logged(served: tuple[RunningServer, Path]) -> None:
    server, root = served
    lines = [json.loads(line) for line in server.stderr if "skipped: not a model" in line]
    assert {(line["path"], line["reason"], line["level"]) for line in lines} == {
        (str(root / "lost+found"), "contains no model", "warning"),
        (str(root / "gone"), "is a link to nowhere, which is not there", "warning"),
    }


def test_versions_with_other_weights_have_another_sha256(served: tuple[RunningServer, Path]) -> None:
    server, root = served
    with Client(server.target, timeout=20) as client:
        listed = {model.version: model.sha256 for model in client.models()}
    assert len(set(listed.values())) == 3
    for version, sha256 in listed.items():
        command = "(sha256sum < model.onnx; sha256sum model.onnx.data) | sha256sum"
        folder = root / "m" / version
        if shutil.which("sha256sum"):
            run = subprocess.run(
                ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True
            )
            assert run.stdout.split()[0] == sha256
    with urllib.request.urlopen(f"{server.ops}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert set(re.findall(r'penstock_model_info{.*sha256="(\w+)"', text)) == set(listed.values())


def test_a_version_answers_from_what_was_loaded(served: tuple[RunningServer, Path]) -> None:
    server, root = served
    x = np.ones((1, 64), np.float32)
    with Client(server.target, timeout=20) as client:
        for version in ("1", "2", "3"):
            data = root / "m" / version / "model.onnx.data"
            os.truncate(data, 0)
            data.write_bytes(bytes(64 * 64 * 4))
            assert client.predict("m", {"x": x}, version=version)["y"][0, 0] == int(version)


def test_a_start_that_fails_says_what_to_do_and_logs_the_rest(tmp_path: Path) -> None:
    model = zoo.scale(2)
    model.ir_version = 99
    root = zoo.repository(tmp_path / "models", {"m": {1: zoo.scale(1), 2: model}})
    run = subprocess.run(
        [SCRIPT, "serve", root, "--port", "0", "--ops-port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    *log, error = run.stderr.strip().splitlines()
    assert error.startswith(f"Error: model m version 2: {root / 'm/2/model.onnx'} cannot be loaded: ")
    assert "takes up to" in error
    assert "onnxruntime" not in error
    (line,) = [json.loads(line) for line in log if "cannot be loaded" in line]
    assert (line["model"], line["version"]) == ("m", 2)
    assert "Unsupported model IR version: 99" in line["cause"]
