"""docs/from-scikit-learn.md: its code and its commands give what the page shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support.servers import SCRIPT, running_server

PAGE = (Path(__file__).parents[2] / "docs/from-scikit-learn.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^\$ (.*)\n((?:[^$].*\n)*)", re.MULTILINE)
LARGEST = re.compile(r"largest \S+")


def normal(text: str) -> str:
    """The text without differences in the last digits, which vary from processor to processor."""
    return LARGEST.sub("largest some", text).strip()


@pytest.mark.timeout(400)
def test_the_page(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    (code,) = [text for language, text in blocks if language == "python"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=180)
    commands = [pair for _, text in blocks for pair in SHOWN.findall(text)]
    (imported, written), (served, summary), *called = commands[:4]
    words = shlex.split(imported)
    assert words[0] == "penstock"
    done = subprocess.run(
        [SCRIPT, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert normal(done.stdout + done.stderr) == normal(written)
    assert served == "penstock serve models"
    with running_server(
        tmp_path / "models", "--http-port", "0", env={"PENSTOCK_SERVER__HTTP": "true"}
    ) as server:
        golden = [line for line in summary.splitlines() if "golden" in line]
        assert [normal(line) for line in golden] == [
            normal(line) for line in server.stdout.splitlines() if "golden" in line
        ]
        for command, answer in called:
            url, body = shlex.split(command)[2], shlex.split(command)[4]
            request = urllib.request.Request(url.replace("http://127.0.0.1:8000", server.http), body.encode())
            got = json.load(urllib.request.urlopen(request, timeout=20))
            expected = json.loads(answer)
            assert got.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-5)
            assert got.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-5)
            assert got == expected
