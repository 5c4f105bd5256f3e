"""What Triton answers, we answer too, but for the differences listed in `differences.py`.

`triton.json` holds what Triton 2.51 answered to every step of `programs/transcript.py`; `programs/record.py`
wrote it. Messages of errors are not compared, nor what only describes the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_inference import kit
from open_inference.differences import DIFFERENCES, ONLY_OVER_GRPC, OVER_HTTP
from open_inference.summary import summary
from support import zoo
from support.servers import RunningServer, running_server

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("triton.json").read_text(encoding="utf-8"))
DESCRIBES = "server metadata"
UNARY = [
    step for step in RECORDED if not step.startswith("stream") and step not in {DESCRIBES, *ONLY_OVER_GRPC}
]
"""What is asked over HTTP as well."""


@pytest.fixture(scope="session", params=["reactor", "portable"])
def ours(request: pytest.FixtureRequest, oip_server: Callable[[str], RunningServer]) -> dict[str, Any]:
    """What we answer, by the step."""
    kit.python_of("newest")  # skips, before a server is started
    answers: dict[str, Any] = kit.run("newest", "transcript.py", oip_server(request.param).target)
    return answers


@pytest.fixture(scope="session")
def over_http(oip_server: Callable[[str], RunningServer]) -> dict[str, Any]:
    """What we answer over HTTP, by the step."""
    kit.python_of("newest")  # skips, before a server is started
    answers: dict[str, Any] = kit.run("newest", "transcript.py", oip_server("reactor").http)
    return answers


@pytest.mark.parametrize("step", UNARY)
def test_the_answer_over_http_is_the_same(over_http: dict[str, Any], step: str) -> None:
    expected = OVER_HTTP.get(step, DIFFERENCES.get(step, summary(RECORDED[step])))
    assert summary(over_http[step]) == expected, over_http[step]


@pytest.mark.parametrize("step", [step for step in RECORDED if step != DESCRIBES])
def test_the_answer_is_that_of_triton(ours: dict[str, Any], step: str) -> None:
    assert summary(ours[step]) == DIFFERENCES.get(step, summary(RECORDED[step])), ours[step]


def test_with_its_status_codes_even_these_are_triton(tmp_path: Path) -> None:
    kit.python_of("newest")
    steps = ["queue full", "timeout in the queue"]
    path = zoo.repository(tmp_path / "models", {"slow": zoo.slow(200)})
    (path / "slow/model.toml").write_text(kit.SHORT_QUEUE)
    with running_server(path, env={"PENSTOCK_SERVER__TRITON_STATUS_CODES": "true"}) as server:
        answers = kit.run("newest", "transcript.py", server.target, *steps)
    assert {step: summary(answers[step]) for step in steps} == {s: summary(RECORDED[s]) for s in steps}


def test_every_step_is_recorded(ours: dict[str, Any]) -> None:
    assert ours.keys() == RECORDED.keys(), "run programs/record.py"


def test_every_difference_is_one() -> None:
    assert [step for step, answer in DIFFERENCES.items() if answer == summary(RECORDED[step])] == []


def test_every_difference_of_http_is_one() -> None:
    usual = {step: DIFFERENCES.get(step, summary(RECORDED[step])) for step in OVER_HTTP}
    assert [step for step, answer in OVER_HTTP.items() if answer == usual[step]] == []


def test_errors_say_something(ours: dict[str, Any]) -> None:
    silent = [step for step, answer in ours.items() if "code" in answer and not answer.get("message")]
    assert silent == []
