"""A run of far more rows than a batch has gives its memory back."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.backends.backend import RunControl
from penstock.config import RuntimeConfig
from penstock.core.request import Response
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import MOST_OUTPUT_BYTES, OF_LATE, RunCost
from penstock.scheduling.execution.execution import LARGE_TIMES
from support.work import HandBackend, Tally, batcher, caller, echo, opened, policy, request, run_all

FORGOTTEN_RUNS = 2 * OF_LATE
"""After so many runs with small outputs, large ones do not count any more."""
WIDTH, ROWS = 2048, 10_000
BYTES = 4 * WIDTH * ROWS
"""What the run holds between two nodes of the graph."""

STATUS = Path("/proc/self/statm")


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wide() -> onnx.ModelProto:
    """x [N, 1] to y [N, 1], through a tensor of `WIDTH` values a row."""
    constants = {"a": np.ones((1, WIDTH), np.float32), "b": np.ones((WIDTH, 1), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["spread"]),
        helper.make_node("Sin", ["spread"], ["sines"]),
        helper.make_node("MatMul", ["sines", "b"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "wide", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(not STATUS.exists(), reason="the resident memory is read from Linux's /proc")
@pytest.mark.parametrize("arena", [True, False])
def test_a_large_run_gives_its_memory_back(tmp_path: Path, arena: bool) -> None:
    backend = opened(wide(), tmp_path, RuntimeConfig(intra_op_threads=1, arena=arena))
    made = DynamicBatcher(backend, policy(), RunCost(1e-5))
    made.observer = Tally()
    run_all(made, request([0.0]))
    before = resident()
    large = request(np.zeros(ROWS, np.float32).tolist())
    run_all(made, large)
    assert isinstance(caller(large).results[0], Response)
    assert resident() - before < BYTES / 4
    backend.close()


MOST = 8 * LARGE_TIMES


@pytest.mark.parametrize(("rows", "is_large"), [(1, False), (MOST, False), (MOST + 1, True)])
def test_only_far_more_rows_than_a_batch_are_large(rows: int, is_large: bool) -> None:
    controls: list[RunControl | None] = []

    class Backend(HandBackend):
        def run(
            self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: RunControl | None = None
        ) -> Sequence[Array]:
            controls.append(stop)
            return super().run(outputs, inputs, stop)

    made, _ = batcher(Backend(echo))  # type: ignore[arg-type]
    run_all(made, request([0.0] * rows))
    (control,) = controls
    assert control is not None
    assert control.is_large == is_large


@pytest.mark.parametrize(
    ("rows_of_outputs", "batches"), [(3, [3, 3, 2, 5]), (0.5, [1] * 8 + [5]), (8, [8, 5]), (100, [8, 5])]
)
def test_batches_have_no_more_outputs_than_are_worth_it(rows_of_outputs: float, batches: list[int]) -> None:
    made, tally = batcher(echo)
    made.costs.first.note_outputs(1, MOST_OUTPUT_BYTES / rows_of_outputs)
    requests = [*(request([value]) for value in range(8)), request([9.0] * 5)]
    run_all(made, *requests)
    assert tally.batches == batches
    answers = [caller(each).output().ravel().tolist() for each in requests]
    assert answers == [*([value] for value in range(8)), [9.0] * 5]


def test_one_large_answer_does_not_end_batching() -> None:
    """The size of an answer may depend on its request: requests of small ones run together again."""
    made, tally = batcher(echo)
    made.costs.first.note_outputs(1, MOST_OUTPUT_BYTES)
    run_all(made, *(request([value]) for value in range(8)))
    assert tally.batches == [1] * 8
    for _ in range(FORGOTTEN_RUNS):
        run_all(made, request([1.0]), request([2.0]))
    tally.batches.clear()
    run_all(made, *(request([value]) for value in range(8)))
    assert tally.batches == [8]


def test_large_answers_now_and_then_still_do_not_run_together() -> None:
    cost = RunCost(0.01)
    for _ in range(10):
        cost.learn(1, 0.01, [np.zeros(MOST_OUTPUT_BYTES // 8)])
        for _ in range(10):
            cost.learn(1, 1e-5, [np.zeros(4)])
        assert cost.rows_in_memory == 1
    assert cost.row_bytes == MOST_OUTPUT_BYTES


def test_a_batch_is_not_held_back_for_rows_that_it_cannot_have() -> None:
    made, _ = batcher(echo, max_delay_seconds=10.0)
    for value in range(2):  # so fast that they would fill a batch
        made.put(request([value]))
    assert made.due(now := time.monotonic()) > now
    made.costs.first.note_outputs(1, MOST_OUTPUT_BYTES / 2)
    assert made.due(now) == now
