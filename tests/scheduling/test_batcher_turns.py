"""Which requests never run, and when the others do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from penstock.core.errors import (
    DeadlineExpired,
    Overloaded,
    QueueFull,
    RequestCancelled,
    RequestError,
    Unavailable,
)
from penstock.core.request import CutReason, Request, Response
from penstock.core.tensors import Array
from penstock.scheduling.batcher import MARGIN_SECONDS, DynamicBatcher
from penstock.scheduling.cost import MOST_OUTPUT_BYTES, RunCost
from penstock.scheduling.execution.failures import LONGEST_RETRY_SECONDS
from support.work import (
    Caller,
    HandBackend,
    Tally,
    assert_adds_up,
    batcher,
    caller,
    echo,
    policy,
    put_late,
    request,
    run_all,
)

# Cancelled, late and refused


def test_cancelled_before_its_turn_it_is_not_run() -> None:
    made, tally = batcher(echo)
    gone, fine = request([1]), request([2])
    made.put(gone)
    made.put(fine)
    made.cancel(gone)
    assert made.waiting_rows == 1
    assert isinstance(caller(gone).error(), RequestCancelled)
    run_all(made)
    assert tally.batches == [1]
    assert caller(fine).output().item() == 2.0
    assert_adds_up(tally, [gone, fine])


def test_cancelled_because_its_deadline_passed_it_counts_as_that() -> None:
    made, tally = batcher(echo)
    (gone,) = put_late(made, lambda deadline: request(deadline=deadline))
    made.cancel(gone)
    assert isinstance(caller(gone).error(), DeadlineExpired)
    assert [type(error) for _, error in tally.failures] == [DeadlineExpired]


def test_cancelled_while_it_runs_it_is_not_answered() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        made.cancel(gone)
        return echo(outputs, inputs)

    made, tally = batcher(run)
    fine, gone = request([1]), request([2])
    run_all(made, fine, gone)
    assert caller(gone).results == []
    assert caller(fine).output().item() == 1.0
    assert [type(error) for _, error in tally.failures] == [RequestCancelled]
    assert tally.done == [fine]


def test_cancelled_while_the_batch_is_answered_it_is_counted_once() -> None:
    """A stream that ends when it gets an answer cancels the rest, and this answer too."""
    made, tally = batcher(echo)
    requests: list[Request] = []

    class Leaving(Caller):
        def __call__(self, result: object) -> None:
            super().__call__(result)  # type: ignore[arg-type]
            for each in requests:
                made.cancel(each)

    requests += [request(reply=Leaving()), request()]
    run_all(made, *requests)
    assert isinstance(caller(requests[0]).results[0], Response)
    assert caller(requests[1]).results == []
    assert tally.done == requests[:1]
    assert len(tally.failures) == 1


def test_cancelled_twice_or_after_the_answer_nothing_more_happens() -> None:
    made, tally = batcher(echo)
    twice, after = request(), request()
    made.put(twice)
    made.cancel(twice)
    made.cancel(twice)
    run_all(made, after)
    made.cancel(after)
    assert len(caller(twice).results) == len(caller(after).results) == 1
    assert (len(tally.done), len(tally.failures)) == (1, 1)


def test_late_requests_are_answered_by_the_sweep_and_only_then() -> None:
    made, tally = batcher(echo)
    (late,) = put_late(made, lambda deadline: request(rpc="PredictStream", deadline=deadline))
    made.put(fine := request())
    made.expire(late.deadline - 0.001)
    assert made.waiting_rows == 2
    made.expire(late.deadline)
    assert "the deadline passed after" in str(caller(late).error())
    assert caller(fine).results == []
    assert [rpc for rpc, _ in tally.failures] == ["PredictStream"]


def test_late_requests_are_answered_before_the_batch_is_run() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        answered.append(len(caller(late).results))
        return echo(outputs, inputs)

    answered: list[int] = []
    made, tally = batcher(run)
    (late,) = put_late(made, lambda deadline: request(deadline=deadline))
    made.put(fine := request())
    run_all(made)
    assert answered == [1]
    assert_adds_up(tally, [late, fine])


def test_late_requests_alone_count_as_something_done() -> None:
    made, tally = batcher(echo)
    (late,) = put_late(made, lambda deadline: request(deadline=deadline))
    assert made.run_once()
    assert tally.batches == []
    assert isinstance(caller(late).error(), DeadlineExpired)


def test_a_full_queue_says_when_to_try_again() -> None:
    backend = HandBackend(echo)
    made = DynamicBatcher(
        backend, policy(queue_rows=20, max_rows=8, runs_in_parallel=2), RunCost(0.5, 8, 1.0)
    )
    made.put(request([0] * 17))
    with pytest.raises(QueueFull) as full:
        made.put(request([0] * 4))
    assert full.value.retry_after_seconds == pytest.approx(3 * 1.0 / 2), "three batches, two at a time"


def test_when_to_try_again_is_never_far_off() -> None:
    made = DynamicBatcher(HandBackend(echo), policy(queue_rows=1), RunCost(1.0))
    made.put(request(rows=2**60))
    with pytest.raises(QueueFull) as full:
        made.put(request())
    assert full.value.retry_after_seconds == LONGEST_RETRY_SECONDS


def test_a_request_that_comes_too_late_is_refused() -> None:
    made, _ = batcher(echo)
    with pytest.raises(DeadlineExpired):
        made.put(request(deadline=time.monotonic() - 1))


def test_fail_all_ends_what_waits_and_nothing_that_runs() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        made.fail_all(Unavailable("stopping"))
        return echo(outputs, inputs)

    made, tally = batcher(run, max_rows=2)
    requests = [request([value]) for value in range(7)]
    run_all(made, *requests)
    assert [type(caller(each).results[0]) for each in requests] == [Response] * 2 + [Unavailable] * 5
    assert_adds_up(tally, requests)


# When to run


def test_the_next_batch_is_expected_to_cost_what_its_rows_cost() -> None:
    made = DynamicBatcher(HandBackend(echo), policy(max_rows=8), RunCost(1.0, 9, 9.0))
    made.put(request([0] * 3))
    assert made.expected_seconds() == pytest.approx(3.0)
    made.put(request([0] * 30))
    assert made.expected_seconds() == pytest.approx(8.0), "the request of 3 rows, and what fits beside it"


def test_a_request_larger_than_a_batch_is_expected_to_cost_all_of_its_rows() -> None:
    """Else the polling thread would run a thousand rows that it takes for thirty-two."""
    made = DynamicBatcher(HandBackend(echo), policy(max_rows=8), RunCost(1.0, 9, 9.0))
    made.put(request([0] * 1000))
    assert made.expected_seconds() == pytest.approx(1000.0)


def test_the_cost_is_learned_from_runs() -> None:
    made, _ = batcher(echo, expected_seconds=1.0)
    before = made.expected_seconds()
    run_all(made, request())
    assert made.expected_seconds() < before


def held_back(*gaps: float, **changes: Any) -> tuple[DynamicBatcher, float]:
    """A batcher that requests came to with these gaps between them, and when the last one did."""
    made, _ = batcher(echo, **{"max_delay_seconds": 10.0, "max_rows": 8, "expected_seconds": 0.1, **changes})
    now = time.monotonic()
    made.put(request(arrived=now))
    for gap in gaps:
        now += gap
        made.put(request(arrived=now))
    return made, now


def test_a_batch_is_held_back_while_it_is_about_to_be_filled() -> None:
    made, now = held_back(0.5, 0.5, 0.5)
    # Four more come within two seconds, if they come as they have; so it waits no longer than four.
    assert made.due(now) == pytest.approx(now + 4.0)


def test_a_batch_is_not_held_back_where_waiting_would_not_fill_it() -> None:
    made, now = held_back(3.0)
    assert made.due(now) == now, "six more would take 18 seconds, and ten is the most"
    alone, arrived = held_back()
    assert alone.due(arrived) == arrived, "nobody knows how fast requests come"


def test_a_batch_is_held_back_for_the_delay_at_most_and_not_beyond_a_deadline() -> None:
    made, now = held_back(1.0, 1.0)
    assert made.due(now) == pytest.approx(now - 2.0 + 10.0)
    made.put(request(arrived=now, deadline=now + 3.0))
    assert made.due(now) == pytest.approx(now + 3.0 - 0.2 - MARGIN_SECONDS)


def test_silence_ends_the_waiting() -> None:
    made, now = held_back(0.1, 0.1)
    assert made.due(now) == pytest.approx(now + 1.0)
    assert made.due(now + 3.0) < now + 3.0, "five more should have come in half a second"


def test_nothing_is_held_back_once_the_server_stops() -> None:
    made, now = held_back(0.5, 0.5)
    assert made.due(now) > now
    made.drain()
    assert made.due(now) == now


def test_a_full_batch_is_not_held_back() -> None:
    made, now = held_back(*[0.1] * 7)
    assert made.due(now) == now


def test_where_no_more_may_wait_nothing_is_held_back() -> None:
    made, now = held_back(*[0.1] * 4, queue_rows=5)
    assert made.due(now) == now


def test_why_a_batch_has_no_more_rows_is_known() -> None:
    seen: list[CutReason] = []
    made, tally = batcher(echo, max_rows=2, expected_seconds=0.1)
    tally.batch_done = lambda requests, run, answered: seen.append(run.cut_reason)  # type: ignore[method-assign]
    run_all(made, request(), request(), request())
    assert seen == [CutReason.FULL, CutReason.FREE]
    dear = DynamicBatcher(HandBackend(echo), policy(), RunCost(0.1, 2, 0.2))
    dear.observer = tally
    run_all(dear, request(deadline=time.monotonic() + 0.15), request(), request([0.0] * 9))
    assert seen[2:] == [CutReason.DEADLINE, CutReason.FULL, CutReason.FULL]


def test_what_was_held_back_or_left_over_says_so() -> None:
    seen: list[CutReason] = []
    made, now = held_back(0.5, 0.5)
    tally = Tally()
    tally.batch_done = lambda requests, run, answered: seen.append(run.cut_reason)  # type: ignore[method-assign]
    made.observer = tally
    made.due(now)
    run_all(made)
    run_all(made, request())
    made.drain()
    run_all(made, request())
    assert seen == [CutReason.DELAY, CutReason.FREE, CutReason.DRAIN]


# Requests that are rejected on arrival


def test_what_would_be_answered_too_late_is_refused_at_once() -> None:
    made = DynamicBatcher(HandBackend(echo), policy(max_rows=8), RunCost(1.0))
    now = time.monotonic()
    for _ in range(24):
        made.put(request(arrived=now))
    made.put(request(arrived=now, deadline=now + 4.01, priority=-1))
    with pytest.raises(
        Overloaded, match=r"expected in 4000\.0 ms \(25 rows ahead, .* deadline is in 3500\.0 ms"
    ) as it:
        made.put(request(arrived=now, deadline=now + 3.5, priority=-1))
    assert it.value.retry_after_seconds == pytest.approx(1.0), "before a run has ended, nothing changes"
    with pytest.raises(Overloaded) as it:
        made.put(request(arrived=now, deadline=now + 1.5, priority=-1))
    assert it.value.retry_after_seconds == pytest.approx(2.5)


def test_a_run_that_goes_on_is_waited_for() -> None:
    refused: list[RequestError] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        made.put(request(deadline=time.monotonic() + 5.0))
        made.put(request(deadline=time.monotonic() + 3.5))
        try:
            made.put(request(deadline=time.monotonic() + 1.5))
        except Overloaded as error:
            refused.append(error)
        return echo(outputs, inputs)

    made = DynamicBatcher(HandBackend(run), policy(max_rows=1), RunCost(1.0))
    made.put(request())
    assert made.run_once()
    assert len(refused) == 1


def test_nobody_is_refused_on_a_guess_or_where_nothing_waits() -> None:
    unknown = DynamicBatcher(HandBackend(echo), policy(), RunCost(1.0, measured=False))
    known = DynamicBatcher(HandBackend(echo), policy(), RunCost(1.0))
    for made in (unknown, known, unknown):
        made.put(request(deadline=time.monotonic() + 0.5))


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_runs_go_on_than_may(parallel: int) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        entered.release()
        assert gate.wait(20)
        return echo(outputs, inputs)

    made, _ = batcher(run, max_rows=1, runs_in_parallel=parallel)
    requests = [request() for _ in range(5)]
    for each in requests:
        made.put(each)
    assert made.wants_another_runner() == (parallel > 1)
    threads = [threading.Thread(target=made.run_once) for _ in range(parallel)]
    for thread in threads:
        thread.start()
        assert entered.acquire(timeout=20)
    assert made.running_batches == parallel
    assert not made.may_run()
    assert not made.wants_another_runner()
    assert not made.run_once(), "one more may not begin"
    assert made.waiting_rows == 5 - parallel
    gate.set()
    for thread in threads:
        thread.join()
    assert made.running_batches == 0
    run_all(made)
    assert all(len(caller(each).results) == 1 for each in requests)


def test_another_runner_is_wanted_only_for_more_than_a_batch() -> None:
    made, _ = batcher(echo, max_rows=4, runs_in_parallel=2)
    made.put(request([0] * 4))
    assert not made.wants_another_runner()
    made.put(request())
    assert made.wants_another_runner()


@pytest.mark.parametrize("key", [None, ((64,),)])
def test_another_runner_is_wanted_for_large_answers_that_run_alone(key: object) -> None:
    made, _ = batcher(echo, runs_in_parallel=2)
    made.costs.of(((8,),)).learn(1, 1.0)  # if shapes differ, each size has a line of its own
    made.costs.of(key).note_outputs(1, MOST_OUTPUT_BYTES)
    made.put(request(shape_key=key))
    assert not made.wants_another_runner()
    made.put(request(shape_key=key))
    assert made.wants_another_runner()


def test_what_cannot_be_in_time_any_more_is_told_so() -> None:
    made, _ = batcher(echo, expected_seconds=10.0)
    hopeless, fine = request(deadline=time.monotonic() + 5.0), request()
    made.put(hopeless)
    made.put(fine)
    made.run_once()
    words = str(caller(hopeless).error())
    assert "the deadline cannot be met: " in words
    assert "ms left, and a run is expected to take longer" in words
    assert caller(fine).output().item() == 0.0
