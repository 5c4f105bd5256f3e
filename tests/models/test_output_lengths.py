"""Outputs of another length than their inputs are cut by a rule found at load, or by the model's lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig
from penstock.core.errors import InvalidRequest, ModelLoadError
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.models.output_lengths import find_output_lengths
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.scheduling.packing.padding import LengthRule, PaddingPlan
from support import framing, lengths, zoo
from support.work import HandBackend, MadeRequest, Tally, caller, request, run_all, signature_of, spec


def load(root: Path, graph: onnx.ModelProto, settings_text: str) -> Model:
    zoo.repository(root, {"m": graph})
    (root / "m" / "model.toml").write_text(f"[padding]\n{settings_text}\n")
    told: list[Model] = []
    config = Config(runtime=RuntimeConfig(intra_op_threads=1))
    ModelRegistry(config, OnnxBackend, lambda model: Tally()).load_all(scan(root), told.append)
    return told[0]


def asked(model: Model, outputs: tuple[str, ...] = ("y",), **inputs: Array) -> MadeRequest:
    assert model.padding is not None
    return request(inputs, outputs=outputs, shape_key=model.padding.key(inputs))


def sound(length: int, rows: int = 1) -> Array:
    return np.random.default_rng(length).standard_normal((rows, length)).astype(np.float32)


FRAMED = "axes = { x = 1 }\nbuckets = [64, 200, 400]\nshortest = 40"


def assert_as_alone(model: Model, graph: onnx.ModelProto, arrays: list[dict[str, Array]]) -> list[int]:
    """Runs requests together, and compares the answers with those of a session; gives the rows of batches."""
    tally = Tally()
    model.observe(tally)
    requests = [asked(model, **each) for each in arrays]
    run_all(model.batcher, *requests)
    session = zoo.session(graph)
    for each, sent in zip(arrays, requests, strict=True):
        alone = session.run(["y"], each)[0]
        found = caller(sent).output()
        assert found.shape == alone.shape
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)
    return tally.batches


# A rule


def test_frames_of_a_sound(tmp_path: Path) -> None:
    graph = framing.frames()
    model = load(tmp_path, graph, FRAMED)
    assert model.padding is not None
    assert model.padding.rules == {"y": {2: LengthRule(1, -24, 16)}}
    assert (
        "; axis 2 of output y has length (n - 24) // 16 where the request has n, and" in model.batching.reason
    )
    arrays = [{"x": sound(length)} for length in (40, 41, 55, 56, 63, 64, 199, 200, 201, 399)]
    batches = assert_as_alone(model, graph, arrays)
    assert sum(batches) == 10
    assert max(batches) >= 3


def test_lengths_beyond_the_buckets_are_those_of_the_model(tmp_path: Path) -> None:
    graph = framing.frames()
    assert assert_as_alone(load(tmp_path, graph, FRAMED), graph, [{"x": sound(5000)}]) == [1]


def test_an_image_of_some_width(tmp_path: Path) -> None:
    graph = framing.narrowed()
    model = load(tmp_path, graph, "axes = { x = 3 }\nbuckets = [32, 64, 128]\nshortest = 8")
    assert model.padding is not None
    assert str(model.padding.rules["y"][2]) == "n // 8"
    assert_as_alone(
        model, graph, [{"x": sound(8 * width).reshape(1, 1, 8, width)} for width in (8, 15, 16, 17, 30, 90)]
    )


def test_a_sound_from_frames(tmp_path: Path) -> None:
    """A vocoder's answer is longer than its input; its end depends on what follows, so that it is refused."""
    plan = PaddingPlan({}, {"x": 2}, {}, {}, (8, 32))
    with_rule = find_output_lengths(zoo_backend(framing.doubled(), tmp_path), plan)
    assert str(with_rule.rules["y"][2]) == "2 * n + 2"


def zoo_backend(graph: onnx.ModelProto, folder: Path) -> OnnxBackend:
    return OnnxBackend(zoo.write(graph, folder / "model.onnx"), RuntimeConfig(intra_op_threads=1), 1)


@settings(max_examples=25, deadline=None)
@given(
    divisor=st.integers(1, 400),
    offset=st.integers(-500, 500),
    shortest=st.integers(1, 600),
    buckets=st.lists(st.integers(601, 20_000), min_size=1, max_size=3, unique=True),
)
def test_any_rule_is_found(divisor: int, offset: int, shortest: int, buckets: list[int]) -> None:
    truth = LengthRule(1, offset, divisor)
    count = 0

    def run(outputs: Any, inputs: Any) -> Any:
        nonlocal count
        count += 1
        return [np.zeros((1, truth.of(inputs["x"].shape[1])), np.float32)]

    signature = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "M"))])
    plan = PaddingPlan({}, {"x": 1}, {}, {}, tuple(sorted(buckets)), shortest=shortest)
    found = find_output_lengths(HandBackend(run, signature), plan)
    for length in range(shortest, max(buckets) + 1, 7):
        rules = found.rules.get("y", {})
        expected = rules[1].of(length) if rules else length if found.outputs else truth.of(max(buckets))
        assert expected == truth.of(length)
    assert count <= 40


