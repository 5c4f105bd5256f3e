"""What these tests share: foreign environments, programs that run in them, and the models that are served."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.core.tensors import DataType
from support import zoo

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
SECONDS = 100.0
"""No program may take longer."""
ALONE = "[batching]\nenabled = false\n"
SHORT_QUEUE = f"{ALONE}queue_rows = 3\n"
FOLDERS = {"kserve": ".venv-bench/kserve", "mlserver": ".venv-bench/mlserver"}
"""Environments that others made for themselves."""


def python_of(environment: str) -> Path:
    """The interpreter of an environment; skips the test where it is not there."""
    folder = FOLDERS.get(environment, f".venv-oip/{environment}")
    if not (ROOT / folder / ".made").exists():
        pytest.skip(f"{environment} is not installed: make {folder}/.made")
    return ROOT / folder / "bin/python"


def has_http(environment: str) -> bool:
    """Whether its tritonclient has what it needs for HTTP."""
    return any(python_of(environment).parents[1].glob("lib/*/site-packages/geventhttpclient"))


def run(environment: str, program: str, *arguments: str) -> Any:
    """Runs a program in an environment, and gives the JSON that it prints."""
    command = [str(python_of(environment)), str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def checks(*patterns: str) -> list[str]:
    """The names of the checks in programs, which cannot be imported here."""
    files = [path for pattern in patterns for path in sorted(PROGRAMS.glob(pattern))]
    return [name for path in files for name in _checks(path)]


def _checks(path: Path) -> Sequence[str]:
    return re.findall(r"^(?:async )?def (check_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def models() -> dict[str, Any]:
    """What is served, besides lead_scoring."""
    served: dict[str, Any] = {f"identity_{each.label.lower()}": zoo.identity(each) for each in DataType}
    served |= {f"many_{n}": zoo.scale(n) for n in range(20)}
    return served | {
        "identity": zoo.identity(),
        "counted": zoo.identity(),
        "labelled": zoo.identity(),
        "alone": zoo.identity(),
        "integers": zoo.identity(DataType.INT64, ("N", 1)),
        "wide": zoo.identity(DataType.FP32, ("N", "L")),
        "deep": zoo.identity(DataType.FP32, ("N", 2, 3)),
        "scalar": zoo.scalar(),
        "add": zoo.add(),
        "multi": zoo.multi_output(),
        "fails": zoo.fails_on(100),
        "fails_counted": zoo.fails_on(100),
        "scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0), 10: zoo.scale(10.0)},
        "slow": zoo.slow(200),
        "lazy": zoo.slow(10),
        "tiny_mlp": zoo.tiny_mlp(),
    }


def repository(root: Path) -> Path:
    """Writes the models and what is said of them."""
    path = zoo.repository(root, models())
    (path / "lead_scoring").symlink_to(zoo.EXAMPLES / "models/lead_scoring", target_is_directory=True)
    (path / "scale/model.toml").write_text("labels = { stable = 2 }\n")
    (path / "labelled/model.toml").write_text('class_labels = { y = "labels.txt" }\n')
    (path / "labelled/labels.txt").write_text("ant\nbee\ncat\n")
    (path / "slow/model.toml").write_text(SHORT_QUEUE)
    (path / "alone/model.toml").write_text(ALONE)
    return path
