"""Runs that the polling thread never makes: those of unknown length, and of models that have surprised it."""

from __future__ import annotations

import mmap
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pytest

from penstock.core.errors import ModelFailed
from penstock.core.request import Request
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.runners import Runners
from scheduling.test_runners import LONG, SHORT, Polling, Where, running, submit
from support.work import batcher, caller, echo, request, wait_until


def answered_by(
    where: Where, runners: Runners, polling: Polling, made: DynamicBatcher, value: float = 1.0
) -> str:
    sent = request([value])
    polling.tell(lambda: submit(runners, made, sent))
    assert caller(sent).wait()
    return where.threads[-1]


class ByValue(Where):
    """A run that takes as long as its first value says, in seconds: of CPU, or of time if it is not busy."""

    def __init__(self, *, busy: bool = True) -> None:
        super().__init__()
        self._busy = busy

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        seconds = float(inputs["x"].flat[0])
        busy(seconds) if self._busy else time.sleep(seconds)
        return super().__call__(outputs, inputs)


def test_a_model_whose_work_depends_on_values_never_runs_there() -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT, inline=False)
    with running() as (runners, polling, _):
        assert {answered_by(where, runners, polling, made) for _ in range(5)} == {"penstock-runner"}


def test_a_run_that_overran_is_the_last_one_there() -> None:
    where = ByValue()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        assert answered_by(where, runners, polling, made, 0.0) == "polling"
        assert answered_by(where, runners, polling, made, 0.05) == "polling"
        assert {answered_by(where, runners, polling, made, 0.0) for _ in range(20)} == {"penstock-runner"}
    assert tally.events == ["overran"]


def test_one_on_a_runner_thread_is_enough() -> None:
    """A request decoded by a worker is run by a runner thread, whatever is expected."""
    where = ByValue()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        sent = submit(runners, made, request([0.05]))
        assert caller(sent).wait()
        wait_until(lambda: tally.events)
        assert answered_by(where, runners, polling, made, 0.0) == "penstock-runner"
    assert tally.events == ["overran"]


def test_a_run_that_waits_is_tried_again_later() -> None:
    """The machine may have stood still: such a run used no CPU."""
    where = ByValue(busy=False)
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        assert answered_by(where, runners, polling, made, 0.15) == "polling"
        assert answered_by(where, runners, polling, made, 0.0) == "penstock-runner"
    assert tally.events == []


def test_what_takes_long_around_the_run_is_not_the_models_doing() -> None:
    def slow_reply(result: object) -> None:
        busy(0.03)

    where = Where()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        sent = request(reply=slow_reply)
        polling.tell(lambda: submit(runners, made, sent))
        wait_until(lambda: where.threads)
        assert answered_by(where, runners, polling, made) == "polling"
    assert tally.events == []


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def test_a_delayed_run_after_work_for_another_model_is_not_long() -> None:
    """On a busy machine the thread is interrupted: time alone says nothing, nor does what others used."""
    other, _ = batcher(echo, expected_seconds=SHORT)
    where = ByValue(busy=False)
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        first, second = request(reply=lambda _: busy(0.03)), request([0.02])
        polling.tell(lambda: (submit(runners, other, first), submit(runners, made, second)))
        assert caller(second).wait()
    assert made.may_be_inline
    assert tally.events == []


def test_a_delayed_run_with_answers_that_are_much_work_is_not_long() -> None:
    where = ByValue(busy=False)
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, _, _):
        submit(runners, made, request([0.02], reply=lambda _: busy(0.03)))
        wait_until(lambda: tally.done)
    assert made.may_be_inline
    assert tally.events == []


@pytest.mark.parametrize("on", ["polling", "penstock-runner"])
def test_a_delayed_run_of_inputs_that_are_much_work_to_put_together_is_not_long(on: str) -> None:
    where = ByValue(busy=False)
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    wide = np.full((1, 10**7), 0.02, np.float32)
    first, second = request({"x": wide}), request({"x": wide})
    with running() as (runners, polling, _):
        submit_both = partial(_submit_together, runners, made, first, second)
        polling.tell(submit_both) if on == "polling" else submit_both()
        assert caller(second).wait()
        wait_until(lambda: not made.in_flight)
    assert (where.threads, tally.batches) == ([on], [2])
    assert made.may_be_inline
    assert tally.events == []


