"""Inputs from files: the same that `penstock predict --file` reads, and arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.row_files.fields import Invalid
from penstock_bench.inputs import MOST_REQUESTS, from_file, pairs, ranges, shapes
from penstock_client import TensorInfo

INPUTS = [TensorInfo("x", "FP32", ("N", 2)), TensorInfo("word", "BYTES", ("N", 1))]
CSV = "x.0,x.1,word\n1,2,a\n3,4,ü\n5,6,c\n"


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def rows(path: Path, count: int = 1, inputs: list[TensorInfo] = INPUTS) -> list[dict[str, Any]]:
    return [
        {name: tensor.array().tolist() for name, tensor in payload.tensors.items()}
        for payload in from_file(path, inputs, count)
    ]


def test_csv(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.csv", CSV)) == [
        {"x": [[1, 2]], "word": [["a"]]},
        {"x": [[3, 4]], "word": [["ü"]]},
        {"x": [[5, 6]], "word": [["c"]]},
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"x": [i, 0.5], "word": "w"}) + "\n" for i in range(2))
    assert rows(write(tmp_path / "a.jsonl", lines)) == [{"x": [[i, 0.5]], "word": [["w"]]} for i in range(2)]


def test_several_rows_a_request(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.csv", CSV), 2) == [{"x": [[1, 2], [3, 4]], "word": [["a"], ["ü"]]}]


def test_arrays_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(6.0).reshape(3, 2), word=np.array([["a"], ["b"], ["c"]]))
    assert rows(path, 3) == [{"x": [[0, 1], [2, 3], [4, 5]], "word": [["a"], ["b"], ["c"]]}]


def test_one_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(4.0).reshape(2, 2))
    assert rows(path, 1, INPUTS[:1]) == [{"x": [[0, 1]]}, {"x": [[2, 3]]}]
    with pytest.raises(Invalid, match=r"has 2 inputs: use a \.npz"):
        rows(path)


def test_a_long_file_is_read_as_far_as_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x.0,x.1\n" + "1,2\n" * (MOST_REQUESTS * 2 + 1) + "bad,2\n")
    assert len(rows(path, 2, INPUTS[:1])) == MOST_REQUESTS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "x.0,x.1,word\n1,2,a\n1,z,a\n", 'a.csv: line 3: input "x": it is not a number'),
        ("a.csv", "x.0,x.1,word\n1,2\n", "line 2: it has 2 cells"),
        ("a.csv", "x.0,word\n", "no column"),
        ("a.csv", "x.0,x.1,word\n", "it has fewer than 1 rows"),
        ("a.jsonl", '{"x": [1, 2]}\n', "line 1: no value for input"),
        ("a.jsonl", '{"x": [1, 2, 3], "word": "a"}\n{"x":\n', "line 2: it is not JSON"),
        ("a.npz", "no archive", "a.npz"),
        ("missing.csv", None, "No such file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        write(path, text)
    with pytest.raises(Invalid, match=said.replace("(", r"\(")):
        rows(path)


def test_arrays_of_different_lengths(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 2)), word=np.array([["a"]]))
    with pytest.raises(Invalid, match="different numbers of rows"):
        rows(path)


def test_an_array_of_an_unknown_input(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, z=np.zeros((3, 2)))
    with pytest.raises(Invalid, match="the inputs are z; expected: x"):
        rows(path)


def test_what_flags_say() -> None:
    assert pairs("--choices", ["a:x,y", "b:c:1"]) == {"a": ["x", "y"], "b:c": ["1"]}
    assert shapes(["x:1,64"]) == {"x": (1, 64)}
    assert ranges(["x:-1,2.5"]) == {"x": (-1, 2.5)}


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (shapes, "x"),
        (shapes, "x:"),
        (shapes, ":1"),
        (shapes, "x:1,0"),
        (shapes, "x:1,-1"),
        (shapes, "x:a"),
        (ranges, "x:1"),
        (ranges, "x:2,1"),
        (ranges, "x:nan,1"),
        (ranges, "x:0,inf"),
        (ranges, "x:a,b"),
    ],
)
def test_what_flags_cannot_say(read: Any, text: str) -> None:
    with pytest.raises(Invalid, match=r"--(shape|range)"):
        read([text])


def test_an_input_twice() -> None:
    with pytest.raises(Invalid, match="twice"):
        shapes(["x:1", "x:2"])
