"""The engine lets requests in, watches their deadlines, and empties the house."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from penstock.core.errors import DeadlineExpired, NotFound, QueueFull, RequestCancelled, Unavailable
from penstock.core.request import Request, Response, Step
from penstock.core.tensors import Array
from penstock.engine import REST_SECONDS, SWEEP_SECONDS, Engine
from penstock.models.model import Batching, Model
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.rows import Rows
from penstock.scheduling.packing.states import States, StateTensor
from penstock.scheduling.policy import Isolation
from penstock.scheduling.runners import Runners
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import SequenceLimits
from penstock.traffic.router import Router
from support.work import (
    Caller,
    HandBackend,
    RunByHand,
    Tally,
    batcher,
    caller,
    echo,
    policy,
    request,
    wait_until,
)


class House:
    """An engine with models whose runs are Python functions, and what has happened in it."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.failures: list[BaseException] = []
        self.router = Router()
        self.runners = Runners(2, 0.0, self.failures.append)
        self.engine = Engine(self.router, self.runners, lambda: self.models)

    def add(self, run: RunByHand = echo, name: str = "m", **policy: object) -> tuple[Model, Tally]:
        made, tally = batcher(run, **policy)  # type: ignore[arg-type]
        model = Model(name, 1, HandBackend(run), made, Batching(True, "for a test"), is_default=True)
        model.observe(tally)
        self.models.append(model)
        self.router.set(self.models)
        return model, tally

    def submit(self, model: Model, each: Request) -> Request:
        self.engine.submit(model.batcher, each)
        return each


@contextmanager
def serving() -> Iterator[House]:
    """A house in which no thread but the runners' runs batches; nothing unexpected may happen in it."""
    house = House()
    house.runners.start(None)
    house.engine.start()
    try:
        yield house
    finally:
        house.engine.stop()
        house.runners.stop()
    assert house.failures == []