def test_an_axis_without_a_name_is_found_to_be_as_long(tmp_path: Path) -> None:
    graph = lengths.per_position(("N", "M", 4))
    model = load(tmp_path, graph, "axes = { input_ids = 1 }\nbuckets = [8]")
    assert model.padding is not None
    assert (model.padding.outputs, model.padding.rules) == ({"y": (1,)}, {})


def test_an_axis_that_does_not_follow_is_left(tmp_path: Path) -> None:
    graph = lengths.masked_mean()
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "D"
    model = load(tmp_path, graph, 'axes = { input_ids = 1 }\nbuckets = [8]\nmask = "attention_mask"')
    assert model.padding is not None
    assert (model.padding.outputs, model.padding.rules) == ({}, {})


@pytest.mark.parametrize(
    ("graph", "settings_text", "words"),
    [
        (framing.blurred(), "axes = { x = 2 }\nbuckets = [8, 32]", "changes the answers: output y"),
        (
            framing.one_and_a_half(),
            "axes = { x = 1 }\nbuckets = [8, 64]",
            "no rule explains the length of axis 1",
        ),
        (
            framing.frames(),
            "axes = { x = 1 }\nbuckets = [64, 200]",
            "fails on rows of fewer than 40 elements; set padding.shortest = 40 to reject such requests",
        ),
        (
            framing.frames(),
            "axes = { x = 1 }\nbuckets = [32]\nshortest = 40",
            "32 is below padding.shortest = 40",
        ),
    ],
)
def test_what_is_wrong_is_refused(
    graph: onnx.ModelProto, settings_text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=words):
        load(tmp_path, graph, settings_text)


def test_a_rule_that_is_wrong_is_refused(tmp_path: Path) -> None:
    """Padded answers are compared with those of the rows alone, whatever the rule."""
    model = load(tmp_path, framing.frames(), FRAMED)
    assert model.padding is not None
    with pytest.raises(InvalidRequest, match="has length 39 along axis 1; the model takes no less than 40"):
        model.padding.key({"x": sound(39)})


# The model's own lengths

OWN = f'{FRAMED}\nlengths = "lens"\noutput_lengths = {{ y = "y_lens" }}'


def test_the_lengths_that_the_model_gives(tmp_path: Path) -> None:
    graph = framing.frames_with_lengths()
    model = load(tmp_path, graph, OWN)
    assert "; output y is cut to y_lens, and" in model.batching.reason
    session, tally = zoo.session(graph), Tally()
    model.observe(tally)
    sizes = (40, 57, 64, 100, 150, 200, 150)
    requests = [
        asked(model, ("y", "y_lens") if n % 2 else ("y",), x=sound(size)) for n, size in enumerate(sizes)
    ]
    run_all(model.batcher, *requests)
    for size, sent in zip(sizes, requests, strict=True):
        y, y_lens = session.run(["y", "y_lens"], {"x": sound(size), "lens": np.array([size])})
        np.testing.assert_allclose(caller(sent).output(), y, rtol=1e-4, atol=1e-4)
        if "y_lens" in sent.outputs:
            assert caller(sent).output("y_lens").tolist() == y_lens.tolist()
    assert max(tally.batches) >= 2


def test_rows_of_other_lengths_in_one_request(tmp_path: Path) -> None:
    model = load(tmp_path, framing.frames_with_lengths(), OWN)
    sent = asked(model, ("y", "y_lens"), x=sound(100, 2), lens=np.array([56, 90]))
    run_all(model.batcher, sent)
    assert caller(sent).output("y_lens").tolist() == [2, 4]
    assert caller(sent).output().shape == (2, 3, 4)  # the longest of its rows


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ('z = "y_lens"', "padding.output_lengths names output z, which does not exist"),
        ('y = "z"', "padding.output_lengths names output z, which does not exist"),
        ('y = "y"', r"output y FP32\[N,3,T\] cannot hold lengths: expected whole numbers \[rows\]"),
    ],
)
def test_lengths_that_are_no_lengths_are_refused(own: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=words):
        load(
            tmp_path,
            framing.frames_with_lengths(),
            f'{FRAMED}\nlengths = "lens"\noutput_lengths = {{ {own} }}',
        )


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (
            framing.frames_that_are_counted(),
            "where padded to 64 and cut back, .* alone; y_lens counts the padding; na",
        ),
        (
            framing.frames_with_lengths(),
            "y_lens is 0 for every generated row, so that output y is empty; name the",
        ),
    ],
)
def test_lengths_that_say_nothing_are_refused(graph: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    """Without an input for the lengths of rows, the padding is taken for sound, or nothing is seen."""
    with pytest.raises(ModelLoadError, match=words):
        load(tmp_path, graph, f'{FRAMED}\noutput_lengths = {{ y = "y_lens" }}')
