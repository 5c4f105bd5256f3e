"""Batches are verified in idle time; a model whose rows affect each other runs alone from then on."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from penstock.backends.backend import RunControl
from penstock.core.errors import ModelFailed
from penstock.core.request import Request, Step
from penstock.core.tensors import Array
from penstock.models.model import Batching
from penstock.protocols.tensors import layout
from penstock.scheduling import batch_watch, verification
from penstock.scheduling.packing.padding import PaddedRows, PaddingPlan
from penstock.scheduling.packing.rows import Rows, RowsAlong
from penstock.scheduling.packing.states import States, StateTensor
from support.verified import House
from support.work import (
    MadeRequest,
    RunByHand,
    assert_adds_up,
    caller,
    echo,
    request,
    run_all,
    signature_of,
    spec,
)

LARGE = 1000.0
"""A value above this makes the rows of a batch affect each other."""


def mixes_if_large(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    """y = x, or twice as much in a batch with a value above `LARGE`."""
    x = inputs["x"]
    return [x * np.float32(1 + (x.max() > LARGE)) for _ in outputs]


def drops_negative(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    """y = the rows of x that are not negative."""
    x = inputs["x"]
    return [x[x[:, 0] >= 0] for _ in outputs]


def answers(requests: Sequence[Request]) -> list[float]:
    return [float(each) for one in requests for each in caller(one).output().ravel()]


def test_a_batch_that_agrees_is_verified_and_let_go() -> None:
    house = House(mixes_if_large)
    house.ask(1, 2, 3)
    assert house.kept == 1
    house.verify()
    assert (house.tally.events, house.kept) == (["verified"], 0)
    assert house.model.batching.enabled
    assert house.tally.batches == [3], "runs for verification are not counted"


def test_a_model_that_mixes_runs_alone_from_then_on() -> None:
    house = House(mixes_if_large)
    assert answers(house.ask(1, 2, 2000)) == [2, 4, 4000]
    house.verify()
    assert house.tally.events == ["mismatch"]
    assert answers(house.ask(1, 2, 2000)) == [1, 2, 4000]
    assert house.tally.batches == [3, 1, 1, 1]
    assert (house.model.batching.enabled, house.batcher.policy.batched) == (False, False)
    reason = "seen on live requests: output y depends on the other rows of a batch (it differs by 5.0e-04)"
    assert house.model.batching.reason == reason
    assert house.kept == 0


def test_what_waits_when_it_is_found_runs_alone() -> None:
    house = House(mixes_if_large)
    house.ask(1, 2000)
    waiting: list[Request] = [request([each]) for each in (1.0, 2000.0)]
    for each in waiting:
        house.batcher.put(each)
    house.verify(lambda: True)
    run_all(house.batcher)
    assert answers(waiting) == [1, 4000]
    assert house.tally.events == ["mismatch"]


def test_a_batch_that_was_taken_before_it_is_found_is_run_in_its_parts() -> None:
    house = House(mixes_if_large, runs_in_parallel=2)
    taken = house.batcher._queue.take

    def found_meanwhile(*arguments: Any) -> Any:
        batch = taken(*arguments)
        house.batcher._queue.take = taken  # type: ignore[method-assign]
        house.verify(lambda: True)
        return batch

    house.ask(1, 2000)
    house.batcher._queue.take = found_meanwhile  # type: ignore[method-assign]
    requests = house.ask(1, 2, 2000)
    assert answers(requests) == [1, 2, 4000]
    assert_adds_up(house.tally, [*house.tally.done[:2], *requests])


def test_requests_of_several_rows_stay_together() -> None:
    """Alone, each gets what the model gives for its rows."""
    house = House(mixes_if_large)
    house.ask([1, 2], [3, 2000])
    house.verify()
    assert house.tally.events == ["mismatch"]
    assert answers(house.ask([1, 2000], [3])) == [2, 4000, 3]


def test_a_model_that_runs_alone_takes_what_any_such_model_takes() -> None:
    signature = signature_of([spec("x"), spec("w", ("N",))], [spec("y")])
    house = House(mixes_if_large, signature=signature)
    inputs = {"x": np.zeros((2, 1), np.float32), "w": np.zeros(2, np.float32)}
    assert layout(house.model, inputs) == (2, None)
    run_all(house.batcher, *(request({"x": np.float32([[each]])}) for each in (1, 2000)))
    house.verify()
    assert layout(house.model, {**inputs, "w": np.zeros(3, np.float32)}) == (1, None)
    assert (house.model.attachments, house.model.scalars) == ({}, ())


# Only while there is nothing else to do


def test_nothing_is_verified_while_work_waits_or_runs() -> None:
    house = House(mixes_if_large)
    house.ask(1, 2)
    house.batcher.put(request([3.0]))
    house.verify()
    assert (house.kept, house.tally.events) == (1, [])
    run_all(house.batcher)
    house.verify()
    assert house.tally.events == ["verified"]


def test_a_run_that_begins_meanwhile_interrupts_it() -> None:
    runs: list[RunControl | None] = []
    later: list[Request] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        control = house.backend.stop
        runs.append(control)
        if house.verifier.active and not later:
            assert control is not None
            control.stop_with(lambda: None)
            later.append(request([9.0]))
            run_all(house.batcher, *later)
            assert control.stopped, "work has come"  # type: ignore[attr-defined]
            raise ModelFailed("ended early")
        return echo(outputs, inputs)

    house = House(run, runs_in_parallel=2)
    house.ask(1, 2, 3)
    house.verify()
    assert (house.kept, house.tally.events) == (1, [])
    assert len(runs) == 1 + 1 + 1, "the batch, one run that was ended, and the request that came"
    assert not house.verifier.active
    house.verify()
    assert house.tally.events == ["verified"]


def test_a_batch_that_is_interrupted_again_and_again_is_let_go() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if house.verifier.active:
            house.verifier.interrupt()
            raise ModelFailed("ended early")
        return echo(outputs, inputs)

    house = House(run)
    house.ask(1, 2)
    for _ in range(batch_watch.MOST_INTERRUPTIONS):
        assert house.kept == 1
        house.verify()
    assert (house.kept, house.tally.events) == (0, [])


def test_it_takes_a_hundredth_of_the_time() -> None:
    """Runs take a second each here: one starts every 100 seconds, and what has been run is remembered."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if house.verifier.active:
            times.append(house.clock.now)
            house.clock.wait(1.0)
        return echo(outputs, inputs)

    times: list[float] = []
    house = House(run)
    house.clock.wait(1000)  # no more than a little is saved
    house.ask(1, 2, 3)
    while not house.tally.events and house.clock.now < 1e4:
        house.clock.wait(0.02)
        house.verifier.look(lambda: True)
        if house.verifier._wake.is_set():
            house.verifier._wake.clear()
            house.verifier.work()
    assert house.tally.events == ["verified"]
    assert len(times) == 3
    assert times[0] < 1001
    assert np.diff(times) == pytest.approx([100, 100], abs=3)
    assert house.verifier.spent_seconds == pytest.approx(3)


