"""`penstock predict` of values given on the command line."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Cli

LEAD = ("lead_source=paid_ads", "number_of_courses_viewed=2", "annual_income=79276")


def outputs(predict: Cli, *args: str | Path) -> Any:
    run = predict(*args, "--json")
    assert (run.code, run.err) == (0, "")
    return json.loads(run.out)["outputs"]


def refusal(predict: Cli, *args: str | Path) -> str:
    """The one line that a failed command prints."""
    run = predict(*args)
    assert run.code == 1
    assert run.out == ""
    assert run.err.startswith("Error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("Error: ").rstrip("\n")


def test_prints_a_table(predict: Cli) -> None:
    run = predict("lead_scoring", *LEAD)
    assert (run.code, run.err) == (0, "")
    header, rule, row, about = run.out.splitlines()
    assert re.split(r" {2,}", header.strip()) == [
        "lead_source",
        "number_of_courses_viewed",
        "annual_income",
        "label",
        "probabilities",
    ]
    assert set(rule) == {"─"}
    *inputs, label, probabilities = re.split(r" {2,}", row.strip())
    assert (inputs, label) == (["paid_ads", "2", "79276"], "0")
    assert json.loads(probabilities) == pytest.approx([0.6878, 0.3122], abs=1e-4)
    assert re.fullmatch(
        r"lead_scoring version 1 · queue \d+\.\d\d ms · compute \d+\.\d\d ms, in a batch of 1 row",
        about.strip(),
    )


def test_several_rows_are_rows_of_the_table(predict: Cli) -> None:
    run = predict("below_100", "x=[1, 22, 3]")
    cells = [line.split() for line in run.out.splitlines()]
    assert cells[0] == ["x", "y"]
    assert cells[2:5] == [["1", "1"], ["22", "22"], ["3", "3"]]
    assert cells[5][-3:] == ["of", "3", "rows"]


def test_a_long_table_is_cut(predict: Cli) -> None:
    run = predict("below_100", f"x={[7] * 60}")
    assert [line.split() for line in run.out.splitlines()].count(["7", "7"]) == 50
    assert "… and 10 more rows; --json prints all" in run.out


def test_vectors_are_short_in_the_table(predict: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 64), np.float32))
    row = predict("mlp", f"x=@{tmp_path / 'x.npy'}").out.splitlines()[2]
    assert row.strip().startswith("[0, 0, 0, 0, 0, 0, 0, 0, … 64 values]")


def test_text_cannot_write_on_the_terminal(predict: Cli) -> None:
    run = predict("text", "x=\x1b[31mred [bold]")
    assert "\x1b" not in run.out
    assert "\\u001b[31mred [bold]" in run.out


def test_prints_json(predict: Cli) -> None:
    run = predict("lead_scoring", *LEAD, "--json")
    assert (run.code, run.err, run.out.count("\n")) == (0, "", 1)
    said = json.loads(run.out)
    assert list(said) == ["model", "version", "outputs", "timing"]
    assert (said["model"], said["version"]) == ("lead_scoring", "1")
    assert said["outputs"]["label"] == [0]
    assert said["outputs"]["probabilities"] == [pytest.approx([0.6878, 0.3122], abs=1e-4)]
    assert said["timing"]["batch_rows"] == 1
    assert 0 < said["timing"]["compute_seconds"] < 10


def test_floats_have_the_digits_of_their_datatype(predict: Cli) -> None:
    assert (
        predict("one_row", "x=[0.05, 0.1, 1e10]", "--json")
        .out.split('"y": ')[1]
        .startswith("[[0.1, 0.2, 20000000000.0]]")
    )
    assert outputs(predict, "doubles", "x=0.1234567890123456") == {"y": [[0.1234567890123456]]}
    assert outputs(predict, "halves", "x=0.1") == {"y": [0.1]}
    assert outputs(predict, "brains", "x=0.1") == {"y": [pytest.approx(0.1, rel=0.01)]}


@pytest.mark.parametrize(
    ("model", "value", "y"),
    [
        ("flags", "true", [[True]]),
        ("flags", "No", [[False]]),
        ("flags", "0", [[False]]),
        ("flags", "[true, false]", [[True], [False]]),
        ("bytes8", "-128", [-128]),
        ("bytes8", " 3.0 ", [3]),
        ("bytes8", "[1, 2, 3]", [1, 2, 3]),
        ("doubles", "1e3", [[1000.0]]),
        ("doubles", "-inf", [["-Infinity"]]),
        ("doubles", '["NaN", Infinity, 1]', [["NaN"], ["Infinity"], [1.0]]),
        ("text", "a=b", [["a=b"]]),
        ("text", "", [[""]]),
        ("text", "[draft]", [["[draft]"]]),
        ("text", '["a", "b"]', [["a"], ["b"]]),
        ("text", "@@home", [["@home"]]),
        ("text", "grüße", [["grüße"]]),
        ("words", '["a", "b"]', [["a", "b"]]),
        ("triples", "[1, 2, 3]", [[2.0, 4.0, 6.0]]),
        ("triples", "[[1, 2, 3], [4, 5, 6]]", [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]),
        ("triples", "[16777217, 0, 0]", [[33554432.0, 0.0, 0.0]]),  # typed, not stored: it may be rounded
        ("open", "[1, 2]", [[2.0, 4.0]]),
        ("open", "3", [[6.0]]),
        ("any_rank", "[[[1]]]", [[[2.0]]]),
        ("any_rank", "4", 8.0),
        ("scalar", "4", 8.0),
        ("vector", "[1, 2, 3, 4]", [2.0, 4.0, 6.0, 8.0]),
        ("one_row", "[1, 2, 3]", [[2.0, 4.0, 6.0]]),
    ],
)
def test_values_are_read_by_the_signature(predict: Cli, model: str, value: str, y: object) -> None:
    assert outputs(predict, model, f"x={value}") == {"y": y}


def test_a_model_without_inputs(predict: Cli) -> None:
    assert outputs(predict, "constant") == {"y": [1.0, 2.0, 3.0]}
    assert predict("constant").out.splitlines()[2].strip() == "[1, 2, 3]"


def test_a_file_gives_an_array(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1, 2, 3], [4, 5, 6.1]], np.float64))  # numpy's own default, wider than FP32
    assert outputs(predict, "triples", f"x=@{path}") == {"y": [[2.0, 4.0, 6.0], [8.0, 10.0, 12.2]]}


def test_a_file_gives_json(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("\ufeff[1, 2,\n 3]", encoding="utf-8")
    assert outputs(predict, "triples", f"x=@{path}") == {"y": [[2.0, 4.0, 6.0]]}


@pytest.mark.parametrize(
    ("model", "value", "why"),
    [
        ("bytes8", "abc", 'it is not a whole number; got "abc", expected INT8[N]'),
        ("bytes8", "1.5", 'it is not a whole number; got "1.5"'),
        ("bytes8", "1_0", 'it is not a whole number; got "1_0"'),
        ("bytes8", "", 'it is empty; got ""'),
        ("bytes8", "128", "the value 128 does not fit INT8"),
        ("bytes8", "[1.5]", "the value 1.5 at position 0 does not fit INT8"),
        ("doubles", "1,5", 'it is not a number; got "1,5", expected FP64[N,1]'),
        ("doubles", "1e999", 'it is not a number; got "1e999"'),
        ("doubles", "", 'it is empty; a missing number is NaN; got ""'),
        ("doubles", '[1, null, "a"]', "the value 'a' at position 2 is not numeric"),
        (
            "bytes8",
            "[1, null]",
            "the value at position 1 is missing, and INT8 has no missing values: fill them",
        ),
        ("doubles", "[1", "it is not a JSON list"),
        ("halves", "1e6", "the value 1000000.0 does not fit FP16"),
        ("flags", "perhaps", 'it is neither true nor false; got "perhaps", expected BOOL[N,1]'),
        ("triples", "[1, 2]", ""),
        ("triples", "7", "it has 0 axes, expected 2"),
        ("triples", "@x.png", "a file is .npy or .json"),
        ("triples", "@nowhere.npy", "nowhere.npy: No such file or directory"),
    ],
)
def test_a_bad_value_is_named(predict: Cli, model: str, value: str, why: str) -> None:
    said = refusal(predict, model, f"x={value}")
    assert said.startswith('input "x": ')
    assert why in said


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_named(predict: Cli, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert refusal(predict, "triples", f"x=@{path}").startswith(f'input "x": {path}: ')


def test_an_array_too_large_for_the_model(predict: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1e300, 0, 0]]))
    said = refusal(predict, "triples", f"x=@{tmp_path / 'x.npy'}")
    assert said == 'input "x": a value is too large for FP32[N,3]'


def test_broken_json_is_named(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, ", encoding="utf-8")
    assert refusal(predict, "triples", f"x=@{path}").startswith(f'input "x": {path}: Expecting value')


def test_wrong_names_are_listed(predict: Cli) -> None:
    said = refusal(predict, "lead_scoring", "lead_source=x", "income=3")
    assert "unknown: 'income'" in said
    assert "missing: 'number_of_courses_viewed', 'annual_income'" in said
    assert "annual_income FP32[N,1]" in said


def test_some_outputs(predict: Cli) -> None:
    args = ("several", "x=[1, -2, 3]")
    assert outputs(predict, *args, "--outputs", "total, positive") == {
        "total": [2.0],
        "positive": [[True, False, True]],
    }
    assert "double" not in predict(*args, "--outputs", "total").out
    said = refusal(predict, *args, "--outputs", "total,sum")
    assert said == 'unknown output "sum"; outputs: double, total, positive'


def test_a_version(predict: Cli) -> None:
    assert outputs(predict, "triples", "x=[1, 2, 3]", "--version", "1") == {"y": [[1.0, 2.0, 3.0]]}
    assert "9" in refusal(predict, "triples", "x=[1, 2, 3]", "--version", "9")


def test_an_unknown_model_names_what_there_is(predict: Cli) -> None:
    assert "lead_scoring" in refusal(predict, "nothing", "x=1")


def test_what_the_model_cannot_do(predict: Cli) -> None:
    assert refusal(predict, "below_100", "x=100").startswith("the model failed on this request: ")


def test_a_timeout(predict: Cli) -> None:
    run = predict("slow", "x=1", "--timeout", "0.001")
    assert run.code == 1
    assert "Traceback" not in run.err


def test_no_server(cli: Cli) -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        run = cli("predict", "m", "x=1", "--target", target)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(f"Error: {target}: ")
    assert run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["x"], "expected INPUT=VALUE, got 'x'"),
        (["=3"], "INPUT=VALUE"),
        (["x=1", "x=2"], 'input "x" is given twice'),
        (["x=1", "--file", "rows.csv"], "either values or --file"),
        (["--json", "--file", "rows.csv"], "use --format jsonl"),
        (["x=1", "--output", "out.csv"], "--output needs --file"),
        (["x=1", "--format", "csv"], "--format needs --file"),
        (["x=1", "--fail-fast"], "--fail-fast needs --file"),
        (["--file", ""], "--output need a name"),
        (["--file", "rows.csv", "--output", ""], "--output need a name"),
        (["x=1", "--outputs", " ,"], "--outputs is empty"),
        (["x=1", "--timeout", "0"], "--timeout"),
        (["--file", "rows.csv", "--format", "xml"], "--format"),
    ],
)
def test_usage(cli: Cli, args: list[str], why: str) -> None:
    run = cli("predict", "m", *args)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("Usage: ")
    assert why in run.err


def test_null_is_a_missing_number(predict: Cli) -> None:
    """As in lists; it was "not a number"."""
    assert json.loads(predict("doubles", "x=null", "--json").out)["outputs"] == {"y": [["NaN"]]}
    assert predict("doubles", "x=[null]", "--json").out.count("NaN") == 1
    ran = predict("below_100", "x=null")
    assert ran.code == 1
    assert "its value is missing, and INT64 has no missing values: fill them in first" in ran.err
    assert json.loads(predict("text", "x=null", "--json").out)["outputs"] == {"y": [["null"]]}


@pytest.mark.parametrize("value", ["9007199254740993", "-9007199254740993", "[9007199254740993]"])
def test_a_whole_number_that_fp64_does_not_have_is_refused(predict: Cli, value: str) -> None:
    ran = predict("doubles", f"x={value}")
    assert ran.code == 1
    assert "FP64 does not have this whole number, only " in ran.err
    assert "9007199254740992 near it" in ran.err
    for exact in ("9007199254740992", "9007199254740994", "9007199254740993.0", "1e25"):
        assert predict("doubles", f"x={exact}").code == 0
