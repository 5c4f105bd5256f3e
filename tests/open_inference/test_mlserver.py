"""`mlserver infer`, MLServer's program for batch inference: it works against this server unchanged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_inference import kit
from support.servers import RunningServer

SECONDS = 60.0


def tensor(*rows: list[float]) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": list(rows)}


@pytest.mark.parametrize("form", [[], ["--binary-data"]], ids=["json", "binary"])
def test_mlserver_infer(oip_server: Callable[[str], RunningServer], tmp_path: Path, form: list[str]) -> None:
    program = kit.python_of("mlserver").with_name("mlserver")
    asked = [{"id": str(n), "inputs": [tensor([n, 2, 3], [4, 5, 6])]} for n in range(20)]
    asked.append({"id": "wrong", "inputs": [tensor([1, 2])]})
    given, written = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(each) + "\n" for each in asked))
    address = oip_server("reactor").http.removeprefix("http://")
    command = [
        program,
        "infer",
        "-u",
        address,
        "-m",
        "identity",
        "-i",
        given,
        "-o",
        written,
        "-r",
        "1",
        *form,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in written.read_text().splitlines()]
    *good, wrong = sorted(answers, key=lambda each: each["parameters"]["batch_index"])
    assert [each["outputs"][0]["data"] for each in good] == [[n, 2, 3, 4, 5, 6] for n in range(20)]
    assert "x has shape [1, 2], expected x FP32[N,3]" in wrong["error"]["msg"]
