"""The first request of a shape that has never run is run alone, so that its input ends only its own run."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from penstock.core.request import CutReason, Request, Run
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import REMEMBERED, RunCost, RunCosts
from support.work import BOUND_SECONDS, Tally, batcher, caller, echo, request, run_all

SHORT, LONG = ((4,),), ((64,),)


def sent(shape_key: object, count: int) -> list[Request]:
    return [request(shape_key=shape_key) for _ in range(count)]


def test_the_first_request_of_a_shape_runs_alone_and_the_others_together() -> None:
    made, tally = batcher(echo)
    run_all(made, *sent(SHORT, 5))
    assert tally.batches == [1, 4]
    run_all(made, *sent(SHORT, 5))
    assert tally.batches == [1, 4, 5]


def test_every_shape_has_a_first_run() -> None:
    made, tally = batcher(echo)
    run_all(made, *sent(SHORT, 3), *sent(LONG, 3))
    assert sorted(tally.batches) == [1, 1, 2, 2]


def test_a_batch_that_was_cut_for_it_says_so() -> None:
    made, tally = batcher(echo)
    reasons: list[CutReason] = []

    def note(requests: Sequence[Request], run: Run, answered: float) -> None:
        reasons.append(run.cut_reason)

    tally.batch_done = note  # type: ignore[method-assign]
    run_all(made, *sent(SHORT, 3))
    assert reasons == [CutReason.NEW_SHAPE, CutReason.FREE]


def test_without_open_axes_no_request_runs_alone() -> None:
    made, tally = batcher(echo)
    run_all(made, *sent(None, 4))
    run_all(made, *[request(shape_key=(None, b"0123")) for _ in range(4)])  # with a scalar
    assert tally.batches == [4, 4]


def test_values_of_scalars_are_no_shape() -> None:
    made, tally = batcher(echo)
    run_all(made, *[request(shape_key=(SHORT, b"0123", "text")) for _ in range(4)])
    run_all(made, *[request(shape_key=(SHORT, b"4567", "other")) for _ in range(4)])
    assert tally.batches == [1, 3, 4]


def test_a_first_run_that_fails_fails_alone() -> None:
    """Its caller gets the error, and the shape has run: the others of the shape run together."""
    runs: list[int] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        if len(runs) == 1:
            raise ValueError("no")
        return echo(outputs, inputs)

    made, tally = batcher(run)
    requests = sent(SHORT, 4)
    run_all(made, *requests)
    assert runs == [1, 3]
    assert len(tally.failures) == 1
    caller(requests[0]).error()


def test_until_a_first_run_has_ended_those_beside_it_are_alone_too() -> None:
    both_run, rows = threading.Barrier(2), []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows.append(len(inputs["x"]))
        if len(rows) <= 2:
            both_run.wait(BOUND_SECONDS)
        return echo(outputs, inputs)

    made, _ = batcher(run, runs_in_parallel=2)
    for each in sent(SHORT, 5):
        made.put(each)
    threads = [threading.Thread(target=made.run_once) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(BOUND_SECONDS)
    run_all(made)
    assert rows == [1, 1, 3]


def test_a_shape_that_ran_at_load_has_run() -> None:
    made, tally = batcher(echo)
    made.costs.note_run(SHORT)
    run_all(made, *sent(SHORT, 4))
    assert tally.batches == [4]


def test_a_flood_of_shapes_neither_grows_nor_makes_those_in_use_forgotten() -> None:
    costs = RunCosts(RunCost(1e-3))
    costs.note_run(SHORT)
    for number in range(10 * REMEMBERED):
        if number % 1000 == 0:
            assert costs.has_run(SHORT)
        costs.note_run(((number + 1, 3),))
        assert costs.has_run(((number + 1, 3),))
    assert len(costs.by_shape) + len(costs._older) <= REMEMBERED + 8
    assert not costs.has_run(((1, 3),))
    assert costs.has_run(None)


@pytest.mark.parametrize("count", [1, 2])
def test_a_late_first_request_does_not_mark_the_next_shape_as_new(count: int) -> None:
    made: DynamicBatcher
    made, tally = batcher(echo)
    made.costs.note_run(LONG)
    late = sent(SHORT, count)
    fine = sent(LONG, 3)
    for each in (*late, *fine):
        made.put(each)
    for each in late:
        each.deadline = -np.inf
    while made.run_once():
        pass
    assert tally.batches == [3]
    assert isinstance(tally, Tally)
    assert len(tally.failures) == count
