"""Batching never changes an answer: the check at load finds the models in which it would."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.backends.onnx import OnnxBackend
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array, DataType, Signature
from penstock.models.checks import cost
from penstock.models.checks.batching import check_batching
from penstock.models.checks.comparing import ROWS_COMPARED
from penstock.models.checks.cost import TIMED_RUNS, measure_cost, rows_worth_batching
from penstock.models.model import Batching
from penstock.models.samples import SIZES, Sample
from penstock.scheduling.cost import RunCost
from support import zoo
from support.work import ONE_THREAD, HandBackend, RunByHand, opened, signature_of, spec

BIT_FOR_BIT = "rows run together and alone agree bit for bit"


def verdict(model: onnx.ModelProto, folder: Path, *, forced: bool = False, max_rows: int = 8) -> Batching:
    return check_batching(opened(model, folder), wanted=True, forced=forced, max_rows=max_rows)


def by_hand(
    run: RunByHand, signature: Signature | None = None, *, forced: bool = False, max_rows: int = 8
) -> Batching:
    return check_batching(HandBackend(run, signature), wanted=True, forced=forced, max_rows=max_rows)


def doubled(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    return [inputs["x"] * 2]


def model_of(nodes: list[onnx.NodeProto], constants: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """x FP32 [N, 3] to y FP32 [N, 3]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights),
        opset_imports=[helper.make_opsetid("", zoo.OPSET)],
        ir_version=zoo.IR_VERSION,
    )


# The zoo


@pytest.mark.parametrize(
    "make",
    [
        *(lambda datatype=datatype: zoo.identity(datatype) for datatype in DataType),
        lambda: zoo.scale(3),
        zoo.add,
        zoo.row_sum,
        zoo.multi_output,
        zoo.two_open_axes,
        zoo.axes_unnamed,
        lambda: zoo.fails_on(10),
        lambda: zoo.slow_by_rounds(1),
        zoo.tiny_mlp,
        zoo.external,
    ],
)
def test_rows_that_do_not_know_of_each_other_are_batched(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    found = verdict(make(), tmp_path, max_rows=32)
    assert found.enabled, found.reason
    assert found.tolerance < 1e-5


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (zoo.scalar, "output y is a scalar"),
        (zoo.constant, "it has no inputs"),
        (zoo.fixed_batch, "the first axis of input x is fixed at 1"),
        (zoo.fixed_vector, "the first axis of input x is fixed at 4"),
        (
            zoo.axes_not_shared,
            "the first axes have different names (x A, z B, y A, w B); "
            "batching.enabled = true overrides this",
        ),
        (zoo.one_closed_output, "output total is a scalar"),
        (zoo.rank_unknown, "input x declares no shape"),
    ],
)
@pytest.mark.parametrize("forced", [False, True])
def test_shapes_that_rule_batching_out(
    make: Callable[[], onnx.ModelProto], reason: str, forced: bool, tmp_path: Path
) -> None:
    found = verdict(make(), tmp_path, forced=forced)
    if forced and make is zoo.axes_not_shared:
        assert found == Batching(True, BIT_FOR_BIT)
    else:
        assert found == Batching(False, reason)


MIXING = [
    zoo.centred_rows, zoo.softmax_over_rows, zoo.cumulative_rows, zoo.reversed_rows, zoo.divided_by_rows
]  # fmt: skip


@pytest.mark.parametrize("max_rows", [2, 3, 32])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("make", MIXING, ids=lambda make: make.__name__)
def test_rows_that_mix_are_not_batched(
    make: Callable[[], onnx.ModelProto], forced: bool, max_rows: int, tmp_path: Path
) -> None:
    found = verdict(make(), tmp_path, forced=forced, max_rows=max_rows)
    assert not found.enabled
    assert "output y depends on the other rows of a batch" in found.reason


def test_the_bundled_model_is_batched() -> None:
    path = zoo.EXAMPLES / "models" / "lead_scoring" / "1" / "model.onnx"
    found = check_batching(OnnxBackend(path, ONE_THREAD, 1), wanted=True, forced=False, max_rows=32)
    assert found.enabled, found.reason


