"""The client for threads is made out of the one for asyncio."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).parents[2] / "clients/python"
SCRIPT: dict[str, Any] = runpy.run_path(str(CLIENT / "make_sync.py"))


@pytest.mark.parametrize(("source", "target"), SCRIPT["MADE"].items())
def test_the_files_are_those_that_the_script_makes(source: str, target: str) -> None:
    kept = (CLIENT / "src/penstock_client" / target).read_text()
    assert kept == SCRIPT["made"](source), "run clients/python/make_sync.py"
    assert "async" not in kept.replace("asyncio_", "").partition("\n")[2].lower()
    assert "await" not in kept


def test_every_pattern_of_the_script_is_needed() -> None:
    sources = [(CLIENT / "src/penstock_client" / name).read_text() for name in SCRIPT["MADE"]]
    texts = [SCRIPT["OMITTED"].sub("", text) for text in sources]
    unused = [
        pattern
        for pattern, _ in SCRIPT["WORDS"]
        if not any(re.search(pattern, text, re.DOTALL) for text in texts)
    ]
    assert unused == []


def test_what_is_left_out_is_marked_in_pairs() -> None:
    for name in SCRIPT["MADE"]:
        text = (CLIENT / "src/penstock_client" / name).read_text()
        marks = re.findall(r"^ *# (\[async|\])$", text, re.MULTILINE)
        assert marks == ["[async", "]"] * (len(marks) // 2)
