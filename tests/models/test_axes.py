"""The batch axis is found wherever it is: by what model.toml, the graph or generated runs say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Array, Signature
from penstock.models.checks.axes import RowAxes, axes_by_name, find_row_axes
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.models.samples import Sample
from support import turned, zoo
from support.work import HandBackend, Tally, caller, request, run_all, signature_of, spec

CONFIG = Config(runtime=RuntimeConfig(intra_op_threads=1))


def signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Signature:
    return signature_of(
        [spec(name, shape) for name, shape in inputs.items()],
        [spec(name, shape) for name, shape in outputs.items()],
    )


def moved(inputs: Mapping[str, Any], outputs: Mapping[str, Any], **configured: int) -> Mapping[str, int]:
    return axes_by_name(signature(inputs, outputs), configured).moved


def load(folder: Path, model: onnx.ModelProto, settings: str = "") -> Model:
    root = zoo.repository(folder / "models", {"m": model})
    (root / "m" / "model.toml").write_text(settings)
    told: list[Model] = []
    ModelRegistry(CONFIG, OnnxBackend, lambda _: Tally()).load_all(scan(root), told.append)
    return told[0]


# What names say


@pytest.mark.parametrize(
    ("inputs", "outputs", "axes"),
    [
        ({"x": ("N", 3)}, {"y": ("N", 3)}, {}),
        ({"x": ("batch", 20, 8)}, {"z": (20, "batch", 4)}, {"z": 1}),
        ({"x": ("N", 8)}, {"z": (4, "N")}, {"z": 1}),
        ({"x": ("N", "T")}, {"z": ("T", "N", 4)}, {"z": 1}),
        ({"x": ("seq", "batch", 8)}, {"y": ("seq", "batch", 8)}, {"x": 1, "y": 1}),
        ({"x": ("seq", "batch", 8), "lengths": ("batch",)}, {"y": ("batch", 2)}, {"x": 1}),
        ({"x": ("seq", "batch_size", 8), "h": (2, "batch_size", 4)}, {}, {"x": 1, "h": 1}),
        ({"x": ("batch", "seq", 8), "h": (2, "batch", 4)}, {"hn": (2, "batch", 4)}, {"h": 1, "hn": 1}),
        ({"x": ("batch", 3), "rate": ()}, {"z": (2, "batch")}, {"z": 1}),
    ],
)
def test_the_rows_are_where_their_name_is(inputs: Any, outputs: Any, axes: Any) -> None:
    assert moved(inputs, outputs) == axes


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"x": ("unk__1", 3)}, {"y": (4, "unk__2")}),  # each occurs once: no names
        ({"x": ("T", "batch", 3)}, {"y": ("Y", 3)}),  # so does `batch`
        ({"x": ("N", 3)}, {"y": ("N", "N")}),  # where, is not clear
        ({"x": (1, "T", 3), "mask": (1, "T")}, {"y": (1, "T", 3)}),  # a name, but not of rows
        ({"x": ("?", "?", 3)}, {"y": ("?", "?", 3)}),
        ({"x": ("A", 3), "z": ("B", 3)}, {"y": (3, "A"), "w": (3, "B")}),  # of two names, none is the rows'
    ],
)
def test_what_names_do_not_say_leaves_the_first_axis(inputs: Any, outputs: Any) -> None:
    assert moved(inputs, outputs) == {}


def test_settings_come_before_names() -> None:
    tensors = {"x": ("batch", "T", 3)}, {"y": ("T", "batch", 3), "z": (3, "T")}
    assert moved(*tensors) == {"y": 1}
    assert moved(*tensors, x=1) == {"x": 1, "z": 1}
    assert moved(*tensors, y=0, z=1) == {"z": 1}


def test_the_graph_comes_before_names_and_settings_before_the_graph() -> None:
    whole = signature({"x": ("?", 3)}, {"y": ("?", "?"), "z": ("?", "?")})
    assert axes_by_name(whole, {"z": 0}, {"y": 1, "z": 1}).moved == {"y": 1}


def test_an_axis_of_rows_is_open_whatever_the_graph_declares() -> None:
    found = axes_by_name(signature({"x": ("N", 3)}, {"y": ("N", 3), "label": (1, 2)}), {"label": 0})
    assert found.signature.outputs["label"].shape == ("N", 2)


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"logits": 1}, "batching.axes names logits, which does not exist; the model has x FP32[N,3], rate "),
        ({"y": 3}, r"batching.axes: output y FP32\[N,3\] has no axis 3; expected 0 to 1"),
        (
            {"x": 1},
            r"axis 1 of input x FP32\[N,3\] has the fixed length 3; rows need an open axis; open axes: 0",
        ),
        ({"rate": 0}, r"batching.axes: input rate FP32\[\] is a scalar, so it has no axis 0 for rows"),
        ({"any": 0}, r"output any FP32\[...\] declares no shape"),
    ],
)
def test_settings_that_do_not_fit_say_what_came_and_what_there_is(configured: Any, message: str) -> None:
    whole = signature({"x": ("N", 3), "rate": ()}, {"y": ("N", 3), "any": None})
    with pytest.raises(ModelLoadError, match=message.replace("FP32[N,3]", r"FP32\[N,3\]")):
        axes_by_name(whole, configured)


# What runs say


def by_runs(run: Any, whole: Signature, **how: Any) -> RowAxes:
    return find_row_axes(HandBackend(run, whole), {}, **how)


def test_runs_find_the_axis_that_grows_with_the_rows() -> None:
    whole = signature({"x": ("?", 3)}, {"y": (3, "?"), "z": ("?", "?"), "w": ("?", 4)})

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows = len(inputs["x"])
        return [np.zeros((3, rows)), np.zeros((2, rows)), np.zeros((rows, 4))]

    assert by_runs(run, whole).moved == {"y": 1, "z": 1}
    assert by_runs(run, whole, may_run=False).moved == {}


def test_a_declared_length_that_runs_contradict_is_open() -> None:
    whole = signature({"x": ("N", 3)}, {"label": (1,), "y": ("N", 3)})
    found = by_runs(lambda _, inputs: [np.zeros(len(inputs["x"])), inputs["x"]], whole)
    assert found.signature.outputs["label"].shape == ("N",)
    assert not found.moved


@pytest.mark.parametrize(
    "shape_of",
    [lambda rows: (1, 3), lambda rows: (rows, rows), lambda rows: (2 * rows, 3), lambda rows: ()],
)
def test_what_runs_do_not_show_stays_as_declared(shape_of: Any) -> None:
    whole = signature({"x": ("N", 3)}, {"y": (1, "M")})
    found = by_runs(lambda _, inputs: [np.zeros(shape_of(len(inputs["x"])))], whole)
    assert found.signature == whole


def test_an_open_first_axis_that_names_settle_costs_no_run() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise AssertionError("it was run")

    for shapes in ({"y": ("N", "T")}, {"y": ("?", 3)}, {"y": ("T", "N")}):
        by_runs(run, signature({"x": ("N", "T")}, shapes))
    by_runs(run, signature({"x": (1, "T")}, {"y": (1, "?")}))  # its inputs cannot have several rows


def test_a_fixed_input_stays_fixed_beside_rows(tmp_path: Path) -> None:
    """As in voice models that take a whole recording: x [length, 576], h [1, 1, 128]."""
    model = turned.graph(
        "(float[length, 4] x, float[1, 4] h) => (float[length, 4] y, float[1, 4] kept)"
        "{ y = Add(x, h) kept = Identity(h) }"
    )
    assert load(tmp_path, model).batching.reason == "the first axis of input h is fixed at 1"


def test_an_axis_that_is_not_found_can_be_said(tmp_path: Path) -> None:
    model = turned.graph(
        "(float[N, 4] x, float[2, M, 4] h) => (float[N, 4] y, float[2, K, 4] kept)"
        "{ last = Constant<value_ints = [0]>() sum = ReduceSum<keepdims = 0>(h, last) y = Add(x, sum)"
        "  kept = Identity(h) }"
    )
    said = (
        'the first axis of input h is fixed at 2; if its rows lie along axis 1, set batching.axes = {"h" = 1}'
    )
    assert load(tmp_path / "unsaid", model).batching.reason == said
    loaded = load(tmp_path / "said", model, "[batching]\naxes = { h = 1 }\n")
    assert loaded.batching.enabled, loaded.batching.reason
    assert loaded.row_axes == {"h": 1, "kept": 1}


# Models as a whole


@pytest.mark.parametrize(
    ("model", "axes"),
    [
        (turned.relu("unk__214, 3", "unk__215, 3"), {}),
        (turned.relu("p2o.DynamicDimension.0, 3", "p2o.DynamicDimension.2, 3"), {}),
        (turned.label_of_one(), {}),
        (turned.time_first(), {"z": 1}),
        (turned.time_first("unk__1", "unk__2, unk__3, 4"), {"z": 1}),
        (turned.time_first("unk__1", "5, 1, 4"), {"z": 1}),
        (turned.running_sums(), {"x": 1, "y": 1}),
    ],
)
def test_row_independent_models_are_batched(
    model: onnx.ModelProto, axes: Mapping[str, int], tmp_path: Path
) -> None:
    loaded = load(tmp_path, model)
    assert loaded.batching.enabled, loaded.batching.reason
    assert loaded.row_axes == axes
    assert ("along axis 1 of" in loaded.batching.reason) == bool(axes)


def test_an_axis_that_settings_name_is_checked_like_any_other(tmp_path: Path) -> None:
    model = turned.relu("?, ?, 3", "?, ?, 3")
    assert not load(tmp_path / "plain", model).row_axes
    loaded = load(tmp_path / "said", model, "[batching]\naxes = { x = 1, y = 1 }\n")
    assert (loaded.batching.enabled, loaded.row_axes) == (True, {"x": 1, "y": 1})
    wrong = load(tmp_path / "wrong", model, "[batching]\naxes = { y = 1 }\n")
    assert not wrong.batching.enabled
    assert wrong.row_axes == {}


def test_rows_that_mix_along_their_axis_run_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, turned.running_sums(), "[batching]\naxes = { x = 0, scale = 0, y = 0 }\n")
    assert not loaded.batching.enabled
    assert "CumSum adds up rows" in loaded.batching.reason


def test_a_sample_keeps_its_layout(tmp_path: Path) -> None:
    loaded = load(tmp_path, turned.running_sums(), "[sample]\nshapes = { x = [7, 1, 4] }\n")
    assert loaded.batching.enabled
    found = axes_by_name(loaded.backend.signature, {}).signature
    assert Sample({"x": (7, 1, 4)}, {}, {}).turned(found).shapes == {"x": (1, 7, 4)}


def test_padding_needs_rows_in_front(tmp_path: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"\[padding\] needs rows along the first .*; rows along axis 1 of z"
    ):
        load(tmp_path, turned.swapped(), "[padding]\naxes = { x = 1 }\n")


def test_a_state_is_found_beside_rows_that_are_not_first(tmp_path: Path) -> None:
    loaded = load(tmp_path, turned.recurrent(), '[sequence]\nstate = { h = "hn" }\n')
    assert loaded.sequence_state is not None
    assert [each.axis for each in loaded.sequence_state.tensors] == [1]
    assert loaded.sequence_state.rows_of == ("x",)
    assert loaded.batching.enabled, loaded.batching.reason
    assert loaded.row_axes == {"x": 1, "y": 1}
    with pytest.raises(ModelLoadError, match=r"names input h, which is a state; set sequence.axis instead"):
        load(
            tmp_path / "named",
            turned.recurrent(),
            '[sequence]\nstate = { h = "hn" }\n[batching]\naxes = { h = 1 }\n',
        )


def test_batches_are_answered_like_requests_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, turned.running_sums())
    random = np.random.default_rng(1)
    sent = [
        {
            "x": random.standard_normal((3, rows, 4)).astype(np.float32),
            "scale": random.standard_normal(rows).astype(np.float32),
        }
        for rows in (1, 2, 4, 1)
    ]
    made = [request(inputs, rows=len(inputs["scale"])) for inputs in sent]
    run_all(loaded.batcher, *made)
    for inputs, each in zip(sent, made, strict=True):
        (alone,) = loaded.backend.run(("y",), inputs)
        answer = caller(each).output()
        assert answer.shape == alone.shape
        assert np.array_equal(answer, alone)