class Gate:
    """A run that waits until it is let go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        self.entered.set()
        assert self.open.wait(20)
        return echo(outputs, inputs)


def test_models_that_hang_are_told_when_they_change() -> None:
    go_on, told = threading.Event(), []

    def stuck(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert go_on.wait(20)
        return echo(outputs, inputs)

    house = House()
    house.engine = Engine(house.router, house.runners, lambda: house.models, told.append)
    model, _ = house.add(stuck, isolation=Isolation(hung_seconds=0.01))
    house.runners.start(None)
    house.engine.start()
    each = house.submit(model, request([1.0]))
    wait_until(lambda: house.engine.hung)
    go_on.set()
    assert caller(each).wait()
    wait_until(lambda: not house.engine.hung)
    assert told == [frozenset({"m"}), frozenset()]
    house.engine.stop()
    house.runners.stop()


def test_a_request_is_routed_run_and_answered() -> None:
    with serving() as house:
        _, tally = house.add()
        sent = house.submit(house.engine.route("m", ""), request([4]))
        assert caller(sent).wait()
        assert caller(sent).output().item() == 4.0
        wait_until(lambda: tally.done == [sent])
        with pytest.raises(NotFound):
            house.engine.route("n", "")


def test_a_refusal_comes_by_the_reply_and_is_counted_and_flushed() -> None:
    flushed = []
    with serving() as house:
        gate = Gate()
        model, tally = house.add(gate, queue_rows=1)
        running = house.submit(model, request())
        assert gate.entered.wait(20)
        waiting = house.submit(model, request())
        refused = house.submit(model, request(rpc="PredictStream", reply=Caller(lambda: flushed.append(1))))
        assert isinstance(caller(refused).error(), QueueFull)
        assert caller(refused).error().retry_after_seconds is not None
        assert flushed == [1]
        assert [(rpc, type(error)) for rpc, error in tally.failures] == [("PredictStream", QueueFull)]
        gate.open.set()
        assert caller(running).wait()
        assert caller(waiting).wait()


def test_a_request_that_comes_too_late_is_refused() -> None:
    with serving() as house:
        model, tally = house.add()
        late = house.submit(model, request(deadline=time.monotonic() - 1.0))
        assert isinstance(caller(late).error(), DeadlineExpired)
        assert len(tally.failures) == 1


def test_deadlines_of_waiting_requests_are_watched_in_every_model() -> None:
    with serving() as house:
        gates = [Gate(), Gate()]
        models = [house.add(gate, name=name)[0] for gate, name in zip(gates, "ab", strict=True)]
        for model, gate in zip(models, gates, strict=True):
            house.submit(model, request())
            assert gate.entered.wait(20)
        late = [house.submit(model, request(deadline=time.monotonic() + 0.03)) for model in models]
        patient = [house.submit(model, request()) for model in models]
        for each in late:
            assert caller(each).wait()
            assert isinstance(caller(each).error(), DeadlineExpired)
        assert all(caller(each).results == [] for each in patient)
        for gate in gates:
            gate.open.set()
        assert all(caller(each).wait() for each in patient)


def test_one_bad_reply_does_not_end_the_watch() -> None:
    def broken(result: object) -> None:
        raise ZeroDivisionError

    with serving() as house:
        gate = Gate()
        model, _ = house.add(gate)
        running = house.submit(model, request())
        assert gate.entered.wait(20)
        house.submit(model, request(reply=broken, deadline=time.monotonic() + 0.01))
        wait_until(lambda: house.failures)
        assert isinstance(house.failures.pop(), ZeroDivisionError)
        late = house.submit(model, request(deadline=time.monotonic() + 0.01))
        assert caller(late).wait(), "nobody watches deadlines any more"
        gate.open.set()
        assert caller(running).wait()


def test_a_cancelled_request_is_not_run() -> None:
    with serving() as house:
        gate = Gate()
        model, tally = house.add(gate)
        running = house.submit(model, request())
        assert gate.entered.wait(20)
        gone = house.submit(model, request())
        house.engine.cancel(model, gone)
        assert isinstance(caller(gone).error(), RequestCancelled)
        gate.open.set()
        assert caller(running).wait()
        wait_until(lambda: not model.batcher.running_batches)
        assert tally.batches == [1]


# Stopping


def test_draining_finishes_what_was_taken_and_takes_nothing_more() -> None:
    with serving() as house:
        gate = Gate()
        model, tally = house.add(gate, max_rows=1)
        accepted = [house.submit(model, request([number])) for number in range(5)]
        assert gate.entered.wait(20)
        answered: list[bool] = []
        draining = threading.Thread(target=lambda: answered.append(house.engine.drain(20.0)))
        draining.start()
        wait_until(lambda: house.runners.draining)
        refused = house.submit(model, request())
        assert isinstance(caller(refused).error(), Unavailable)
        assert answered == []
        gate.open.set()
        draining.join(20)
        assert answered == [True]
        assert [caller(each).output().item() for each in accepted] == [0, 1, 2, 3, 4]
        assert (len(tally.done), len(tally.failures)) == (5, 1)


def test_draining_an_idle_house_takes_no_time() -> None:
    with serving() as house:
        house.add()
        started = time.monotonic()
        assert house.engine.drain(20.0)
        assert time.monotonic() - started < 5


def test_when_draining_takes_too_long_what_waits_is_answered_with_unavailable() -> None:
    with serving() as house:
        gate = Gate()
        model, _ = house.add(gate, max_rows=1)
        running = house.submit(model, request([1]))
        assert gate.entered.wait(20)
        waiting = [house.submit(model, request()) for _ in range(3)]
        assert not house.engine.drain(0.02)
        assert all(isinstance(caller(each).error(), Unavailable) for each in waiting)
        gate.open.set()
        assert caller(running).wait()
        assert caller(running).output().item() == 1.0


def test_draining_waits_for_what_was_held_back_to_fill_a_batch() -> None:
    with serving() as house:
        model, _ = house.add(max_delay_seconds=0.05)
        sent = house.submit(model, request([3]))
        assert house.engine.drain(20.0)
        assert caller(sent).output().item() == 3.0


def test_everything_accepted_while_a_drain_begins_is_answered() -> None:
    """Requests and the drain race: each is either answered, or refused."""
    with serving() as house:
        model, _ = house.add()
        requests: list[list[Request]] = [[], []]
        begin = threading.Event()

        def send(mine: list[Request]) -> None:
            for number in range(500):
                mine.append(house.submit(model, request()))
                if number == 100:
                    begin.set()

        threads = [threading.Thread(target=send, args=(mine,)) for mine in requests]
        for thread in threads:
            thread.start()
        assert begin.wait(20)
        assert house.engine.drain(20.0)
        for thread in threads:
            thread.join()
        everything = [each for mine in requests for each in mine]
        assert all(caller(each).wait() for each in everything)
        kinds = {type(each.results[0]) for each in map(caller, everything)}
        assert kinds <= {Response, Unavailable}
        assert all(len(caller(each).results) == 1 for each in everything)


def test_stop_without_start() -> None:
    House().engine.stop()


def test_stop_ends_the_watch() -> None:
    house = House()
    house.engine.start()
    house.engine.stop()
    assert not house.engine._sweeper.is_alive()
    assert SWEEP_SECONDS < 0.1, "so late may an answer to a deadline be"


def test_an_idle_engine_rests_and_a_request_ends_that() -> None:
    """A request that waits behind a run learns just as soon that it is late."""
    gate = Gate()
    with serving() as house:
        model, _ = house.add(gate)
        looks: list[float] = []
        first = house.engine._sweep_once
        house.engine._sweep_once = lambda now: looks.append(now) or first(now)  # type: ignore
        wait_until(lambda: house.runners.on_accepted is not None)
        seen = len(looks)
        time.sleep(REST_SECONDS)
        assert len(looks) - seen <= 2
        running = house.submit(model, request())
        assert gate.entered.wait(20)
        assert house.runners.on_accepted is None
        late = house.submit(model, request(deadline=time.monotonic() + SWEEP_SECONDS))
        assert caller(late).wait()
        gate.open.set()
        assert caller(running).wait()
        wait_until(lambda: house.runners.on_accepted is not None)
    assert isinstance(caller(late).error(), DeadlineExpired)


def test_a_step_whose_turn_comes_by_what_was_dropped_is_run() -> None:
    """Nobody else looks: the step before it left the queue without a run."""
    state = StateTensor("h", "hn", 0, np.zeros((1, 1), np.float32))
    made = SequenceBatcher(
        HandBackend(echo),
        policy(),
        RunCost(1e-5),
        States(Rows(batched=True), [state]),
        SequenceLimits(60, 100),
    )
    model = Model("m", 1, HandBackend(echo), made, Batching(True, "for a test"))
    model.observe(Tally())
    looked: list[int] = []
    runners: Any = Runners(1, 0.0, print)
    runners.notify = lambda batcher: looked.append(batcher.waiting_rows)
    engine = Engine(Router(), runners, lambda: [model])
    steps = [request([1], deadline=deadline) for deadline in (math.inf, time.monotonic() + 100, math.inf)]
    for each in steps:
        each.sequence = Step("a", start=True)
        engine.submit(model.batcher, each)
    looked.clear()
    engine.cancel(model, steps[0])
    assert looked == [1]
    engine._expire(model, time.monotonic() + 101)
    assert looked == [1, 1]
    engine._expire(model, time.monotonic())
    assert looked == [1, 1], "nothing was dropped"
    assert made.backlog() == (1, 0)
    assert [type(caller(each).error()) for each in steps[:2]] == [RequestCancelled, DeadlineExpired]
