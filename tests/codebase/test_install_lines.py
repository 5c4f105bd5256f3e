"""No line says how to install `penstock` from an index: the package of that name there is another project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "penstock"
BY_NAME = re.compile(rf"\b{NAME}(?:-client)?\[|pip install[^`\n]*?[ '\"]{NAME}(?:-client)?(?:['\"`\s]|$)")
"""The name with an extra, or the name alone after `pip install`; a path or a wheel's file is neither."""


@pytest.mark.parametrize(
    ("line", "is_by_name"),
    [
        (f"pip install '{NAME}[import]'", True),
        (f"needs the extra `{NAME}[docs]`", True),
        (f"pip install {NAME}", True),
        ("pip install '.[import]'", False),
        (f"pip install dist/{NAME}_client-*.whl 'dist/{NAME}-1.0-py3-none-any.whl[import]'", False),
        (f"`pip install .` gives the command `{NAME}`", False),
    ],
)
def test_what_is_found(line: str, is_by_name: bool) -> None:
    assert bool(BY_NAME.search(line)) is is_by_name


def test_nothing_is_installed_by_name_from_an_index() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    found = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if path.suffix not in (".md", ".py", ".toml", ".yaml", ".yml", ".html", ".sh", ".txt"):
            continue
        if path.is_file() and path != Path(__file__):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [f"{name}:{i}: {line}" for i, line in enumerate(lines, 1) if BY_NAME.search(line)]
    assert found == []
