"""The example with scikit-learn: train, import, serve, call, compare, with the commands of its README."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from penstock.cli.group import COMMANDS
from support import zoo
from support.servers import running_server

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-import/bin/python"
FOLDER = zoo.EXAMPLES / "sklearn"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists() or "import" not in COMMANDS,
    reason="there is no environment with pandas here (.venv-import), or no `penstock import`",
)


def run(*arguments: object) -> str:
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", "clients/python/src"))
    command = [str(PYTHON), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_a_table_with_gaps_to_the_same_answers(tmp_path: Path) -> None:
    readme = (FOLDER / "README.md").read_text()
    assert "wrote churn.joblib" in run(FOLDER / "train.py", "--to", tmp_path)
    flags = ["--sample", tmp_path / "churn.csv", "--target", "left", "--to", tmp_path / "models/churn"]
    imported = run("-m", "penstock", "import", tmp_path / "churn.joblib", *flags, "--yes")
    assert re.search(r"sample +500 rows: no labels differ", imported)
    assert re.search(r"hard rows +\d+ rows: no labels differ", imported)
    [body] = re.findall(r"predict/churn -d '(.*)'", readme)
    with running_server(tmp_path / "models", "--http", "--http-port", "0") as server:
        with urllib.request.urlopen(f"{server.http}/predict/churn", body.encode()) as answer:
            assert json.load(answer)["label"] == "no"
        compared = run(FOLDER / "compare.py", "--folder", tmp_path, "--target", server.target)
    assert re.fullmatch(
        r"500 rows, 129 with a missing value: 0 labels differ, largest \d+e-0[789]\n", compared
    )