# Switched off


def test_not_wanted(tmp_path: Path) -> None:
    found = check_batching(opened(zoo.add(), tmp_path), wanted=False, forced=False, max_rows=8)
    assert found == Batching(False, "switched off in model.toml")


def test_batches_of_one_row_are_none(tmp_path: Path) -> None:
    assert verdict(zoo.add(), tmp_path, max_rows=1) == Batching(False, "max_rows is 1")


# Models that are hard to find out


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike"])
def test_random_answers_are_not_batched(operator: str, tmp_path: Path) -> None:
    found = verdict(model_of([helper.make_node(operator, ["x"], ["y"])]), tmp_path)
    assert not found.enabled


def test_rows_that_mix_in_later_rows_only() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        y = inputs["x"].copy()
        y[20:] += y[:1]
        return [y]

    assert not by_hand(run, max_rows=32).enabled
    assert by_hand(run, max_rows=20).enabled, "a batch never has that many rows"


def test_rows_that_mix_for_some_values_only() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [np.where(x > 1.5, x.mean(axis=0), x)]

    assert not by_hand(run, max_rows=32).enabled


def test_rows_that_mix_in_one_of_several_outputs() -> None:
    signature = signature_of([spec("x")], [spec("fine"), spec("mixed")])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [inputs["x"], inputs["x"] - inputs["x"].mean()]

    found = by_hand(run, signature)
    assert not found.enabled
    assert "output mixed" in found.reason


def test_an_integer_is_equal_or_not() -> None:
    signature = signature_of([spec("x")], [spec("y", datatype=DataType.INT64)])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [np.full((len(inputs["x"]), 1), 10**9 + len(inputs["x"]))]

    assert not by_hand(run, signature).enabled


def test_a_large_batch_is_compared_by_some_of_its_rows_the_first_and_last_among_them() -> None:
    seen: set[int] = set()
    batch: list[Array] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        if len(x) == 1000:
            batch.append(x)
        elif batch and len(x) == 1 and x[0] in batch[0]:
            seen.add(int(np.flatnonzero(batch[0] == x[0])[0]))
        return [x]

    assert by_hand(run, max_rows=1000).enabled
    assert len(seen) == ROWS_COMPARED
    assert {0, 999} <= seen


@pytest.mark.parametrize("size", SIZES)
def test_models_that_run_with_one_size_of_their_open_axes_only(size: int) -> None:
    signature = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].shape[1] != size:
            raise ModelFailed(f"L is {inputs['x'].shape[1]}, not {size}")
        return doubled(outputs, inputs)

    assert by_hand(run, signature).enabled


def test_a_model_that_takes_zeros_only_is_found_out_with_those() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].any():
            raise ModelFailed("no")
        return [inputs["x"] + len(inputs["x"])]

    assert not by_hand(run).enabled


@pytest.mark.parametrize("from_rows", [0, 3, 8])
def test_a_model_that_fails_on_every_generated_input_is_not_batched(from_rows: int) -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) >= from_rows:
            raise ModelFailed("out of its vocabulary")
        return doubled(outputs, inputs)

    found = by_hand(run)
    assert not found.enabled
    assert "the model fails on every generated input of" in found.reason
    assert " rows: out of its vocabulary" in found.reason


def test_a_model_that_does_not_run_on_one_row_is_not_batched() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) == 1:
            raise ModelFailed("one is too few")
        return doubled(outputs, inputs)

    assert by_hand(run) == Batching(False, "rows that run together fail alone: one is too few")


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda outputs, inputs: [np.float32(1)], "output y has shape [] for 2 rows"),
        (lambda outputs, inputs: [inputs["x"][:1]], "output y has shape [1, 1] for 2 rows"),
        (
            lambda outputs, inputs: [inputs["x"] if len(inputs["x"]) > 1 else np.zeros((2, 1), np.float32)],
            "output y has shape [2, 1] for one row",
        ),
        (
            lambda outputs, inputs: [inputs["x"] if len(inputs["x"]) > 1 else np.float32(1)],
            "output y has shape [] for one row",
        ),
        (
            lambda outputs, inputs: [np.zeros((len(inputs["x"]),) * 2, np.float32)],
            "the shape of output y depends on the other rows",
        ),
    ],
)
def test_outputs_that_are_not_one_entry_a_row_whatever_the_graph_declares(run: RunByHand, words: str) -> None:
    assert by_hand(run) == Batching(False, words)


