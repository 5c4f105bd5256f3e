"""Batches that fail, runs that nobody waits for, and runs that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from penstock.backends.backend import RunControl
from penstock.core.errors import DeadlineExpired, ModelFailed, RequestCancelled
from penstock.core.request import Request
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.execution.execution import InFlightRun
from penstock.scheduling.policy import Isolation
from support import zoo
from support.work import (
    HandBackend,
    Tally,
    assert_adds_up,
    batcher,
    caller,
    echo,
    opened,
    request,
    run_all,
    wait_until,
)

FAR = 1e9


def runs_for(guilty: set[int], count: int = 64) -> int:
    """How many runs a batch takes in which some fail; checks that only those do."""
    runs = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        if guilty & set(inputs["x"].ravel().astype(int)):
            raise ValueError("no")
        return echo(outputs, inputs)

    made, tally = batcher(run, max_rows=count)
    requests = [request([float(number)]) for number in range(count)]
    run_all(made, *requests)
    for number, each in enumerate(requests):
        if number in guilty:
            assert isinstance(caller(each).error(), ModelFailed)
        else:
            assert caller(each).output().tolist() == [[float(number)]]
    assert_adds_up(tally, requests)
    return len(runs)


@pytest.mark.parametrize("guilty", [0, 31, 63])
def test_one_guilty_of_64_takes_13_runs(guilty: int) -> None:
    assert runs_for({guilty}) == 13


def test_a_few_guilty_take_a_few_times_as_many_runs() -> None:
    assert runs_for({3, 40}) <= 2 * 12 + 1
    assert runs_for({3, 4, 40, 63}) <= 4 * 12 + 1
    assert runs_for(set()) == 1
    assert runs_for(set(range(7)), 7) == 13


# Runs that nobody waits for


class Waiting:
    """A backend whose run lasts until it is ended, or told to go on."""

    def __init__(self) -> None:
        self.began, self._over = threading.Event(), threading.Event()
        self.stop: RunControl | None = None
        self.backend = HandBackend(self._run)

    def go_on(self) -> None:
        self._over.set()

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        stop = self.backend.stop
        assert stop is not None
        stop.stop_with(self._over.set)
        self.began.set()
        assert self._over.wait(20)
        if stop.stopped:
            raise ModelFailed("ended early")
        return echo(outputs, inputs)


def begun(*requests: Request, **isolation: float) -> tuple[Waiting, DynamicBatcher, Tally, threading.Thread]:
    """A run of these that is going on, on a thread of its own."""
    waiting = Waiting()
    made, tally = batcher(waiting.backend, isolation=Isolation(failures=1, **isolation))  # type: ignore[arg-type]
    for each in requests:
        made.put(each)
    thread = threading.Thread(target=made.run_once)
    thread.start()
    assert waiting.began.wait(20)
    return waiting, made, tally, thread


def test_a_run_is_ended_once_all_its_callers_are_gone() -> None:
    requests = [request([1.0]), request([2.0]), request([3.0], deadline=FAR)]
    waiting, made, tally, thread = begun(*requests)
    made.cancel(requests[0])
    made.cancel(requests[1])
    made.expire(time.monotonic())
    assert not waiting.backend.stop.stopped  # type: ignore[union-attr]
    made.expire(FAR)
    thread.join(20)
    assert [type(error) for _, error in tally.failures].count(RequestCancelled) >= 2
    assert not caller(requests[0]).results
    assert len(tally.failures) == 3
    assert tally.events == ["terminated"]
    assert (tally.done, tally.batches, made.breaker.is_open, made.running_batches) == ([], [], False, 0)


def test_what_was_too_late_is_told_so() -> None:
    late = request([1.0], deadline=time.monotonic() + 60)
    _, made, tally, thread = begun(late)
    late.deadline = time.monotonic()  # it passes during the run
    while thread.is_alive():
        made.expire(time.monotonic())
        thread.join(0.005)
    assert isinstance(caller(late).error(), DeadlineExpired)
    assert len(tally.failures) == 1


def test_a_run_that_somebody_waits_for_goes_on() -> None:
    gone, there = request([1.0]), request([2.0])
    waiting, made, tally, thread = begun(gone, there)
    made.cancel(gone)
    made.expire(time.monotonic())
    waiting.go_on()
    thread.join(20)
    assert caller(there).output().tolist() == [[2.0]]
    assert tally.events == []
    assert len(tally.failures) == 1


def test_a_stop_that_came_before_the_backend_was_ready_is_not_lost() -> None:
    run, ended = InFlightRun((), 0.0), []
    run.stop()
    run.stop_with(lambda: ended.append(True))
    assert ended == [True]


def test_onnx_runtime_ends_a_run_between_two_nodes(tmp_path: Path) -> None:
    made, tally = batcher(opened(zoo.as_slow_as_asked(), tmp_path))
    endless = request({"x": np.array([[2**62]], np.int64)})
    made.put(endless)
    thread = threading.Thread(target=made.run_once)
    thread.start()
    wait_until(lambda: made.running_batches)
    made.cancel(endless)
    made.expire(time.monotonic())
    thread.join(20)
    assert not thread.is_alive()
    assert tally.events == ["terminated"]
    good = request({"x": np.array([[1]], np.int64)})
    run_all(made, good)
    assert caller(good).output().tolist() == [[1]]


# Runs that hang


def test_a_run_that_hangs_is_told_once_and_so_is_its_end() -> None:
    waiting, made, tally, thread = begun(request([1.0]), hung_seconds=60.0)
    now = time.monotonic()
    made.expire(now + 59)
    assert (made.in_flight.hung_threads(), tally.events) == ([], [])
    made.expire(now + 61)
    made.expire(now + 62)
    assert (made.in_flight.hung_threads(), tally.events) == ([thread.ident], ["hung"])
    waiting.go_on()
    thread.join(20)
    assert (made.in_flight.hung_threads(), tally.events) == ([], ["hung", "returned"])


def test_where_nothing_is_set_no_run_hangs() -> None:
    waiting, made, tally, thread = begun(request([1.0]))
    made.expire(FAR)
    waiting.go_on()
    thread.join(20)
    assert tally.events == []
