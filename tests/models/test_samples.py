"""Inputs that are made up fit the signature, and what model.toml says of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.config import ModelSample
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import DataType
from penstock.models.checks.trying import run_example
from penstock.models.fills import RATE
from penstock.models.samples import RECORDED, SIZES, UNKNOWN, read_sample, samples
from support import lengths
from support.work import opened, signature_of, spec


def test_samples_have_the_declared_shape_and_datatype() -> None:
    signature = signature_of(
        [
            spec("fixed", (2, 3)),
            spec("open", ("N", "L", 5)),
            spec("text", ("N",), DataType.BYTES),
            spec("any", None, DataType.BF16),
            spec("scalar", (), DataType.BOOL),
        ],
        [],
    )
    shapes = []
    for sample in samples(signature, 7):
        shapes.append({name: array.shape for name, array in sample.items()})
        for name, array in sample.items():
            assert array.dtype == signature.inputs[name].datatype.dtype
        assert all(type(text) is str for text in sample["text"])
    assert shapes[0] == {"fixed": (2, 3), "open": (7, 4, 5), "text": (7,), "any": (7, 4), "scalar": ()}
    assert [shape["open"][1] for shape in shapes] == [*SIZES, *SIZES, *RECORDED]


def test_samples_without_an_open_axis_are_few() -> None:
    assert len(list(samples(signature_of([spec("x")], []), 3))) == 2
    with_integers = list(samples(signature_of([spec("x", datatype=DataType.INT8)], []), 20))
    assert [0 in each["x"] for each in with_integers] == [True, True, False]


def test_samples_are_the_same_for_the_same_seed_and_differ_by_row() -> None:
    signature = signature_of([spec("x", ("N", 4))], [])
    one, same, other = (next(samples(signature, 8, seed))["x"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one, axis=0)) == 8


def test_recordings_are_tried_last_with_a_rate_and_the_lengths_of_rows() -> None:
    signature = signature_of(
        [
            spec("audio", ("N", "L")),
            spec("rate", (), DataType.INT64),
            spec("lengths", ("N",), DataType.INT32),
        ],
        [],
    )
    *_, short, long = samples(signature, 3)
    for made, size in zip((short, long), RECORDED, strict=True):
        assert made["audio"].shape == (3, size)
        assert made["rate"] == RATE
        assert made["lengths"].tolist() == [size] * 3
    image = signature_of([spec("image", ("N", 3, "H", "W"))], [])
    assert max(made["image"].shape[2] for made in samples(image, 1)) == max(SIZES)


def test_a_model_of_sound_runs_at_its_rate(tmp_path: Path) -> None:
    backend = opened(lengths.at_a_rate(), tmp_path)
    tried = run_example(backend)
    assert tried.inputs["rate"] == RATE


# What model.toml says of requests

AUDIO = signature_of(
    [
        spec("audio", ("N", "?")),
        spec("rate", (), DataType.INT64),
        spec("text", ("N",), DataType.BYTES),
        spec("half", ("N", 2), DataType.BF16),
        spec("any", None),
        spec("state", ("N", 4)),
    ],
    [],
)


def test_samples_are_as_model_toml_says() -> None:
    said = ModelSample(
        shapes={"audio": (3, 576), "any": (5, 6, 7)}, values={"rate": 16000, "text": "hm", "half": 1}
    )
    sample = read_sample(said, AUDIO)
    made = list(samples(AUDIO, 7, sample=sample))
    assert len(made) == 2, "no axis is open, and whole numbers are known"
    for each in made:
        assert {name: array.shape for name, array in each.items()} == {
            "audio": (7, 576),
            "rate": (),
            "text": (7,),
            "half": (7, 2),
            "any": (5, 6, 7),
            "state": (7, 4),
        }
        assert (each["rate"], each["rate"].dtype) == (16000, np.int64)
        assert each["text"].tolist() == ["hm"] * 7
        assert each["half"].tolist() == [[0x3F80] * 2] * 7
    assert len(np.unique(made[0]["audio"])) > 576, "what is not said differs"
    alone = next(samples(AUDIO, None, sample=sample))
    assert (alone["audio"].shape, alone["text"].shape) == ((3, 576), (1,))


def test_where_nothing_is_said_nothing_is_known() -> None:
    assert read_sample(ModelSample(), AUDIO) == UNKNOWN


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"shapes": {"x": (1,)}},
            "sample.shapes names input x, which does not exist; the model has audio",
        ),
        ({"values": {"x": 1}}, "sample.values names input x, which does not exist; the model has audio"),
        ({"values": {"state": 1}}, "sample.values names input state, which is a state in sequence.state"),
        ({"shapes": {"audio": (576,)}}, "[576] does not fit input audio FP32[N,?]: expected a length"),
        ({"shapes": {"half": (1, 3)}}, "axis 1 of [1, 3] is 3, expected 2 as in input half BF16[N,2]"),
        ({"values": {"rate": 0.5}}, "sample.values: 0.5 is not a valid value for input rate INT64[]"),
        (
            {"values": {"rate": "16 kHz"}},
            "sample.values: '16 kHz' is not a valid value for input rate INT64",
        ),
        ({"values": {"rate": 2**63}}, f"sample.values: {2**63} is not a valid value for input rate INT64[]"),
        ({"values": {"text": 1}}, "sample.values: 1 is not a valid value for input text BYTES[N]"),
    ],
)
def test_what_does_not_fit_is_said(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelLoadError) as refused:
        read_sample(ModelSample(**said), AUDIO, state_inputs=["state"])
    assert words in str(refused.value)
    assert "state FP32" not in str(refused.value)


def test_sizes_of_an_output_stay_small() -> None:
    """A list of whole numbers is no length of a recording: 512 along five axes would fill the memory."""
    signature = signature_of([spec("theta", (2, 3, 4)), spec("size", (5,), DataType.INT64)], [spec("y")])
    assert max(int(made["size"].max()) for made in samples(signature, None)) < 16