# Tolerance


def noisy(relative: float) -> RunByHand:
    """Rows that differ from rows alone by a share of the largest value of the output."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        together = len(x) > 1
        return [x + (np.abs(x).max() * relative if together else 0)]

    return run


@pytest.mark.parametrize(
    ("datatype", "small", "large"),
    [(DataType.FP64, 1e-12, 1e-8), (DataType.FP32, 1e-5, 1e-3), (DataType.FP16, 3e-3, 5e-2)],
)
def test_last_bits_may_differ_and_first_ones_may_not(datatype: DataType, small: float, large: float) -> None:
    signature = signature_of([spec("x", datatype=DataType.FP64)], [spec("y", datatype=datatype)])

    def cast(run: RunByHand) -> RunByHand:
        return lambda outputs, inputs: [each.astype(datatype.dtype) for each in run(outputs, inputs)]

    found = by_hand(cast(noisy(small)), signature)
    assert found.enabled, found.reason
    assert found.tolerance == pytest.approx(small, rel=0.9)
    assert found.reason == f"rows run together and alone agree within {found.tolerance:.1e}"
    assert not by_hand(cast(noisy(large)), signature).enabled


@pytest.mark.parametrize(("bits", "enabled"), [(0, True), (1, True), (12, False)])
def test_bf16_is_compared_by_value(bits: int, enabled: bool) -> None:
    signature = signature_of([spec("x", datatype=DataType.BF16)], [spec("y", datatype=DataType.BF16)])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [inputs["x"] + np.uint16(bits if len(inputs["x"]) > 1 else 0)]

    assert by_hand(run, signature).enabled is enabled


def test_a_row_close_to_zero_among_others_is_no_difference() -> None:
    """The last bits of a sum that cancels out are large beside the sum, and small beside the output."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [np.where(inputs["x"] > 0, inputs["x"], np.float32(1e-7 * len(inputs["x"])))]

    found = by_hand(run)
    assert found.enabled, found.reason
    assert 0 < found.tolerance < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_must_stay_what_it_is(value: float) -> None:
    def same(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [np.where(inputs["x"] > 0, np.float32(value), inputs["x"])]

    def only_together(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return same(outputs, inputs) if len(inputs["x"]) > 1 else [inputs["x"]]

    def other_sign(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [each * (1 if len(inputs["x"]) > 1 else -1) for each in same(outputs, inputs)]

    assert by_hand(same) == Batching(True, BIT_FOR_BIT)
    assert not by_hand(only_together).enabled
    assert not by_hand(other_sign).enabled


def test_rows_without_elements_agree() -> None:
    signature = signature_of([spec("x")], [spec("y", ("N", 0))])
    found = by_hand(lambda outputs, inputs: [np.zeros((len(inputs["x"]), 0), np.float32)], signature)
    assert found.enabled


# Cost


def test_the_cost_is_measured_on_a_warm_model() -> None:
    sizes: list[int] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        sizes.append(len(inputs["x"]))
        return doubled(outputs, inputs)

    assert 0 < measure_cost(HandBackend(run), batched=True, max_rows=32).expect(32) < 0.1
    assert sizes == [1] * (TIMED_RUNS + 1) + [32] * (TIMED_RUNS + 1)
    sizes.clear()
    measure_cost(HandBackend(run), batched=False, max_rows=32)
    assert set(sizes) == {1}


def test_runs_that_a_busy_machine_makes_longer_do_not_count() -> None:
    """What is found decides how many rows a batch has, and is kept for later starts."""
    runs = 0

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        nonlocal runs
        runs += 1
        time.sleep(0.02 if runs % 4 else 0.0)
        return doubled(outputs, inputs)

    found = measure_cost(HandBackend(run), batched=True, max_rows=32)
    assert found.expect(1) < 0.015
    assert found.expect(32) < 0.015


@pytest.mark.alone
def test_more_rows_are_expected_to_cost_more() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        for _ in range(20_000 * len(inputs["x"])):
            pass
        return doubled(outputs, inputs)

    cost = measure_cost(HandBackend(run), batched=True, max_rows=8)
    assert cost.expect(8) > 3 * cost.expect(1)


def test_what_cannot_be_measured_is_not_for_the_polling_thread() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise ModelFailed("no")

    assert measure_cost(HandBackend(run), batched=False, max_rows=8).expect(1) == 1.0


# How many rows are worth a batch, where the settings leave it open


@pytest.mark.parametrize(
    ("row_seconds", "rows"),
    [
        (1e-6, 256),
        (1.9e-6, 256),
        (3e-6, 128),
        (5e-6, 64),
        (14e-6, 32),
        (17e-6, 256),  # none for the polling thread any more, so it need not be short enough for that
        (50e-6, 128),
        (0.2e-3, 32),
        (1e-3, 8),  # its rows wait for each other, so few of them run together
        (10e-3, 2),
    ],
)
def test_quick_models_have_large_batches_and_slow_ones_small(row_seconds: float, rows: int) -> None:
    signature = signature_of([spec("x")], [spec("y")])
    assert rows_worth_batching(RunCost(row_seconds, 32, 32 * row_seconds), signature, 4096) == rows


@pytest.mark.parametrize(
    ("shape", "queue_rows", "rows"),
    [
        (("N", 1000), 4096, 256),
        (("N", 3, "H", "W"), 4096, 256),
        (("N", 10_000), 4096, 64),
        (("N", 3, 224, 224), 4096, 32),
        (("N", 1), 600, 128),
        (("N", 1), 40, 32),
    ],
)
def test_batches_are_bounded_by_bytes_and_by_the_queue(
    shape: tuple[int | str, ...], queue_rows: int, rows: int
) -> None:
    signature = signature_of([spec("x", shape)], [spec("y")])
    assert rows_worth_batching(RunCost(1e-6, 32, 1e-6), signature, queue_rows) == rows


def test_rows_alone_lie_where_they_would_if_they_came_alone(tmp_path: Path) -> None:
    """Sums are rounded by where their input begins, so a view of the batch would show no difference."""
    graph = zoo.summed_rows(17)
    found = check_batching(opened(graph, tmp_path), wanted=True, forced=False, max_rows=32)
    assert found.enabled
    assert 0 < found.tolerance < 1e-6


def test_a_large_column_hides_no_mixing_in_a_small_one() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        x = inputs["x"]
        mixed = x[:, :1] + 1e-3 * x[:, :1].mean()
        return [np.concatenate([mixed, np.full_like(mixed, 50.0)], axis=1)]

    found = by_hand(run)
    assert not found.enabled
    assert "depends on the other rows" in found.reason


def test_whole_numbers_are_divided_by(tmp_path: Path) -> None:
    found = check_batching(opened(zoo.divided(), tmp_path), wanted=True, forced=False, max_rows=8)
    assert found == Batching(True, BIT_FOR_BIT)


def test_a_slow_model_is_run_once_to_see_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds a run would be minutes at the start of many models."""
    monkeypatch.setattr(cost, "LONG_SECONDS", 0.01)
    runs = []

    def slow(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(1)
        time.sleep(0.02)
        return doubled(outputs, inputs)

    assert measure_cost(HandBackend(slow), batched=False, max_rows=1).expect(1) >= 0.02
    assert len(runs) == 1


def test_rows_that_are_all_alike_show_nothing(tmp_path: Path) -> None:
    """Without a proof from the graph, values that `[sample]` makes equal keep a model from being batched."""
    same = Sample({}, {"x": 1.0}, {"x": 1.0})
    found = check_batching(opened(zoo.centred_rows(), tmp_path), True, False, 8, same)
    assert found.reason.startswith("sample.values makes all rows equal")
    assert not found.enabled
