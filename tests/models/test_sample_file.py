"""Real requests as the sample: what is read of a file, what is refused, and that the check runs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.config import BatchingConfig, Config, ModelSample, RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array, DataType
from penstock.models.checks.batching import check_batching
from penstock.models.checks.fit import fit
from penstock.models.checks.trying import run_example, runs_on_generated_input
from penstock.models.sample_file import MOST_REQUESTS
from penstock.models.samples import UNKNOWN, Sample, manners, read_sample, samples
from support import zoo
from support.work import HandBackend, signature_of, spec

SIGNATURE = signature_of(
    [
        spec("x", ("N", "L")),
        spec("rate", (), DataType.INT64),
        spec("text", ("N",), DataType.BYTES),
        spec("half", ("N", 2), DataType.BF16),
        spec("state", ("N", 4)),
    ],
    [spec("y", ("N", "L"))],
)
LINE = '{"x": [0.5, 2], "rate": 16000, "text": "hm", "half": [1, 2]}\n'


def read(folder: Path, name: str, text: str | bytes, **changes: Any) -> Sample:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    settings = ModelSample(file=name, **changes)
    return read_sample(settings, SIGNATURE, ["state"], folder)


def check(sample: Sample, name: str = "requests.jsonl") -> None:
    assert sample.file == name
    (request,) = sample.requests
    assert {key: (array.shape, array.dtype) for key, array in request.items()} == {
        "x": ((1, 2), np.float32),
        "rate": ((), np.int64),
        "text": ((1,), object),
        "half": ((1, 2), np.uint16),
    }
    assert request["x"].tolist() == [[0.5, 2.0]]
    assert request["rate"] == 16000
    assert request["half"].tolist() == [[0x3F80, 0x4000]]
    assert sample.shapes == {"x": (1, 2), "rate": (), "text": (1,), "half": (1, 2)}


def test_json_lines(tmp_path: Path) -> None:
    check(read(tmp_path, "requests.jsonl", LINE))


def test_csv(tmp_path: Path) -> None:
    text = 'x.0,x.1,rate,text,half\n0.5,2,16000,hm,"[1, 2]"\n'
    check(read(tmp_path, "requests.csv", text), "requests.csv")


def test_npz(tmp_path: Path) -> None:
    arrays = {
        "x": np.array([[0.5, 2]]),
        "rate": np.array(16000),
        "text": np.array(["hm"]),
        "half": np.array([[1.0, 2.0]]),
    }
    np.savez(tmp_path / "made.npz", **arrays)
    check(read(tmp_path, "requests.npz", (tmp_path / "made.npz").read_bytes()), "requests.npz")


def test_what_sample_values_give_need_not_be_in_the_file(tmp_path: Path) -> None:
    text = '{"x": [1], "text": "a", "half": [1, 2]}'
    sample = read(tmp_path, "r.jsonl", text, values={"rate": 8000})
    (made,) = samples(SIGNATURE, 2, sample=sample)
    assert made["rate"] == 8000
    assert made["state"].shape == (2, 4), "a state is made up"


def test_a_large_file_is_read_in_part(tmp_path: Path) -> None:
    assert len(read(tmp_path, "r.jsonl", LINE * (MOST_REQUESTS + 5)).requests) == MOST_REQUESTS


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.txt", LINE, "its format is not known by its name; expected one of .csv, .jsonl, .ndjson, .npz"),
        ("r.jsonl", "", "it has no rows"),
        ("r.jsonl", LINE + "{", "line 2: it is not JSON"),
        ("r.jsonl", LINE + '{"x": [1]}', 'line 2: no value for input "rate" rate INT64[]'),
        (
            "r.jsonl",
            LINE.replace("16000", "1.5"),
            "line 1: input rate INT64[]: it is not of this datatype",
        ),
        (
            "r.jsonl",
            LINE.replace("16000", str(2**70)),
            "line 1: input rate INT64[]: it is not of this datatype",
        ),
        ("r.jsonl", LINE.replace("[0.5, 2]", "[[1], [1, 2]]"), "line 1: input"),
        (
            "r.jsonl",
            LINE.replace("[0.5, 2]", "[0.5, 1e39]"),
            "line 1: input x FP32[N,L]: it is not of this datatype, or too large",
        ),
        (
            "r.jsonl",
            LINE.replace("[0.5, 2]", '"abc"'),
            "line 1: input x FP32[N,L]: it is not of this datatype",
        ),
        (
            "r.jsonl",
            LINE.replace("[1, 2]", "[1, 2, 3]"),
            "line 1: input half BF16[N,2]: it has the shape [1, 3]",
        ),
        (
            "r.jsonl",
            LINE.replace('"hm"', "7"),
            "line 1: input text BYTES[N]: it is not of this datatype",
        ),
        (
            "r.csv",
            "x,rate,text,half\n1,a,b,c\n",
            'line 2: input "rate": it is not a whole number; expected rate',
        ),
        ("r.csv", "x,text\n1,b\n", 'no column for input "rate"'),
        ("r.npz", b"garbage", ""),
        ("r.jsonl", b"\xff\xfe\x00", ""),
    ],
)
def test_a_bad_file_is_told_by_line_and_field(
    name: str, text: str | bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError) as refused:
        read(tmp_path, name, text)
    assert str(refused.value).startswith(f"sample.file {name}: ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "x,rate,text,half\n1,98765,b,98765\n"),
        ("r.csv", "x,rate,text,half\n1,98765.25,b,1\n"),
        ("r.jsonl", LINE.replace("16000", '"98765"')),
        ("r.jsonl", LINE.replace("[0.5, 2]", '["98765"]')),
        ("r.jsonl", LINE.replace("[1, 2]", "[98765, 98765, 98765]")),
        ("r.jsonl", LINE.replace('"hm"', "98765")),
        ("r.jsonl", '{"x": 98765'),
    ],
)
def test_values_of_real_requests_are_not_quoted(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as refused:
        read(tmp_path, name, text)
    assert "98765" not in str(refused.value)


def test_values_in_a_failure_of_the_model_are_not_quoted() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise ModelFailed("index 98765 is out of bounds in node 'Gather_3'")

    sample = of_lengths(3, 3)
    backend = HandBackend(run, LENGTHS)
    verdict, _, _ = fit(backend, "auto", BatchingConfig(), sample)
    assert verdict.reason.startswith("the model fails on every request of requests.jsonl: index # is out")
    verdict, _, _ = fit(backend, "auto", BatchingConfig(), UNKNOWN)
    assert "98765" in verdict.reason, "what is made up is no secret"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"sample.file r.jsonl: No such file"):
        read_sample(ModelSample(file="r.jsonl"), SIGNATURE, ["state"], tmp_path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 3))}, "no array for input rate INT64[], text BYTES[N], half BF16[N,2]"),
        (
            {"x": np.zeros((2, 3)), "rate": 1, "text": np.array(["a"]), "half": np.zeros((2, 2))},
            "the arrays have different numbers of rows: x 2, text 1, half 2",
        ),
    ],
)
def test_arrays_that_do_not_fit(arrays: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ModelLoadError) as refused:
        read_sample(ModelSample(file="r.npz"), SIGNATURE, ["state"], tmp_path)
    assert words in str(refused.value)


# What is made of them

LENGTHS = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))])


def of_lengths(*lengths: int) -> Sample:
    requests = [{"x": np.full((1, length), place + 1, np.float32)} for place, length in enumerate(lengths)]
    return Sample({"x": (1, lengths[0])}, {}, {}, requests, "requests.jsonl")


def test_batches_are_made_of_requests_of_one_shape_the_most_frequent_first() -> None:
    sample = of_lengths(5, 3, 3)
    assert [len(way.requests) for way in manners(LENGTHS, sample)] == [2, 1]
    first, second = (each["x"] for each in samples(LENGTHS, 3, 0, sample))
    assert first.tolist() == [[2] * 3, [3] * 3, [2] * 3]
    assert second.tolist() == [[1] * 5] * 3
    (alone, _) = samples(LENGTHS, None, 0, sample)
    assert alone["x"].shape == (1, 3)


def test_requests_take_a_length_that_is_fixed() -> None:
    fixed = signature_of([spec("x", ("N", 4))], [spec("y", ("N", 4))])
    (made,) = samples(fixed, 2, 0, of_lengths(6, 3))
    assert made["x"].tolist() == [[1] * 4, [2] * 4]


def test_the_check_runs_on_the_requests_and_says_so() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].shape[1] != 7:
            raise ModelFailed("only 7")
        return [inputs["x"]]

    backend = HandBackend(run, LENGTHS)
    assert not check_batching(backend, True, False, 8).enabled
    found = check_batching(backend, True, False, 8, of_lengths(7, 7))
    assert found.enabled, found.reason
    assert runs_on_generated_input(backend, of_lengths(7))
    assert run_example(backend, of_lengths(7)).inputs["x"].tolist() == [[1] * 7]
    blind = check_batching(backend, True, False, 8, of_lengths(7)).reason
    assert blind.startswith("all rows of requests.jsonl gave the same outputs")
    failing = check_batching(backend, True, False, 8, of_lengths(6)).reason
    assert failing == "the model fails on every request of requests.jsonl of 2 rows: only #"


def test_the_model_may_fail_on_the_most_frequent_shape() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].shape[1] == 7:
            raise ModelFailed("not 7")
        return [inputs["x"]]

    assert check_batching(HandBackend(run, LENGTHS), True, False, 8, of_lengths(7, 7, 7, 6, 6)).enabled


def test_lengths_of_the_file_are_the_second_length() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [x - x.mean(axis=0) if x.shape[1] == 9 else x]

    backend = HandBackend(run, LENGTHS)
    assert check_batching(backend, True, False, 8, of_lengths(7, 7)).enabled
    assert not check_batching(backend, True, False, 8, of_lengths(7, 7, 7, 9, 9)).enabled


def test_a_server_reads_the_file_beside_model_toml(tmp_path: Path) -> None:
    from penstock.backends.onnx import OnnxBackend
    from penstock.models.registry import ModelRegistry
    from penstock.models.repository import scan
    from support.work import Tally

    root = zoo.repository(tmp_path, {"m": zoo.two_open_axes()})
    (name,) = list(OnnxBackend(root / "m/1/model.onnx", RuntimeConfig(), 1).signature.inputs)
    (root / "m/model.toml").write_text('sample.file = "requests.jsonl"')
    (root / "m/requests.jsonl").write_text("".join(f'{{"{name}": [{place}, 2, 3]}}\n' for place in range(5)))
    registry = ModelRegistry(Config(batching=BatchingConfig()), OnnxBackend, lambda model: Tally())
    registry.load_all(scan(root), lambda model: None)
    (model,) = registry.all()
    assert model.batching.enabled, model.batching.reason
    assert model.example[name].tolist() == [[0, 2, 3]]
    (root / "m/requests.jsonl").write_text('{"other": 1}')
    with pytest.raises(
        ModelLoadError, match=r"^model m version 1: sample.file requests.jsonl: line 1: no value"
    ):
        ModelRegistry(Config(), OnnxBackend, lambda model: Tally()).load_all(scan(root), lambda model: None)
