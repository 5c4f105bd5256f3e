"""`penstock predict` of models that keep a state: step by step, and a file of steps."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.cli.predict.streaming import _until_last
from penstock.row_files.readers import Row
from penstock_client import Client, FailedPrecondition
from support import zoo
from support.servers import RunningServer, running_server

if TYPE_CHECKING:
    from conftest import Cli

KEPT = '[sequence]\nstate = { sum = "sumN" }\n'


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = {name: zoo.running_sum() for name in ("sum", "narrow", "one")} | {"plain": zoo.scale(2)}
    path = zoo.repository(tmp_path_factory.mktemp("kept"), made)
    (path / "sum" / "model.toml").write_text(KEPT)
    (path / "narrow" / "model.toml").write_text(f"{KEPT}[batching]\nqueue_rows = 16\n")
    (path / "one" / "model.toml").write_text(f"{KEPT}[batching]\nqueue_rows = 1\n")
    with running_server(path) as running:
        yield running


@pytest.fixture
def predict(cli: Cli, keeping: RunningServer) -> Cli:
    return lambda *args: cli("predict", *args, "--target", keeping.target)


@pytest.fixture
def step(predict: Cli) -> Callable[..., Any]:
    def one(value: int, *flags: str) -> int:
        ran = predict("sum", f"x={value}", "--json", *flags)
        assert (ran.code, ran.err) == (0, "")
        return int(json.loads(ran.out)["outputs"]["y"][0][0])

    return one


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def through(predict: Cli, tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    def run(model: str, values: list[Any], *flags: str, code: int = 0) -> list[dict[str, str]]:
        path = tmp_path / "steps.csv"
        path.write_text("x\n" + "".join(f"{each}\n" for each in values))
        ran = predict(model, "--file", path, *flags)
        assert ran.code == code, ran.err
        return rows_of(ran.out)

    return run


def test_step_by_step(step: Callable[..., Any], predict: Cli) -> None:
    assert step(1, "--sequence", "till", "--start") == 1
    assert step(2, "--sequence", "till") == 3
    assert step(5, "--sequence", "till", "--start") == 5
    assert step(1, "--sequence", "till", "--end") == 6
    ran = predict("sum", "x=1", "--sequence", "till")
    assert (ran.code, ran.out) == (1, "")
    assert "sequence till has no state" in ran.err


def test_a_step_names_its_sequence(predict: Cli) -> None:
    ran = predict("sum", "x=1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "Error: sum version 1 has a state: name the sequence with --sequence ID, add --start to its first "
        "step; or send all steps with --file\n"
    )


def test_a_model_without_state_has_no_sequences(predict: Cli) -> None:
    ran = predict("plain", "x=[1,2,3]", "--sequence", "till", "--start")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: plain version 1 has no state, so --sequence cannot be used\n"


def test_the_state_is_not_given(predict: Cli) -> None:
    ran = predict("sum", "x=1", "sum=0", "--sequence", "till", "--start")
    assert (ran.code, ran.out) == (1, "")
    assert "unknown: 'sum'" in ran.err
    assert "the server keeps sum; requests must not send it or ask for it" in ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--start"], "--start needs --sequence"),
        (["--end"], "--end needs --sequence"),
        (["--sequence", ""], "--sequence needs an id that is not empty"),
    ],
)
def test_flags_that_do_not_go(predict: Cli, flags: list[str], said: str) -> None:
    for asked in (["x=1"], ["--file", "-"]):
        ran = predict("sum", *asked, *flags)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err


def test_a_file_is_a_sequence_of_its_own(through: Callable[..., Any]) -> None:
    for _ in range(2):
        assert [row["y"] for row in through("sum", [1] * 30)] == [str(each) for each in range(1, 31)]


def test_the_lines_are_steps_of_the_sequence_named(
    through: Callable[..., Any], step: Callable[..., Any], keeping: RunningServer
) -> None:
    step(100, "--sequence", "file", "--start")
    assert [row["y"] for row in through("sum", [1, 2], "--sequence", "file")] == ["101", "103"]
    assert [row["y"] for row in through("sum", [4, 8], "--sequence", "file", "--end")] == ["107", "115"]
    with Client(keeping.target) as client, pytest.raises(FailedPrecondition):
        client.predict("sum", {"x": 1}, sequence="file")
    rows = through("sum", [1, 2], "--sequence", "file", code=1)
    assert ["has no state" in row["error"] for row in rows] == [True, True]


def test_start_is_for_the_first_line_that_can_be_sent(
    through: Callable[..., Any], step: Callable[..., Any]
) -> None:
    step(100, "--sequence", "again", "--start")
    rows = through("sum", ["no number", 1, 2, 4], "--sequence", "again", "--start", code=1)
    assert [row["y"] for row in rows] == ["", "1", "3", "7"]


def test_one_line_is_the_first_and_the_last(through: Callable[..., Any], predict: Cli) -> None:
    assert [row["y"] for row in through("sum", [7], "--sequence", "single", "--start", "--end")] == ["7"]
    assert through("sum", [], "--sequence", "single", "--start", "--end") == []
    assert predict("sum", "x=1", "--sequence", "single").code == 1


def test_a_file_does_not_fill_the_queue_with_its_own_steps(through: Callable[..., Any]) -> None:
    assert [row["y"] for row in through("narrow", [1] * 300)] == [str(each) for each in range(1, 301)]


def test_a_step_that_was_refused_is_not_sent_again_behind_others(through: Callable[..., Any]) -> None:
    rows = through("one", [1] * 50, code=1)
    refused = [row["error"] for row in rows if row["error"]]
    assert refused
    assert not any("set the sequence's id" in each for each in refused)
    assert [int(row["y"]) for row in rows if row["y"]] == list(range(1, 51 - len(refused)))


def test_a_sequence_that_a_file_starts_ends_with_it(through: Callable[..., Any], predict: Cli) -> None:
    assert [row["y"] for row in through("sum", [1, 2], "--sequence", "own", "--start")] == ["1", "3"]
    assert predict("sum", "x=1", "--sequence", "own").code == 1


def test_the_last_row_is_known_as_such() -> None:
    rows = [Row(line, (), ()) for line in (2, 3, 4)]
    assert [is_last for _, is_last in _until_last(rows)] == [False, False, True]
    assert [row for row, _ in _until_last(rows)] == rows
    assert list(_until_last([])) == []


def test_serve_and_models_say_the_same(cli: Cli, keeping: RunningServer) -> None:
    said = "state      sum from sumN, dropped 60 s after the last step\n"
    assert said in keeping.stdout
    assert said in cli("models", keeping.target).out
