"""What no file of the project may say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A clone is to work with whatever mirrors its machine is set up for, so no file says where packages and
# images come from.
# Put together from pieces, the patterns do not find themselves.
NAMES = [("py" + "pi", "org"), ("python" + "hosted", "org"), ("registry", "npm" + "js", "org")]
NAMES += [("proxy", "go" + "lang", "org"), ("crates", "io"), ("docker", "io"), ("ghcr", "io"), ("gcr", "io")]
NAMES += [("quay", "io"), ("repo1", "ma" + "ven", "org")]
FLAGS = ("extra-index-url", "index-url", "find-links")
HOSTS = re.compile(
    "|".join([rf"\b{re.escape('.'.join(name))}" for name in NAMES] + [rf"-{{2}}{flag}\b" for flag in FLAGS])
)


def tracked() -> list[Path]:
    """The files of the project, new ones included, ignored ones not."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def places_named(path: Path) -> list[str]:
    """Where a text file says where packages come from."""
    text = path.read_bytes().decode("utf-8", errors="ignore")
    return [
        f"{path.name}:{i}: {line.strip()}"
        for i, line in enumerate(text.splitlines(), 1)
        if HOSTS.search(line)
    ]


def test_no_file_says_where_packages_come_from() -> None:
    assert [place for path in tracked() for place in places_named(path)] == []


PLACES = [".".join(name) for name in NAMES]


@pytest.mark.parametrize("name", [*PLACES, "-" * 2 + "index-url=x"])
def test_a_place_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / "serve.txt"
    path.write_text(f"click==8.1\n# from {name}\n")
    assert places_named(path) == [f"serve.txt:2: # from {name}"]