def test_runs_on_several_cores_take_more_of_the_time() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        house.clock.wait(1.0)
        return echo(outputs, inputs)

    house = House(run, cores=4)
    house.ask(1, 2)
    house.verify()
    assert house.verifier.spent_seconds == 4


def test_the_thread_works_when_it_is_woken_and_ends() -> None:
    house = House(mixes_if_large)
    verifier = house.verifier
    verifier.start()
    house.ask(1, 2)
    house.clock.wait()
    done = threading.Event()
    house.tally.on_event = lambda event, **facts: done.set()  # type: ignore[method-assign]
    verifier.look(lambda: True)
    assert done.wait(20)
    assert verifier.stop(20)
    assert house.errors == []


# Where the server is never idle


def never() -> bool:
    return False


def test_a_batch_of_an_unproven_model_waits_for_idle_time_only_so_long() -> None:
    house = House(mixes_if_large, unproven=True)
    house.clock.wait(1000)
    house.ask(1, 2, 2000)
    house.verifier.look(never)
    assert not house.verifier._wake.is_set()
    house.clock.wait(verification.LONGEST_WAIT)
    house.verifier.look(never)
    house.verifier.work()
    assert house.tally.events == ["mismatch"]
    assert not house.model.batching.enabled


def test_a_batch_of_a_proven_model_waits_for_idle_time() -> None:
    house = House(mixes_if_large)
    house.ask(1, 2)
    for _ in range(3):
        house.verify(never)
    assert (house.kept, house.tally.events) == (1, [])


