"""Golden rows beside a version: verified before it is ready, and a version that misses them is refused."""

from __future__ import annotations

import json
import shlex
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page import kit
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Array, DataType
from penstock.models.golden_rows import Runnable, first_row, verify
from penstock.row_files.differences import Differences, Tolerance
from penstock_client import Client
from support import zoo
from support.servers import running_server
from support.work import signature_of, spec

SIGNATURE = signature_of(
    [spec("x", ("N", 2)), spec("text", ("N", 1), DataType.BYTES)],
    [spec("y", ("N", 2)), spec("label", ("N",), DataType.INT64)],
)


def answer(outputs: Sequence[str], inputs: Mapping[str, Array], /) -> Sequence[Array]:
    """Doubles x; the label is 1 if the first number is positive."""
    x = inputs["x"]
    made = {"y": x * 2, "label": (x[:, 0] > 0).astype(np.int64)}
    return [made[name] for name in outputs]


def row(x: Sequence[Any], y: Sequence[Any], label: Any = 1, **more: Any) -> dict[str, Any]:
    return {"x": x, "text": "a", "y": y, "label": label, **more}


def write(folder: Path, rows: Sequence[dict[str, Any]], header: object = None) -> None:
    lines = ([{"golden": header}] if header is not None else []) + list(rows)
    (folder / "golden.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert verify(Runnable(answer, SIGNATURE), tmp_path) == ""


@pytest.mark.parametrize("max_rows", [1, 64])
def test_rows_that_agree(tmp_path: Path, max_rows: int) -> None:
    write(tmp_path, [row([1, 2.5], [2, 5.00001]), row([3, "NaN"], [6, "NaN"], "1")])
    said = verify(Runnable(answer, SIGNATURE, max_rows), tmp_path)
    assert said == "2 rows: no labels differ, largest 2e-06"


@pytest.mark.parametrize("max_rows", [1, 64])
def test_rows_that_differ(tmp_path: Path, max_rows: int) -> None:
    rows = [row([i + 1, 0], [2 * i + 2, 0]) for i in range(100)]
    rows[40]["y"] = [82, 0.015]
    rows[70]["label"] = 0
    write(tmp_path, rows)
    with pytest.raises(ModelLoadError) as refused:
        verify(Runnable(answer, SIGNATURE, max_rows), tmp_path)
    assert str(refused.value) == (
        "it misses its golden rows: 100 rows: 1 label differs, 1 beyond the tolerance of 0.0001, "
        "largest 0.015, worst row 41"
    )


def test_the_first_line_has_the_tolerance(tmp_path: Path) -> None:
    rows = [row([1, 0], [2, 0.015])]
    write(tmp_path, rows, {"tolerance": 0.02})
    assert verify(Runnable(answer, SIGNATURE), tmp_path) == "1 row: no labels differ, largest 0.015"
    write(tmp_path, rows, {"tolerance": {"y": 0.014}})
    with pytest.raises(ModelLoadError, match=r"beyond the tolerance of 0\.014"):
        verify(Runnable(answer, SIGNATURE), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no rows"),
        ('{"golden": {"tolerance": "much"}}\n', 'line 1: tolerance "much", expected a number of at least 0'),
        ('{"golden": {"tolerence": 5}}\n', 'line 1: "tolerence" in the header, expected only tolerance'),
        (
            '{"golden": {"tolerance": {"nope": 5}}}\n',
            'line 1: a tolerance for "nope", which is no output; the outputs are: y FP32[N,2]',
        ),
        ('{"x": ' + "[" * 5000 + "]" * 5000 + "}\n", "line 1, which names the columns: it is not JSON"),
        (
            '{"x": ' + "[" * 900 + "]" * 900 + ', "text": "a", "y": [2, 4]}\n',
            'line 1: input "x": its lists are nested too deeply; expected x FP32[N,2]',
        ),
        ('{"x": [1, 1e39], "text": "a", "y": [2, 4]}\n', "line 1: input x FP32[N,2]: it is not of this"),
        ('{"x": [1, 2], "text": "a"}\n', "no column for an output: y FP32[N,2], label INT64[N]"),
        ('{"x": [1, 2], "y": [2, 4]}\n', 'line 1: no value for "text" text BYTES[N,1]'),
        ('{"x": [1], "text": "a", "y": [2, 4]}\n', "line 1: input x FP32[N,2]: it has the shape [1, 1]"),
        ('{"x": [1, 2], "text": "a", "y": [2]}\n', "line 1: output y FP32[N,2]: it has the shape [1, 1]"),
        ('{"x": [1, 2], "text": "a", "y": [2, 4]}\nno\n', "line 2: it is not JSON"),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "golden.jsonl").write_text(text)
    with pytest.raises(ModelLoadError) as refused:
        verify(Runnable(answer, SIGNATURE), tmp_path)
    assert said in str(refused.value)


def test_a_model_with_a_state_is_no_list_of_rows(tmp_path: Path) -> None:
    write(tmp_path, [row([1, 2], [2, 4])])
    with pytest.raises(ModelLoadError, match="keeps a state"):
        verify(Runnable(answer, SIGNATURE, has_state=True), tmp_path)


def test_the_time_is_bounded(tmp_path: Path) -> None:
    def slow(outputs: Sequence[str], inputs: Mapping[str, Array], /) -> Sequence[Array]:
        time.sleep(0.05)
        return answer(outputs, inputs)

    write(tmp_path, [row([1, 2], [2, 4])] * 200)
    said = verify(Runnable(slow, SIGNATURE), tmp_path, most_seconds=0.2)
    assert said.endswith("(the first rows: more took over 0.2 s)")
    assert int(said.split()[0]) < 200


def test_numbers_that_are_none_differ_from_those_that_are() -> None:
    differences = Differences(Tolerance(0.5))
    wanted, got = (
        np.array([[np.nan], [np.inf], [1.0], [np.nan]]),
        np.array([[np.nan], [np.inf], [np.nan], [1.0]]),
    )
    differences.add(4, {"y": DataType.FP64}, {"y": wanted}, {"y": got})
    assert (differences.beyond, differences.worst_row, differences.wrong) == (2, 3, [3, 4])


def test_another_shape_is_a_difference() -> None:
    differences = Differences(Tolerance(0.5))
    differences.add(2, {"y": DataType.FP32}, {"y": np.zeros((2, 2))}, {"y": np.zeros((2, 1))})
    assert differences.beyond == 2


def test_a_server_serves_only_versions_that_meet_them(tmp_path: Path) -> None:
    zoo.repository(tmp_path, {"factor": {1: zoo.scale(2), 2: zoo.scale(3)}, "other": zoo.scale(1)})
    (tmp_path / "factor/model.toml").write_text('versions = "all"\n')
    for version in ("1", "2"):
        write(tmp_path / "factor" / version, [{"x": [1, 2, 3], "y": [2, 4, 6]}])
    with (
        running_server(tmp_path, env={"PENSTOCK_SERVER__ON_BROKEN": "serve"}) as running,
        Client(running.target) as client,
    ):
        models = {(each.name, each.version): each for each in client.models()}
    assert models["factor", "2"].state == "FAILED"
    assert "it misses its golden rows: 1 row: 1 beyond the tolerance" in models["factor", "2"].state_reason
    assert models["factor", "1"].metadata["penstock.golden"] == "1 row: largest 0"
    assert "penstock.golden" not in models["other", "1"].metadata


def test_the_first_whole_row_shows_how_a_model_is_called(tmp_path: Path) -> None:
    assert first_row(Runnable(answer, SIGNATURE), tmp_path) == {}
    rows = [row(["NaN", 1], [0, 2]), row([2, 3], [4, 6], text=""), row([4, 5], [8, 10], text="b")]
    for first, text, x in ((0, "b", [[4, 5]]), (2, "b", [[4, 5]])):
        write(tmp_path, rows[first:], {"tolerance": 0.1})
        shown = first_row(Runnable(answer, SIGNATURE), tmp_path)
        assert (shown["text"].tolist(), shown["x"].tolist()) == ([[text]], x)
    write(tmp_path, rows[1:2])  # none is whole
    assert first_row(Runnable(answer, SIGNATURE), tmp_path)["text"].tolist() == [[""]]
    (tmp_path / "golden.jsonl").write_text("{")
    assert first_row(Runnable(answer, SIGNATURE), tmp_path) == {}


def test_what_is_shown_of_a_model_is_a_golden_row(tmp_path: Path) -> None:
    """The command to try, the form of the page and the example of OpenAPI."""
    zoo.repository(tmp_path, {"factor": zoo.scale(2)})
    write(
        tmp_path / "factor/1", [{"x": ["NaN", 2, 3], "y": ["NaN", 4, 6]}, {"x": [1.5, 2, 3], "y": [3, 4, 6]}]
    )
    with running_server(tmp_path, "--http-port", "0", env={"PENSTOCK_SERVER__HTTP": "true"}) as running:
        line = next(each for each in running.stdout.splitlines() if "grpcurl" in each)
        with urllib.request.urlopen(f"{running.http}/openapi.json", timeout=20) as answered:
            schemas = json.load(answered)["components"]["schemas"]
        with kit.events(running.ops) as events:
            (described,) = kit.first(events, "models")["models"]
    assert json.loads(shlex.split(line)[3])["inputs"] == {"x": {"float_values": [1.5, 2, 3]}}
    assert {"x": [1.5, 2, 3]} in [each for one in schemas.values() for each in one.get("examples", ())]
    assert described["inputs"][0]["example"] == [1.5, 2, 3]
