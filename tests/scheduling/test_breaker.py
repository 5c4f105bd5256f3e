"""The breaker in simulated time, and at the head of a batcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from penstock.core.errors import ModelFailed, Unavailable
from penstock.core.tensors import Array
from penstock.scheduling.execution.breaker import LONGEST_SECONDS, Breaker
from penstock.scheduling.policy import Isolation
from support.work import batcher, caller, echo, request, run_all


def tripped() -> Breaker:
    breaker = Breaker(2, 1.0)
    assert [breaker.failed(), breaker.failed()] == [False, True]
    assert breaker.open(10.0) == 1.0
    return breaker


def refused_for(breaker: Breaker, now: float) -> float | None:
    with pytest.raises(Unavailable, match="fails on every input") as caught:
        breaker.admit(now)
    return caught.value.retry_after_seconds


def test_it_suspects_after_failures_in_a_row_only() -> None:
    breaker = Breaker(3)
    for _ in range(5):
        assert [breaker.failed(), breaker.failed()] == [False, False]
        assert not breaker.succeeded()
    assert [breaker.failed() for _ in range(3)] == [False, False, True]


def test_without_a_bound_it_never_suspects() -> None:
    breaker = Breaker(0)
    assert not any(breaker.failed() for _ in range(100))


def test_open_it_refuses_and_says_for_how_long() -> None:
    assert refused_for(tripped(), 10.25) == 0.75


def test_one_request_is_let_through_and_success_closes() -> None:
    breaker = tripped()
    breaker.admit(11.0)
    assert refused_for(breaker, 11.0) == 1.0
    assert breaker.succeeded()
    assert not breaker.is_open
    breaker.admit(11.0)
    assert [breaker.failed(), breaker.failed()] == [False, True]


def test_a_run_that_succeeds_while_the_model_is_tried_keeps_it_open_to_all() -> None:
    breaker = Breaker(1)
    assert breaker.failed()
    assert not breaker.succeeded()
    assert breaker.open(0.0) == 0.0
    assert not breaker.is_open
    breaker.admit(0.0)


def test_each_failed_probe_doubles_up_to_a_bound() -> None:
    breaker, now, seconds = tripped(), 10.0, 1.0
    for _ in range(8):
        now += seconds
        breaker.admit(now)
        assert breaker.failed()
        seconds = min(2 * seconds, LONGEST_SECONDS)
        assert breaker.open(now) == seconds
    assert seconds == LONGEST_SECONDS


def test_a_probe_that_nobody_hears_of_is_followed_by_another() -> None:
    breaker = tripped()
    breaker.admit(11.0)
    refused_for(breaker, 11.9)
    breaker.admit(12.0)
    refused_for(breaker, 12.0)


def test_what_had_been_let_in_before_does_not_keep_it_open_longer() -> None:
    breaker = tripped()
    assert not breaker.failed()
    assert refused_for(breaker, 10.5) == 0.5


class Broken:
    """A model that can be broken; by itself it fails on 13 only."""

    def __init__(self) -> None:
        self.broken = False
        self.tried = 0

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if self.broken or 13 in inputs["x"]:
            raise ValueError("no")
        return echo(outputs, inputs)

    def works(self) -> bool:
        self.tried += 1
        return not self.broken


def test_a_model_that_fails_on_everything_is_left_alone() -> None:
    model = Broken()
    made, tally = batcher(model.run, isolation=Isolation(3, 1e-9, works=model.works))
    model.broken = True
    for _ in range(3):
        run_all(made, request([1.0]), request([2.0]))
    assert (made.breaker.is_open, tally.events) == (True, ["opened"])
    probe = request([1.0])
    run_all(made, probe)
    assert isinstance(caller(probe).error(), ModelFailed)
    model.broken = False
    probe = request([1.0])
    run_all(made, probe)
    assert caller(probe).output().tolist() == [[1.0]]
    assert (made.breaker.is_open, tally.events) == (False, ["opened", "opened", "closed"])


def test_refused_requests_are_not_queued() -> None:
    model = Broken()
    made, _ = batcher(model.run, isolation=Isolation(1, 60.0, works=model.works))
    model.broken = True
    run_all(made, request([1.0]))
    with pytest.raises(Unavailable):
        made.put(request([1.0]))
    assert made.waiting_rows == 0


def test_bad_data_of_the_only_caller_there_is_shuts_nobody_out() -> None:
    model = Broken()
    made, tally = batcher(model.run, isolation=Isolation(3, 60.0, works=model.works))
    for _ in range(9):
        run_all(made, request([13.0]), request([13.0]))
    assert (made.breaker.is_open, model.tried, tally.events) == (False, 3, [])


def test_a_batch_in_which_anybody_got_an_answer_counts_as_none() -> None:
    model = Broken()
    made, _ = batcher(model.run, isolation=Isolation(2, 60.0, works=model.works))
    for _ in range(5):
        run_all(made, *[request([value]) for value in (1.0, 13.0, 13.0, 13.0)])
    assert model.tried == 0