def test_other_runs_do_not_interrupt_an_overdue_check() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        control = house.backend.stop
        if control is not None and not hasattr(control, "batch") and not later:
            later.append(request([9.0]))
            run_all(house.batcher, *later)
            assert not control.stopped  # type: ignore[attr-defined]
        return echo(outputs, inputs)

    later: list[Request] = []
    house = House(run, unproven=True, runs_in_parallel=2)
    house.ask(1, 2, 3)
    house.verify(never)
    assert later
    assert house.tally.events == ["verified"]


def test_overdue_checks_take_a_hundredth_of_the_time_too() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        house.clock.wait(0.01)
        return echo(outputs, inputs)

    house = House(run, unproven=True)
    house.clock.wait(1000)
    started = house.clock.now
    for _ in range(3000):
        if not house.kept:
            house.ask(1, 2, 3)
        house.clock.wait(0.02)
        house.verifier.look(never)
        if house.verifier._wake.is_set():
            house.verifier._wake.clear()
            house.verifier.work()
    assert len(house.tally.events) > 10
    share = house.verifier.spent_seconds / (house.clock.now - started)
    assert 0.5 * verification.SHARE < share <= 1.1 * verification.SHARE


def test_batches_of_an_unproven_model_are_kept_by_time_as_well() -> None:
    """There is a batch in each millisecond, and one in a hundred thousand is asked for."""
    house = House(mixes_if_large, share=1e-5, unproven=True)
    kept = []
    for number in range(5000):
        house.clock.wait(0.001)
        house.ask(1, 2)
        if house.kept:
            kept.append(number)
            house.verifier.has_kept(next(iter(house.verifier._kept)), 0)
            house.batcher._execution._watch._drop()  # type: ignore[union-attr]
    assert max(np.diff(kept)) < 400, "about one in 0.1 s"
    assert len(kept) < 200


# Which batches


def test_a_share_of_the_batches_is_kept_and_the_first_ones_more_often() -> None:
    house = House(mixes_if_large, share=0.001)
    kept = []
    for number in range(6000):
        house.ask(1, 2)
        if house.kept:
            kept.append(number)
            house.verify()
    assert kept[0] == 0
    assert len([each for each in kept if each < 100]) >= 3
    assert 8 <= len(kept) <= 40


def test_none_is_kept_where_the_share_is_0_or_the_model_is_not_batched() -> None:
    for house in (House(mixes_if_large, share=0.0), House(mixes_if_large, batched=False)):
        house.ask(1, 2)
        assert house.kept == 0


def test_requests_that_ran_alone_are_not_kept() -> None:
    house = House(mixes_if_large)
    house.ask(1)
    assert house.kept == 0
    house.ask(1, 2)
    assert house.kept == 1


def along(*values: float) -> MadeRequest:
    """A request of one row for each value, along the second axis."""
    x = np.array([values, values], np.float32)
    return request({"x": x}, rows=len(values))


@pytest.mark.parametrize("largest", [3.0, 2 * LARGE])
def test_rows_along_another_axis_are_verified_too(largest: float) -> None:
    """Requests of one row and of several; their model affects the rows for large values only."""
    house = House(mixes_if_large, packing=RowsAlong({"x": 1, "y": 1}))
    run_all(house.batcher, along(1, 2), along(3), along(4, largest))
    assert house.kept == 1
    house.verify()
    assert not house.errors
    assert house.batcher.policy.batched is (largest < LARGE)
    assert house.tally.events == ["verified" if largest < LARGE else "mismatch"]
    lone = along(4, largest)
    run_all(house.batcher, along(1, 2), lone)
    assert caller(lone).output().shape == (2, 2)


def test_only_one_batch_is_kept_and_only_a_part_of_a_large_one() -> None:
    house = House(mixes_if_large, max_rows=256)
    house.ask(*map(float, range(200)))
    kept = next(iter(house.verifier._kept))
    assert len(kept._kept.requests) == batch_watch.MOST_REQUESTS  # type: ignore[attr-defined]
    house.ask(1, 2)
    assert house.kept == 1
    house.verify()
    assert house.tally.events == ["verified"]


