"""Batches find a thread: the polling thread where they are short, a runner where they are not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from penstock.core.request import Request, Response
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.runners import Runners
from support.work import Caller, RunByHand, batcher, caller, echo, request, wait_until

SHORT, BORDER, LONG = 1e-6, 1e-3, 1.0


class Polling:
    """A polling thread: does what it is told, then its share of the work, as a transport's thread does."""

    def __init__(self) -> None:
        self.runners: Runners
        self._told: list[Callable[[], object]] = []
        self._wake = threading.Event()
        self._stopped = False
        self.thread = threading.Thread(target=self._poll, name="polling")

    def tell(self, function: Callable[[], object]) -> None:
        self._told.append(function)
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self.thread.join()

    def _poll(self) -> None:
        more = False
        while not self._stopped:
            if not more:
                self._wake.wait()
                self._wake.clear()
            while self._told:
                self._told.pop()()
            more = self.runners.work_inline()


@contextmanager
def running(
    threads: int = 2, border: float = BORDER
) -> Iterator[tuple[Runners, Polling, list[BaseException]]]:
    """Runners at work, and their polling thread; nothing may have failed unless the list is emptied."""
    failures: list[BaseException] = []
    polling = Polling()
    polling.runners = runners = Runners(threads, border, failures.append)
    polling.thread.start()
    runners.start(polling.thread.ident)
    try:
        yield runners, polling, failures
    finally:
        polling.stop()
        runners.stop()
    assert failures == []


