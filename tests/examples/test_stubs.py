"""The programs of docs/stubs.md: each makes stubs in its language, and asks a server with them.

The first time, they fetch packages and compile, which takes minutes:
`make soak ARGS=tests/examples/test_stubs.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import RunningServer, running_server

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "examples/stubs"
BUILD_SECONDS = 900
RUN_SECONDS = 60

NEEDED = {"go": ["go"], "typescript": ["node", "npm", "npx"], "java": ["java", "mvn"], "rust": ["cargo"]}
"""The commands that a language's program is made and run with."""

NO_NETWORK = re.compile(
    r"dial tcp|no such host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|Could not transfer artifact|Unknown host"
    r"|failed to (?:download|fetch|get)|Could ?n[o']t resolve host|Temporary failure in name resolution",
    re.IGNORECASE,
)
"""What tells that packages could not be fetched, and not that a program is wrong."""

ANSWERS = [0.3122, 0.1219, 0.3122, 0.6511]
"""What each program prints: one prediction by a call, then three over a stream."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(ROOT / "examples/models") as server:
        yield server


def command(language: str) -> list[str]:
    folder = STUBS / language
    if language == "go":
        return [str(folder / "build/stubs")]
    if language == "typescript":
        return ["node", str(folder / "build/js/main.js")]
    if language == "java":
        classpath = (folder / "target/classpath").read_text().strip()
        return ["java", "-cp", f"{folder / 'target/classes'}:{classpath}", "Main"]
    return [str(folder / "target/debug/stubs")]


@pytest.mark.soak
@pytest.mark.timeout(BUILD_SECONDS + RUN_SECONDS)
@pytest.mark.parametrize("language", NEEDED)
def test_stubs_are_made_and_used(language: str, server: RunningServer) -> None:
    missing = [each for each in NEEDED[language] if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    env = {**os.environ, "PROTOC": f"{sys.executable} -m grpc_tools.protoc"}
    script = STUBS / language / "build.sh"
    built = subprocess.run(
        [script], check=False, env=env, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    said = built.stdout + built.stderr
    if built.returncode != 0 and NO_NETWORK.search(said):
        pytest.skip(f"the packages of {language} cannot be fetched here: {said[-500:]}")
    assert built.returncode == 0, said
    ran = subprocess.run(
        [*command(language), server.target], check=False, capture_output=True, text=True, timeout=RUN_SECONDS
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.partition(": ") for line in ran.stdout.splitlines()]
    assert [name for name, _, _ in lines] == ["lead_scoring 1"] * len(ANSWERS)
    assert [float(value) for _, _, value in lines] == pytest.approx(ANSWERS, abs=1e-3)


@pytest.mark.parametrize("language", NEEDED)
def test_the_page_shows_what_is_run(language: str) -> None:
    """Every command of a build script stands on the page."""
    page = (ROOT / "docs/stubs.md").read_text()
    script = (STUBS / language / "build.sh").read_text()
    not_shown = ("#", "set ", "cd ", "CONTRACT=")
    lines = [line for line in script.splitlines() if line and not line.startswith(not_shown)]
    assert lines
    assert [line for line in lines if line not in page] == []