def test_batches_that_take_much_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "KEPT_BYTES", 16)
    house = House(mixes_if_large)
    house.ask(1, 2, 3)
    assert house.kept == 0
    house.ask(1, 2)
    assert house.kept == 1


def test_all_models_together_keep_no_more_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "ALL_KEPT_BYTES", 30)
    houses = [House(mixes_if_large) for _ in range(3)]
    for each in houses:
        each.watch(houses[0].verifier, 1.0)
        each.ask(1, 2)
    assert houses[0].kept == 1
    houses[0].verify()
    houses[1].ask(1, 2)
    assert houses[0].kept == 1


def test_nothing_of_a_batch_is_held_once_it_was_verified() -> None:
    house = House(lambda outputs, inputs: [inputs["x"] + 0])
    requests = house.ask(1, 2)
    held = [weakref.ref(each.inputs["x"]) for each in requests]
    held += [weakref.ref(caller(each).results[0].run.outputs["y"]) for each in requests]  # type: ignore[union-attr]
    requests.clear()
    house.tally.done.clear()
    gc.collect()
    assert all(each() is not None for each in held), "it is kept"
    house.verify()
    gc.collect()
    assert [each() for each in held] == [None] * 4


# What is compared


def rounding(difference: float) -> RunByHand:
    """A model that rounds differently in a batch."""
    return lambda outputs, inputs: [inputs["x"] * (1 + difference * (len(inputs["x"]) > 1))]


@pytest.mark.parametrize(("difference", "event"), [(1e-6, "verified"), (1e-3, "mismatch")])
def test_rounding_is_no_difference(difference: float, event: str) -> None:
    house = House(rounding(difference))
    house.ask(1, 2)
    house.verify()
    assert house.tally.events == [event]


def test_an_exact_model_is_held_to_it_bit_for_bit() -> None:
    house = House(rounding(1e-6), batching=Batching(True, "for a test", exact=True))
    house.ask(1, 2)
    house.verify()
    assert house.tally.events == ["mismatch"]
    assert "it differs by" in house.model.batching.reason


def test_another_shape_is_a_difference() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [np.zeros((len(inputs["x"]), int(inputs["x"].max())), np.float32)]

    house = House(run)
    house.ask(1, 3)
    house.verify()
    reason = "output y depends on the other rows of a batch (it has shape [1, 3], and [1, 1] alone)"
    assert house.model.batching.reason == f"seen on live requests: {reason}"


def test_a_model_that_draws_random_numbers_is_not_verified_any_more() -> None:
    chance = np.random.default_rng(0)
    house = House(lambda outputs, inputs: [chance.random(inputs["x"].shape).astype(np.float32)])
    house.ask(1, 2)
    house.verify()
    assert (house.tally.events, house.model.batching.enabled) == (["unsteady"], True)
    house.ask(1, 2)
    assert house.kept == 0


def test_a_model_that_fails_on_a_request_alone_says_nothing() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if house.verifier.active:
            raise ModelFailed("no memory")
        return echo(outputs, inputs)

    house = House(run)
    house.ask(1, 2)
    house.verify()
    assert (house.kept, house.tally.events, house.errors) == (0, [], [])


def test_padded_requests_are_compared_with_themselves_unpadded() -> None:
    plan = PaddingPlan(
        {"x": np.dtype(np.float32), "m": np.dtype(np.int64)}, {"x": 1}, {"x": 0}, {"y": (1,)}, (4,), "m"
    )
    signature = signature_of([spec("x", ("N", "L")), spec("m", ("N", "L"))], [spec("y", ("N", "L"))])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x, mask = inputs["x"], inputs["m"]
        assert x.shape == mask.shape
        counted = mask if x.max() < LARGE else np.ones_like(mask)  # large values are not masked
        return [x + counted.sum(axis=1, keepdims=True).astype(np.float32)]

    def asked(*lengths: int, value: float = 1.0) -> list[Request]:
        return [request({"x": np.full((1, each), value, np.float32)}, shape_key=4) for each in lengths]

    house = House(run, packing=PaddedRows(plan), signature=signature)
    run_all(house.batcher, *asked(1, 3))
    house.verify()
    assert house.tally.events == ["verified"]
    run_all(house.batcher, *asked(1, 3, value=2000.0))
    house.verify()
    assert house.tally.events == ["verified", "mismatch"]
    after = asked(1, 3, value=2000.0)
    run_all(house.batcher, *after)
    assert answers(after) == [2001, 2003, 2003, 2003]
    given = request({"x": np.ones((2, 3), np.float32), "m": np.int64([[1, 0, 0], [1, 1, 0]])}, rows=1)
    run_all(house.batcher, given)
    assert answers([given]) == [2, 2, 2, 3, 3, 3]


