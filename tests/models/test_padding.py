"""`[padding]` is held against the signature, and is refused where it changes an answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, PaddingConfig, RuntimeConfig
from penstock.core.errors import ConfigError, ModelLoadError
from penstock.core.tensors import DataType, Signature
from penstock.models.model import Batching, Model
from penstock.models.padding import check_padding, plan_padding
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.scheduling.packing.padding import PaddedRows, PaddingPlan
from support import lengths, zoo
from support.work import Tally, caller, opened, request, run_all, signature_of, spec

BATCHED = Batching(True, "rows agree")
IDS = spec("input_ids", ("N", "L"), DataType.INT64)
MASK = spec("attention_mask", ("N", "L"), DataType.INT64)
TYPES = spec("token_type_ids", ("N", "L"), DataType.INT64)
HIDDEN = spec("hidden", ("N", "L", 8))
POOLED = spec("pooled", ("N", 8))


def planned(signature: Signature, **given_settings: Any) -> PaddingPlan:
    plan = plan_padding(PaddingConfig(**given_settings), signature)
    assert plan is not None
    return plan


def checked(graph: onnx.ModelProto, folder: Path, tolerance: float = 0.0, **given_settings: Any) -> Batching:
    backend = opened(graph, folder)
    return check_padding(backend, planned(backend.signature, **given_settings), BATCHED, tolerance)


def refusal(signature: Signature, **given_settings: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        plan_padding(PaddingConfig(**given_settings), signature)
    return str(refused.value)


# The settings


def test_without_settings_nothing_is_padded() -> None:
    assert plan_padding(PaddingConfig(), signature_of([IDS], [HIDDEN])) is None


def test_outputs_are_cut_where_the_graph_calls_their_axes_so() -> None:
    attention = spec("attention", ("N", 2, "L", "L"))
    plan = planned(signature_of([IDS], [HIDDEN, POOLED, attention]), axes={"input_ids": 1})
    assert plan.outputs == {"hidden": (1,), "attention": (2, 3)}


def test_axes_without_a_name_are_cut_where_the_settings_say_so() -> None:
    signature = signature_of([spec("x", ("?", "?"))], [spec("y", ("?", "?"))])
    assert planned(signature, axes={"x": 1}).outputs == {}
    assert planned(signature, axes={"x": 1}, outputs={"y": 1}).outputs == {"y": (1,)}
    assert planned(signature, axes={"x": 1}, outputs={"y": (1,)}).outputs == {"y": (1,)}


def test_the_mask_is_padded_too_and_may_be_left_out() -> None:
    signature = signature_of([MASK, IDS], [POOLED])
    for axes in ({"input_ids": 1}, {"attention_mask": 1, "input_ids": 1}):
        plan = planned(signature, axes=axes, mask="attention_mask")
        assert list(plan.axes.items()) == [("input_ids", 1), ("attention_mask", 1)]
        assert plan.optional == {"attention_mask"}


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        (
            {"axes": {"ids": 1}},
            "padding.axes names input ids, which does not exist; the model has input_ids INT64",
        ),
        ({"axes": {"input_ids": 1}, "mask": "m"}, "padding.mask names input m, which does not exist"),
        ({"axes": {"input_ids": 1}, "lengths": "n"}, "padding.lengths names input n, which does not exist"),
        ({"axes": {"input_ids": 1}, "values": {"x": 1}}, "padding.values names input x"),
        ({"axes": {"input_ids": 1}, "outputs": {"y": 1}}, "padding.outputs names output y"),
        (
            {"axes": {"input_ids": 1}, "mask": "attention_mask", "outputs": {"pooled": 1}},
            "axis 1 of output pooled FP32[N,8] is not an",
        ),
        (
            {"buckets": (8,)},
            "padding.axes must name at least one input; inputs with an open axis: ",
        ),
        (
            {"axes": {"attention_mask": 1}, "mask": "attention_mask"},
            "at least one input beside the mask",
        ),
        ({"axes": {"input_ids": 2}}, "axis 2 of input input_ids INT64[N,L] cannot be padded"),
        (
            {"axes": {"input_ids": 1}},
            "input attention_mask INT64[N,L] has the same name L as a padded axis",
        ),
        (
            {"axes": {"input_ids": 1}},
            "name the input that is 1 for values and 0 for padding in padding.mask",
        ),
        ({"axes": {"input_ids": 1}, "mask": "attention_mask", "lengths": "attention_mask"}, "another shape"),
        (
            {"axes": {"input_ids": 1}, "mask": "attention_mask", "values": {"input_ids": 0.5}},
            "padding.values: 0.5 is not a valid value for input input_ids INT64[N,L]",
        ),
        (
            {"axes": {"input_ids": 1}, "mask": "attention_mask", "values": {"input_ids": "a"}},
            "'a' is not a valid value",
        ),
        (
            {"axes": {"input_ids": 1}, "mask": "attention_mask", "values": {"input_ids": 2**70}},
            "is not a valid value",
        ),
        (
            {"axes": {"input_ids": 1}, "mask": "attention_mask", "values": {"attention_mask": 1}},
            "padding is 0",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(given_settings: dict[str, Any], words: str) -> None:
    assert words in refusal(signature_of([IDS, MASK], [HIDDEN, POOLED]), **given_settings)


def test_a_fixed_axis_cannot_be_padded() -> None:
    assert "axis 1 of input x FP32[N,1] cannot be" in refusal(
        signature_of([spec("x")], [POOLED]), axes={"x": 1}
    )


@pytest.mark.parametrize("datatype", [DataType.BF16, DataType.BYTES])
def test_masks_are_plain_numbers(datatype: DataType) -> None:
    signature = signature_of([IDS, spec("m", ("N", "L"), datatype)], [POOLED])
    assert "expected a numeric input" in refusal(signature, axes={"input_ids": 1}, mask="m")


def test_padding_of_what_numpy_lacks_is_its_bits() -> None:
    signature = signature_of([spec("x", ("N", "L"), DataType.BF16)], [POOLED])
    assert planned(signature, axes={"x": 1}, values={"x": 1}).fills == {"x": 0x3F80}


# The comparison


def test_what_a_mask_hides_agrees(tmp_path: Path) -> None:
    found = checked(
        lengths.masked_mean(), tmp_path, axes={"input_ids": 1}, mask="attention_mask", buckets=(8, 32)
    )
    assert 0 < found.tolerance < 1e-4
    agree = f"padded and alone agree within {found.tolerance:.1e}"
    assert found.reason == f"rows agree; lengths are padded to 8, 32, and rows {agree}"


def test_what_belongs_to_a_place_agrees_bit_for_bit(tmp_path: Path) -> None:
    found = checked(lengths.per_position(), tmp_path, axes={"input_ids": 1}, buckets=(8,))
    assert found.reason.endswith("rows padded and alone agree bit for bit")


def test_what_takes_lengths_agrees(tmp_path: Path) -> None:
    assert checked(lengths.mean_by_lengths(), tmp_path, axes={"x": 1}, lengths="lengths").tolerance < 1e-5


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lengths.mean, "input_ids"),
        (partial(lengths.normalised, "ReduceMean"), "x"),
        (partial(lengths.normalised, "ReduceMax"), "x"),
    ],
)
def test_what_padding_changes_is_refused_with_the_difference(make: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError,
        match=r"\[padding\] changes the answers: output y FP32\[N,.\] of rows padded to 16 differs from the "
        r"same rows alone by \d\.\de[+-]\d\d, more than 1e-04; remove \[padding\] from model\.toml; or",
    ):
        checked(make(), tmp_path, axes={name: 1})


def test_the_tolerance_can_be_wider(tmp_path: Path) -> None:
    assert (
        checked(lengths.mean(), tmp_path, tolerance=1.0, axes={"input_ids": 1}, buckets=(1, 2, 4)).tolerance
        > 0.1
    )


def test_an_output_that_is_not_cut_back_is_refused(tmp_path: Path) -> None:
    unnamed = lengths.per_position(("N", "M", 4))
    with pytest.raises(
        ModelLoadError, match=r"\[1, 8, 4\] where padded to 8 .* \[1, 1, 4\] alone; set padding.outputs"
    ):
        checked(unnamed, tmp_path, axes={"input_ids": 1}, buckets=(8,))
    assert checked(unnamed, tmp_path, axes={"input_ids": 1}, buckets=(8,), outputs={"y": 1}).tolerance == 0.0


def test_buckets_that_are_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"padded to 20; a length in padding.buckets may be too large for the model"
    ):
        checked(lengths.short(10), tmp_path, axes={"input_ids": 1}, buckets=(10, 20))


# Loaded with its model.toml


def load(root: Path, graph: onnx.ModelProto, settings_text: str) -> Model:
    zoo.repository(root, {"m": graph})
    (root / "m" / "model.toml").write_text(settings_text)
    told: list[Model] = []
    config = Config(runtime=RuntimeConfig(intra_op_threads=1))
    ModelRegistry(config, OnnxBackend, lambda model: Tally()).load_all(scan(root), told.append)
    return told[0]


PADDED = '[padding]\naxes = {input_ids = 1}\nbuckets = [8, 16]\nmask = "attention_mask"\n'


def test_model_toml_makes_a_model_pad(tmp_path: Path) -> None:
    model = load(tmp_path, lengths.masked_mean(), PADDED)
    assert "lengths are padded to 8, 16" in model.batching.reason
    assert model.optional_inputs == {"attention_mask"}


@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.INT64])
def test_a_batch_that_is_tried_has_one_value_of_a_scalar(datatype: int, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["factor"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", "L"]), value("factor", datatype, [])],
        [value("y", TensorProto.FLOAT, ["N", "L"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = load(tmp_path, made, "[padding]\naxes = { x = 1 }\nbuckets = [4, 8]\n")
    assert "lengths are padded to 4, 8" in model.batching.reason


def test_padding_is_tried_on_what_requests_hold(tmp_path: Path) -> None:
    """Its values are not taken below 0, as others are."""
    padding, sample = "[padding]\naxes = { x = 1 }\nbuckets = [8]\n", "[sample]\nshapes = { x = [1, 3, 5] }\n"
    model = load(tmp_path / "said", lengths.weighed(), f"{padding}{sample}values = {{ weight = 4.0 }}\n")
    assert "lengths are padded to 8" in model.batching.reason
    with pytest.raises(ModelLoadError, match="alone: the model fails on every generated input: "):
        load(tmp_path / "unsaid", lengths.weighed(), padding)


def test_the_refusal_names_the_model(tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"^model m version 1: \[padding\] changes the answers: output y"
    ):
        load(tmp_path, lengths.mean(), "padding.axes = {input_ids = 1}")


def test_what_is_not_batched_cannot_be_padded(tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"has no effect, because requests run alone: switched off in model\.toml"
    ):
        load(tmp_path, lengths.per_position(), "padding.axes = {input_ids = 1}\nbatching.enabled = false")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("padding.buckets = [16, 8]", r"padding.buckets = \[16, 8\]: the lengths should ascend"),
        ("padding.buckets = [0]", "should be greater than or equal to 1"),
        ("padding.buckets = []", "at least 1 item"),
        ("padding.axes = {x = 0}", r"padding.axes = \{\"x\" = 0\}: x should be greater than or equal to 1"),
        ("padding.axis = {x = 1}", "did you mean padding.axes"),
        ('padding.axes = ["x"]', r"should be a table, such as \{name = value\}"),
        ("padding.buckets = 16", r"should be a list, such as \[a, b\]"),
    ],
)
def test_bad_settings_name_the_key(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, lengths.mean(), text)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=16), min_size=1, max_size=6))
def test_answers_are_those_of_rows_alone(masked: tuple[Model, Any], rows: list[list[int]]) -> None:
    model, session = masked
    arrays = [np.array([row], np.int64) for row in rows]
    assert model.padding is not None
    requests = [
        request({"input_ids": each}, shape_key=model.padding.key({"input_ids": each})) for each in arrays
    ]
    run_all(model.batcher, *requests)
    for array, sent in zip(arrays, requests, strict=True):
        alone = session.run(["y"], {"input_ids": array, "attention_mask": np.ones_like(array)})[0]
        np.testing.assert_allclose(caller(sent).output(), alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any]:
    graph = lengths.masked_mean()
    return load(tmp_path_factory.mktemp("masked"), graph, PADDED), zoo.session(graph)


def test_a_batch_that_fails_is_run_apart(tmp_path: Path) -> None:
    model = load(tmp_path, lengths.per_position(), "[padding]\naxes = {input_ids = 1}\nbuckets = [8]\n")
    assert model.padding is not None
    arrays = [np.array([row], np.int64) for row in ([1, 2, 3], [4, 99], [5])]
    requests = [
        request({"input_ids": each}, shape_key=model.padding.key({"input_ids": each})) for each in arrays
    ]
    run_all(model.batcher, *requests)
    assert "out of data bounds" in str(caller(requests[1]).error())
    assert [caller(requests[n]).output().shape for n in (0, 2)] == [(1, 3, 4), (1, 1, 4)]


def test_the_packing_is_what_the_plan_says(tmp_path: Path) -> None:
    model = load(
        tmp_path, lengths.per_position(), "[padding]\naxes = {input_ids = 1}\nvalues = {input_ids = 3}\n"
    )
    assert model.padding is not None
    made = PaddedRows(model.padding).assemble([request({"input_ids": np.array([[1, 2]])})])
    assert made["input_ids"].tolist() == [[1, 2] + [3] * 14]


def test_exact_batching_takes_no_padding_that_changes_the_last_digits(tmp_path: Path) -> None:
    backend = opened(lengths.masked_mean(), tmp_path)
    plan = planned(backend.signature, axes={"input_ids": 1}, mask="attention_mask", buckets=(8, 32))
    with pytest.raises(ModelLoadError, match=r"changes the last digits of answers \(within .*batching.exact"):
        check_padding(backend, plan, replace(BATCHED, exact=True), 0.0)
