"""The page in headless Chromium: what people see, what screen readers get, and what keys can do.

One program looks at everything once; each test is about a part of what it saw.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page import kit
from penstock_client import Client
from support import beside
from support.servers import RunningServer

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-browser/bin/python"
PROGRAM = Path(__file__).parent / "programs/browser.py"
MOST_SECONDS = 300

pytestmark = pytest.mark.timeout(MOST_SECONDS + 60)


@contextmanager
def load(target: str) -> Iterator[None]:
    """A caller that keeps calling."""
    stop = threading.Event()

    def call() -> None:
        with Client(target) as client:
            while not stop.wait(0.02):
                client.predict("scale", {"x": np.ones((4, 3), np.float32)})

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="session")
def everything(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the program saw; of the processes that run tests, one runs it for all."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium (Debian: chromium)")
    if not PYTHON.exists():
        pytest.skip("there is no Playwright; `make browser` installs it")
    kept = beside.folder(request.config) / "browser.json"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            found = look(chromium, request.getfixturevalue("page_server"))
            kept.write_text(json.dumps(found))
    seen: dict[str, Any] = json.loads(kept.read_text())
    if "cannot start" in seen:
        pytest.skip(f"Chromium does not start here: {seen['cannot start']}")
    return seen


def look(chromium: str, server: RunningServer) -> dict[str, Any]:
    """Runs the program, and the commands that it copied while the server is there."""
    command = [PYTHON, PROGRAM, chromium, server.ops, server.http]
    with load(server.target):
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # how long each step took
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    forms = seen.get("forms", {"failed": "not tried"})
    if "failed" not in forms:
        seen["copied"] = {
            **{name: run_all(name, forms) for name in ("curl", "grpcurl") if shutil.which(name)},
            "Python": run_python(forms),
        }
    with Client(server.target) as client:
        answer = client.predict("lead_scoring", RECORD)
        seen["client"] = {name: value[0].tolist() for name, value in answer.items()}
    return seen


RECORD = {"lead_source": 'it\'s a "test" $HOME', "number_of_courses_viewed": 1, "annual_income": 79276.5}
"""What the program fills in for the bundled model."""
TOO_LARGE = "large/1"
"""The form whose request is too large for a command line."""


def run_all(command: str, forms: dict[str, Any]) -> dict[str, Any]:
    """The outputs that each copied command gets, as JSON has them; or what went wrong."""
    found = {}
    for name, form in forms.items():
        if name == TOO_LARGE:
            continue
        text = form["commands"][command]
        done = subprocess.run(text, shell=True, capture_output=True, text=True, timeout=60, check=False)
        found[name] = json.loads(done.stdout) if done.returncode == 0 else f"{text}: {done.stderr}"
        if command == "grpcurl" and done.returncode == 0:
            tensors = found[name]["outputs"].items()
            found[name] = {
                key: next((values for each, values in tensor.items() if each.endswith("Values")), [])
                for key, tensor in tensors
            }
    return found


RUN_PROGRAMS = """
import json, sys
for name, text in json.load(sys.stdin).items():
    known = {}
    exec(text, known)
    found = {key: value.tolist() for key, value in known["answer"].items()}
    print("ANSWER", json.dumps([name, found]))
"""


def run_python(forms: dict[str, Any]) -> Any:
    """The answers of all copied programs, and what they print; or what went wrong."""
    programs = json.dumps({name: form["commands"]["Python"] for name, form in forms.items()})
    command = [sys.executable, "-c", RUN_PROGRAMS]
    done = subprocess.run(command, input=programs, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return done.stderr
    lines = [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return {"answers": dict(map(json.loads, lines)), "printed": done.stdout}


@pytest.fixture
def seen(everything: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """What the program saw in the step that a test is about."""
    found = everything[request.param]
    if "failed" in found:
        pytest.fail(found["failed"], pytrace=False)
    return found


def about(step: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seen", [step], indirect=True)


@about("overview")
def test_the_models_are_shown_and_the_figures_move(seen: Any) -> None:
    rows = {row.split("\t")[0]: row for row in seen["rows"]}
    assert len(rows) == 13
    assert "batched, proven row-wise" in rows["lead_scoring version 1 default"]
    assert "alone" in rows["deep version 1 default"]
    assert "switched off in model.toml" in rows["deep version 1 default"]
    assert "scale version 1 stable" in rows
    assert seen["title"] == "Penstock"
    assert "up " in seen["release"]


ANSWERS = {
    "deep/1": {"y": [[1, 2, 3], [4, 5, "NaN"]]},
    "wide/1": {"y": [1.5, 2000, "-Infinity"]},
    "words/1": {"y": ["a, b", "ü\n\\"]},
    "flag/1": {"y": True},
    "large/1": {"y": [[[0.25] * 64] * 64] * 3},
    "exact/1": {"y": 9007199254740993},
    "running_sum/1": {"y": 7},
    "scale/1": {"y": [1, 2, 3]},
}


@about("forms")
def test_the_forms_call_and_the_answers_are_the_clients(seen: Any, everything: dict[str, Any]) -> None:
    for name, expected in ANSWERS.items():
        assert seen[name]["head"] == "Answer", (name, seen[name]["text"])
        if name != TOO_LARGE:  # shown in part
            assert json.loads(seen[name]["raw"]) == expected, name
    assert "9007199254740993" in seen["exact/1"]["text"]
    shown, answer = json.loads(seen["lead_scoring/1"]["raw"]), everything["client"]
    assert shown["label"] == answer["label"]
    assert np.float32(shown["probabilities"]).tolist() == answer["probabilities"]
    assert "ms in all" in seen["lead_scoring/1"]["text"]
    assert "in the queue" in seen["lead_scoring/1"]["text"]
    assert seen["odd name/1"]["head"] == "Answer"


def flat(value: Any) -> list[str]:
    """All values, as texts that do not depend on who wrote them: int64 is a text in protobuf's JSON."""
    if isinstance(value, list):
        return [each for inner in value for each in flat(inner)]
    try:
        return [f"{float(value):.6g}".replace("inf", "Infinity").replace("nan", "NaN")]
    except ValueError:
        return [value]