STATE = StateTensor("sum", "sumN", 1, np.zeros((1, 1, 1), np.float32))


def sequences(mixes: bool) -> House:
    """y = the sum of the x of a sequence; the states of large values may mix."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        after = inputs["sum"] + inputs["x"].reshape(1, -1, 1)
        state = after + 1 if mixes and after.max() > LARGE and after.shape[1] > 1 else after
        return [{"y": after[0], "sumN": state}[name] for name in outputs]

    signature = signature_of([spec("x"), spec("sum", (1, "N", 1))], [spec("y"), spec("sumN", (1, "N", 1))])
    return House(run, packing=States(Rows(batched=True), [STATE]), signature=signature)


def steps(house: House, *values: float) -> list[float]:
    """The answers to a step of each of some sequences."""
    requests = [request([each]) for each in values]
    for number, each in enumerate(requests):
        each.sequence = Step(f"s{number}", start=house.tally.done == [])
    run_all(house.batcher, *requests)
    return answers(requests)


def test_steps_go_on_from_the_states_that_they_had() -> None:
    house = sequences(mixes=False)
    for expected in ([1, 2000], [2, 4000], [3, 6000]):
        assert steps(house, 1, 2000) == expected
        house.verify()
    assert house.tally.events == ["verified"] * 3


def test_states_that_mix_are_found_and_sequences_go_on_alone() -> None:
    house = sequences(mixes=True)
    assert steps(house, 1, 2000) == [1, 2000]
    house.verify()
    assert house.tally.events == ["mismatch"]
    assert "sumN" in house.model.batching.reason
    assert steps(house, 1, 2000) == [3, 4001], "from the states that were kept"
    assert house.tally.batches == [2, 1, 1]


# Outputs of another length


def test_a_model_that_drops_rows_answers_each_caller_alone() -> None:
    house = House(drops_negative, max_rows=32, runs_in_parallel=2)
    runner = threading.Event()

    def work() -> None:
        while not runner.is_set():
            house.batcher.run_once()

    def ask(number: int) -> list[float]:
        value = float(number if number % 3 else -number)
        asked = request([value, 1.0])
        house.batcher.put(asked)
        assert caller(asked).wait()
        return answers([asked])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for each in threads:
        each.start()
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(1, 201)))
    runner.set()
    for each in threads:
        each.join()
    assert got == [[number, 1] if number % 3 else [1] for number in range(1, 201)]
    assert (house.tally.failures, house.tally.events) == ([], ["mismatch"])
    assert "output y has shape" in house.model.batching.reason


def test_one_request_that_is_dropped_is_answered_with_what_is_left() -> None:
    house = House(drops_negative)
    (only,) = house.ask([-1, 2])
    assert answers([only]) == [2]
    assert house.tally.events == ["mismatch"]
    assert_adds_up(house.tally, [only])


def test_callers_that_go_while_it_is_found_are_told_once() -> None:
    requests: list[Request] = [request([float(each)]) for each in range(-4, 4)]

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 1:
            for each in requests[::2]:
                house.batcher.cancel(each)
        return drops_negative(outputs, inputs)

    house = House(run)
    run_all(house.batcher, *requests)
    assert answers(requests[1::2]) == [1, 3]
    assert [caller(each).results for each in requests[::2]] == [[]] * 4
    assert_adds_up(house.tally, requests)
    assert house.tally.events == ["mismatch"]


def test_a_batch_whose_callers_have_all_gone_is_not_run_again() -> None:
    runs = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        for each in requests:
            house.batcher.cancel(each)
        return drops_negative(outputs, inputs)

    requests: list[Request] = [request([-1.0]), request([2.0])]
    house = House(run)
    run_all(house.batcher, *requests)
    assert runs == [2]
    assert_adds_up(house.tally, requests)
    assert not house.batcher.breaker.is_open