class Where:
    """A run that remembers which threads it was called on, and uses that many seconds of CPU."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.threads: list[str] = []
        self._seconds = seconds

    def __call__(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        self.threads.append(threading.current_thread().name.rsplit("-", 1)[0])
        end = time.thread_time() + self._seconds
        while time.thread_time() < end:
            sum(range(1000))
        return echo(outputs, inputs)


def submit(runners: Runners, made: DynamicBatcher, each: Request) -> Request:
    made.put(each)
    runners.notify(made)
    return each


@pytest.mark.parametrize(("expected", "name"), [(SHORT, "polling"), (LONG, "penstock-runner")])
def test_who_runs_a_batch_depends_on_its_expected_cost(expected: float, name: str) -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=expected)
    with running() as (runners, polling, _):
        polling.tell(lambda: submit(runners, made, sent))
        sent = request([7])
        assert caller(sent).wait()
    assert caller(sent).output().item() == 7.0
    assert where.threads == [name]


def test_a_held_back_batch_is_never_the_polling_threads() -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT, max_delay_seconds=0.01)
    sent = request()
    with running() as (runners, polling, _):
        polling.tell(lambda: submit(runners, made, sent))
        assert caller(sent).wait()
    assert where.threads == ["penstock-runner"]


def test_without_a_polling_thread_runners_do_it_all() -> None:
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT)
    failures: list[BaseException] = []
    runners = Runners(1, BORDER, failures.append)
    runners.start(None)
    try:
        assert caller(submit(runners, made, request())).wait()
    finally:
        runners.stop()
    assert where.threads == ["penstock-runner"]
    assert failures == []


def test_a_thread_that_takes_no_more_calls_leaves_no_work_behind() -> None:
    where, turns = Where(), [1, 2, 3]
    made, _ = batcher(where, expected_seconds=SHORT)
    sent = request()

    def turn() -> bool:
        turns.pop()
        return bool(turns)

    def serve() -> None:
        runners.join(lambda: None)
        submit(runners, made, sent)
        runners.take_turns(turn)
        runners.leave()

    with running() as (runners, _, _):
        serving = threading.Thread(target=serve, name="serving")
        serving.start()
        serving.join()
        assert caller(sent).wait()
    assert turns == []
    assert where.threads == ["penstock-runner"]


def test_other_threads_hand_over_to_runners() -> None:
    """A worker that has decoded a large message is not the polling thread."""
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT)
    with running() as (runners, _, _):
        assert caller(submit(runners, made, request())).wait()
    assert where.threads == ["penstock-runner"]


def test_the_polling_thread_takes_all_that_came_before_it_runs_anything() -> None:
    made, tally = batcher(echo, expected_seconds=SHORT, max_rows=8)
    requests = [request() for _ in range(8)]
    with running() as (runners, polling, _):

        def events() -> None:
            for each in requests:
                submit(runners, made, each)

        polling.tell(events)
        assert all(caller(each).wait() for each in requests)
    assert tally.batches == [8]


def test_a_batcher_moves_from_short_to_long_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that stands still during a run would make it the last one that the polling thread makes.
    monkeypatch.setattr("penstock.scheduling.runners.OVERRUN_SECONDS", 60.0)
    where = Where()
    made, _ = batcher(where, expected_seconds=SHORT)
    with running(border=0.0005) as (runners, polling, _):

        def answered_by() -> str:
            sent = request()
            polling.tell(lambda: submit(runners, made, sent))
            assert caller(sent).wait()
            return where.threads[-1]

        assert answered_by() == "polling"
        where._seconds = 0.002
        wait_until(lambda: answered_by() == "penstock-runner")
        where._seconds = 0.0
        wait_until(lambda: answered_by() == "polling")


def test_a_run_that_lets_something_out_is_reported_and_the_thread_lives() -> None:
    def broken(result: object) -> None:
        raise ZeroDivisionError

    for expected in (SHORT, LONG):
        made, _ = batcher(echo, expected_seconds=expected)
        with running(threads=1) as (runners, polling, failures):
            polling.tell(lambda made=made, runners=runners: submit(runners, made, request(reply=broken)))  # type: ignore[misc]
            wait_until(lambda failures=failures: failures)  # type: ignore[misc]
            assert isinstance(failures.pop(), ZeroDivisionError)
            after = request()
            polling.tell(lambda made=made, runners=runners, after=after: submit(runners, made, after))  # type: ignore[misc]
            assert caller(after).wait()


# Delay


def prime(made: DynamicBatcher, gap: float) -> None:
    """Makes it known how fast requests come; nothing waits any more."""
    for ago in (2, 1):
        each = request(arrived=time.monotonic() - ago * gap)
        made.put(each)
        made.cancel(each)


def test_a_request_is_held_back_while_its_batch_fills_and_not_much_longer() -> None:
    made, tally = batcher(echo, max_delay_seconds=1.0, max_rows=8)
    prime(made, 0.02)
    with running(threads=1) as (runners, _, _):
        requests = [submit(runners, made, request()) for _ in range(3)]
        assert all(caller(each).wait() for each in requests)
    (first, *_) = [each.results[0] for each in map(caller, requests)]
    assert isinstance(first, Response)
    assert tally.batches == [3]
    assert 0.1 < first.run.started - requests[0].arrived < 2.0


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    made, tally = batcher(echo, max_delay_seconds=60.0, max_rows=4)
    with running(threads=1) as (runners, _, _):
        requests = [submit(runners, made, request()) for _ in range(4)]
        assert all(caller(each).wait() for each in requests)
    assert tally.batches == [4]


def test_a_deadline_cuts_the_delay_short() -> None:
    """Also where an earlier request without one is being held back already."""
    made, _ = batcher(echo, max_delay_seconds=60.0, expected_seconds=0.1)
    with running(threads=1) as (runners, _, _):
        patient = submit(runners, made, request())
        hurried = submit(runners, made, request(deadline=time.monotonic() + 0.5))
        assert caller(hurried).wait()
        assert caller(patient).wait()
    assert isinstance(caller(hurried).results[0], Response)


def test_models_are_held_back_each_for_its_own_time() -> None:
    slow, _ = batcher(echo, max_delay_seconds=10.0)
    quick, _ = batcher(echo, max_delay_seconds=10.0)
    with running(threads=1) as (runners, _, _):
        prime(slow, 0.05)
        prime(quick, 0.005)
        first, second = submit(runners, slow, request()), submit(runners, quick, request())
        assert caller(second).wait()
        assert caller(first).results == []
        assert caller(first).wait()


def test_what_was_cancelled_while_held_back_wakes_nobody() -> None:
    where = Where()
    made, _ = batcher(where, max_delay_seconds=0.02)
    with running(threads=1) as (runners, _, _):
        gone = submit(runners, made, request())
        made.cancel(gone)
        wait_until(lambda: not runners._delayed)
        after = submit(runners, made, request())
        assert caller(after).wait()
    assert len(where.threads) == 1


# Many at once


def test_several_runners_share_a_model_that_may_run_in_parallel() -> None:
    meeting = threading.Barrier(2)

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        meeting.wait(20)  # passes only where two runs go on at once
        return echo(outputs, inputs)

    made, _ = batcher(run, expected_seconds=LONG, max_rows=1, runs_in_parallel=2)
    requests = [request() for _ in range(4)]
    with running(threads=2) as (runners, _, _):
        for each in requests:
            made.put(each)
        runners.notify(made)
        assert all(caller(each).wait() for each in requests)
    assert all(isinstance(caller(each).results[0], Response) for each in requests)


def test_a_long_run_does_not_keep_another_model_waiting() -> None:
    gate = threading.Event()

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert gate.wait(20)
        return echo(outputs, inputs)

    held, _ = batcher(run, expected_seconds=LONG)
    other, _ = batcher(echo, expected_seconds=LONG)
    with running(threads=2) as (runners, _, _):
        waiting = submit(runners, held, request())
        wait_until(lambda: held.running_batches)
        assert caller(submit(runners, other, request())).wait()
        gate.set()
        assert caller(waiting).wait()


def test_a_model_finds_a_thread_however_many_runs_another_has_going() -> None:
    gate = threading.Event()

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert gate.wait(20)
        return echo(outputs, inputs)

    greedy, _ = batcher(run, expected_seconds=LONG, max_rows=1, runs_in_parallel=4)
    other, _ = batcher(echo, expected_seconds=LONG)
    with running(threads=2) as (runners, _, _):
        waiting = [submit(runners, greedy, request()) for _ in range(6)]
        wait_until(lambda: greedy.running_batches == 2)
        assert caller(submit(runners, other, request())).wait()
        assert greedy.running_batches == 2, "spare threads are not for more runs of the same model"
        gate.set()
        assert all(caller(each).wait() for each in waiting)


def test_models_have_turns_by_their_weights() -> None:
    runners = Runners(1, BORDER, lambda error: None)
    heavy, light, slow = (
        batcher(echo, expected_seconds=seconds, weight=weight)[0]
        for seconds, weight in ((0.01, 3.0), (0.01, 1.0), (0.1, 1.0))
    )
    turns = []
    for each in (heavy, light, slow):
        each.put(request())
    for _ in range(80):
        for each in (heavy, light, slow):
            runners._enqueue(each)
        taken = runners._ready.take()
        assert taken is not None
        runners._ready.ended()
        turns.append(taken)
    assert turns.count(heavy) == pytest.approx(3 * turns.count(light), abs=3)
    assert turns.count(light) == pytest.approx(10 * turns.count(slow), abs=10)


@pytest.mark.parametrize("cores", [1, 2])
def test_models_get_as_much_as_their_weights_where_there_are_threads_for_all(cores: int) -> None:
    """A run of either takes all cores: what the spare threads let run beside it would take half of them."""

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        time.sleep(0.004)
        return echo(outputs, inputs)

    how: dict[str, Any] = {"expected_seconds": 0.004, "max_rows": 1, "cores": cores}
    made = {weight: batcher(run, weight=weight, **how) for weight in (3.0, 1.0)}
    with running(threads=cores) as (runners, _, _):
        waiting = [submit(runners, each, request()) for _ in range(60) for each, _ in made.values()]
        wait_until(lambda: not made[3.0][0].waiting_rows)
        done = len(made[1.0][1].done)
        assert all(caller(each).wait() for each in waiting)
    assert done == pytest.approx(20, abs=4)


def test_a_run_without_an_end_keeps_nobody_from_a_spare_thread() -> None:
    gate = threading.Event()

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert gate.wait(20)
        return echo(outputs, inputs)

    held, other = (
        batcher(run, expected_seconds=0.002)[0],
        batcher(echo, expected_seconds=0.002, max_rows=1)[0],
    )
    with running(threads=1) as (runners, _, _):
        waiting = submit(runners, held, request())
        wait_until(lambda: held.running_batches)
        assert all(caller(submit(runners, other, request())).wait() for _ in range(20))
        gate.set()
        assert caller(waiting).wait()


def test_who_has_been_away_has_saved_nothing_up() -> None:
    runners = Runners(1, BORDER, lambda error: None)
    busy, late = (batcher(echo, expected_seconds=0.01)[0] for _ in range(2))
    busy.put(request())
    for _ in range(50):
        runners._enqueue(busy)
        taken = runners._ready.take()
        assert taken is not None
        runners._ready.ended()
        assert taken is busy
    late.put(request())
    turns = []
    for _ in range(10):
        for each in (busy, late):
            runners._enqueue(each)
        taken = runners._ready.take()
        assert taken is not None
        runners._ready.ended()
        turns.append(taken)
    assert turns.count(busy) == 5


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (SHORT, {}),
        (LONG, {}),
        (SHORT, {"max_rows": 1, "runs_in_parallel": 2}),
        (LONG, {"runs_in_parallel": 3, "max_rows": 2}),
        (BORDER, {"max_rows": 3}),
        (SHORT, {"max_delay_seconds": 0.001, "max_rows": 4}),
    ],
)
def test_no_wake_up_is_lost(expected: float, changes: dict[str, Any]) -> None:
    """Producers on threads of their own and on the polling thread, against runs of every kind of length."""
    made, tally = batcher(Where(), expected_seconds=expected, **changes)
    requests: list[list[Request]] = [[] for _ in range(4)]

    def produce(mine: list[Request], seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(1000):
            mine.append(submit(runners, made, request(shape_key=chance.choice("AB"))))
            if chance.random() < 0.1:
                assert caller(mine[-1]).wait(), "a request was forgotten"

    def produce_on_polling() -> None:
        for _ in range(10):
            requests[0].append(submit(runners, made, request()))
        if len(requests[0]) < 1000:
            polling.tell(produce_on_polling)

    with running(threads=2) as (runners, polling, _):
        threads = [
            threading.Thread(target=produce, args=(mine, seed)) for seed, mine in enumerate(requests[1:])
        ]
        polling.tell(produce_on_polling)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(requests[0]) == 1000)
        everything = [each for mine in requests for each in mine]
        assert all(caller(each).wait() for each in everything), "a request was forgotten"
    assert all(len(caller(each).results) == 1 for each in everything)
    wait_until(lambda: len(tally.done) == len(everything))


# The end


def test_stop_misses_no_thread_that_is_about_to_wait() -> None:
    for _ in range(10):
        runners = Runners(1, BORDER, lambda error: None)
        stopper = threading.Thread(target=runners.stop, daemon=True)
        with runners._changed:  # both threads come as far as here, and one of them is first
            stopper.start()
            for thread in runners._threads:
                thread.start()
            time.sleep(0.005)  # too short a sleep hides a fault, and never makes one
        stopper.join(5)
        assert not stopper.is_alive(), "a runner thread waits for ever"


def test_stop_lets_a_run_finish_and_begins_none() -> None:
    gate = threading.Event()

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert gate.wait(20)
        return echo(outputs, inputs)

    made, _ = batcher(run, expected_seconds=LONG, max_rows=1)
    runners = Runners(1, BORDER, lambda error: None)
    runners.start(None)
    first = submit(runners, made, request([1]))
    wait_until(lambda: made.running_batches)
    second = submit(runners, made, request([2]))
    stopper = threading.Thread(target=runners.stop)
    stopper.start()
    wait_until(lambda: runners._stopping)
    gate.set()
    stopper.join(20)
    assert not stopper.is_alive()
    assert caller(first).output().item() == 1.0
    assert caller(second).results == []
    assert made.waiting_rows == 1


def test_stop_does_not_wait_for_a_delay() -> None:
    made, _ = batcher(echo, max_delay_seconds=60.0)
    started = time.monotonic()
    with running(threads=1) as (runners, _, _):
        submit(runners, made, request(reply=Caller()))
    assert time.monotonic() - started < 20


def test_stop_without_start() -> None:
    Runners(2, BORDER, lambda error: None).stop()


def runs_of(polling: Polling, runners: Runners, made: DynamicBatcher, count: int = 3) -> None:
    for _ in range(count):
        sent = request()
        polling.tell(lambda each=sent: submit(runners, made, each))
        assert caller(sent).wait()


def sleeping(where: Where, seconds: float) -> RunByHand:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        time.sleep(seconds)
        return where(outputs, inputs)

    return run


@pytest.mark.alone
def test_a_run_that_works_far_longer_than_expected_sends_the_model_to_the_runners() -> None:
    """What a run costs may depend on the values it gets: no median ever shows that."""
    where = Where(seconds=BORDER * 30)
    made, _ = batcher(where, expected_seconds=SHORT)
    with running() as (runners, polling, _):
        runs_of(polling, runners, made)
    assert where.threads == ["polling", "penstock-runner", "penstock-runner"]


def test_a_run_that_waits_long_sends_the_model_to_the_runners() -> None:
    where = Where()
    made, _ = batcher(sleeping(where, 0.15), expected_seconds=SHORT)
    with running() as (runners, polling, _):
        runs_of(polling, runners, made)
    assert where.threads == ["polling", "penstock-runner", "penstock-runner"]


def test_a_run_that_the_machine_holds_up_sends_nothing_away() -> None:
    where = Where()
    made, _ = batcher(sleeping(where, BORDER * 12), expected_seconds=SHORT)
    with running() as (runners, polling, _):
        runs_of(polling, runners, made, 2)
    assert where.threads == ["polling"] * 2