@about("forms")
@pytest.mark.parametrize("command", ["curl", "grpcurl"])
def test_copied_commands_get_the_same_answer(seen: Any, everything: dict[str, Any], command: str) -> None:
    if command not in everything["copied"]:
        pytest.skip(f"there is no {command}")
    large = seen[TOO_LARGE]["commands"][command]
    assert large == "The request has too many values for a command line: use Python."
    answers = everything["copied"][command]
    assert answers.keys() == seen.keys() - {TOO_LARGE}
    for name, answer in answers.items():
        assert isinstance(answer, dict), answer
        shown = json.loads(seen[name]["raw"])
        for output in answer.keys() & shown.keys():
            assert flat(answer[output]) == flat(shown[output]), name
        assert answer
    assert "9007199254740993" in json.dumps(answers["exact/1"])


@about("forms")
def test_copied_python_programs_get_the_same_answer(seen: Any, everything: dict[str, Any]) -> None:
    assert "numpy.full([1, 3, 64, 64], 0.25, numpy.float32)" in seen[TOO_LARGE]["commands"]["Python"]
    found = everything["copied"]["Python"]
    assert isinstance(found, dict), found
    assert "{'y': array([[1., 2., 3.]], dtype=float32)}" in found["printed"]
    answers = found["answers"]
    assert answers.keys() == seen.keys()
    assert set(flat(answers.pop(TOO_LARGE)["y"])) == {"0.25"}
    for name, answer in answers.items():
        shown = json.loads(seen[name]["raw"])
        assert {output: flat(value) for output, value in answer.items()} == {
            output: flat(shown[output]) for output in answer
        }, name


@about("wrong")
def test_mistakes_are_said_where_they_are_made(seen: Any) -> None:
    local = seen["local"]
    assert local["said"] == "“1.5” is not a whole number."
    assert (local["focused"], local["invalid"]) == ("number_of_courses_viewed", "true")
    assert local["command"] == "Correct the form first."
    assert local["answer"] == ""
    assert "400 Bad Request (INVALID_ARGUMENT)" in seen["remote"]
    assert "does not fit INT64" in seen["remote"]
    assert "99999" not in seen["errors"]


@about("narrow")
def test_at_360_pixels_nothing_is_too_wide(seen: Any) -> None:
    assert {name: width for name, (width, window) in seen["widths"].items() if width > window} == {}
    assert seen["outside"] == []


@about("contrast")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(seen: Any, scheme: str) -> None:
    assert seen[scheme]["count"] > 100
    assert seen[scheme]["short"] == []
    assert seen[scheme]["least"] < 20, "it was computed"


@about("keyboard")
def test_keys_are_enough(seen: Any) -> None:
    assert "Answer" in seen["answer"]
    assert seen["rings"] == ["solid"], "what has the focus can be seen"
    assert "referral" in seen["curl"]
    assert seen["copied"] == seen["curl"]


CONTROLS = (
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "combobox",
    "img",
    "image",
    "table",
    "DisclosureTriangle",
)


@about("tree")
def test_screen_readers_get_landmarks_headings_and_names(seen: Any) -> None:
    roles = [role for role, _ in seen]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    assert [(role, name) for role, name in seen if role in CONTROLS and not name.strip()] == []
    names = {name for role, name in seen if role == "heading"}
    assert {
        "Now",
        "Models",
        "running_sum",
        "Try it",
        "Recent errors",
        "The same call from elsewhere",
    } <= names
    assert {"Now", "Models", "running_sum", "Recent errors"} <= {
        name for role, name in seen if role == "region"
    }
    assert {"x", "Sequence"} <= {name for role, name in seen if role == "textbox"}
    assert roles.count("row") >= 14
    assert roles.count("columnheader") >= 8
    charts = [name for role, name in seen if role in ("img", "image")]
    assert any(name.startswith("requests/s: ") and " now" in name for name in charts)


@about("docs")
def test_the_page_of_rest_shows_and_tries_operations(seen: Any) -> None:
    assert seen["operations"] >= 40
    assert seen["title"] == "Penstock: REST"


@about("lost")
def test_a_lost_connection_is_said_and_mended(seen: Any) -> None:
    assert seen["paused"] == "Paused"


def test_nothing_is_complained_about_and_nothing_comes_from_elsewhere(everything: dict[str, Any]) -> None:
    complaints = [each for each in everything["console"] if "400 (Bad Request)" not in each]
    assert complaints == []
    assert everything["foreign"] == []
    assert kit.ODD not in str(everything["overview"])  # it is an input's name, shown with its model only