class FailsTogether(Where):
    """Fails for several rows after some work; one row alone needs little CPU but takes its time."""

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 1:
            busy(0.01)
            raise ModelFailed("several rows")
        time.sleep(0.01)
        return super().__call__(outputs, inputs)


@pytest.mark.parametrize("on", ["polling", "penstock-runner"])
def test_a_delayed_run_after_attempts_that_failed_is_not_long(on: str) -> None:
    where = FailsTogether()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    first, second = request(), request()
    with running() as (runners, polling, _):
        submit_both = partial(_submit_together, runners, made, first, second)
        polling.tell(submit_both) if on == "polling" else submit_both()
        assert caller(first).wait()
        assert caller(second).wait()
        wait_until(lambda: not made.in_flight)
    assert where.threads == [on, on]
    assert made.may_be_inline
    assert tally.events == []


class TakesMemory(Where):
    """A run for which the system works: it gives the run memory, page by page."""

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            with mmap.mmap(-1, 1 << 20) as memory:
                memory[:: mmap.PAGESIZE] = bytes((1 << 20) // mmap.PAGESIZE)
        return super().__call__(outputs, inputs)


def test_a_run_is_long_whether_it_works_itself_or_the_system_for_it() -> None:
    where = TakesMemory()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        assert answered_by(where, runners, polling, made) == "polling"
        assert {answered_by(where, runners, polling, made) for _ in range(3)} == {"penstock-runner"}
    assert tally.events == ["overran"]


LARGE = 1 << 33
"""Bytes of outputs that no system has new memory for within the border."""


def test_a_model_of_large_outputs_never_runs_there() -> None:
    """Even if its runs were quick so far: the system may have to give it the memory for them."""
    where = Where()
    made, tally = batcher(where, expected_seconds=SHORT)
    made.observer = tally
    with running() as (runners, polling, _):
        assert answered_by(where, runners, polling, made) == "polling"
        made.costs.first.note_outputs(2, LARGE)
        assert answered_by(where, runners, polling, made) == "penstock-runner"
    assert made.may_be_inline
    assert tally.events == []


def _submit_together(runners: Runners, made: DynamicBatcher, *requests: Request) -> None:
    for each in requests:
        made.put(each)
    runners.notify(made)


def shaped(elements: int) -> object:
    return ((elements,),)


@pytest.mark.parametrize(("measured", "expected"), [(64, "polling"), (16, "penstock-runner")])
def test_a_size_that_was_never_measured_is_a_guess(measured: int, expected: str) -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT)
    made.costs.of(shaped(measured)).learn(1, SHORT)
    with running() as (runners, polling, _):
        first = request(shape_key=shaped(32))
        polling.tell(lambda: submit(runners, made, first))
        assert caller(first).wait()
        assert where.threads == [expected]
        second = request(shape_key=shaped(32))
        polling.tell(lambda: submit(runners, made, second))
        assert caller(second).wait()
        assert where.threads[-1] == "polling", "one run of the size was measured"


def test_more_rows_than_were_ever_measured_are_a_guess() -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT, max_rows=4)
    with running() as (runners, polling, _):
        for expected in ("penstock-runner", "polling"):
            sent = request([1.0] * 100)
            polling.tell(lambda sent=sent: submit(runners, made, sent))  # type: ignore[misc]
            assert caller(sent).wait()
            assert where.threads[-1] == expected


def test_a_model_of_long_runs_may_take_longer_still() -> None:
    where = ByValue()
    made, tally = batcher(echo, expected_seconds=LONG)
    made.observer = tally
    with running() as (runners, _, _):
        assert caller(submit(runners, made, request())).wait()
    assert (where.threads, tally.events) == ([], [])
