"""What attacks on the scheduling found: each was a fault once."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from typing_extensions import override

from penstock.core.errors import DeadlineExpired, QueueFull, Unavailable
from penstock.core.request import Request, Step
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.estimates import WaitEstimate
from penstock.scheduling.execution.breaker import Breaker
from penstock.scheduling.packing.rows import Rows
from penstock.scheduling.packing.states import States, StateTensor
from penstock.scheduling.policy import Isolation
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.queue.priority_line import PriorityLine
from penstock.scheduling.runners import Runners
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import SequenceLimits, SequenceTable
from support.work import BOUND_SECONDS, HandBackend, MadeRequest, batcher, caller, echo, policy, request

IDLE_SECONDS = 10.0


class Stream:
    """Whoever owns sequences."""


def adding(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    after = inputs["sum"] + inputs["x"].reshape(1, -1, 1)
    return [{"y": after[0], "sumN": after}[name] for name in outputs]


def kept() -> States:
    return States(Rows(batched=True), [StateTensor("sum", "sumN", 1, np.zeros((1, 1, 1), np.float32))])


def sequenced(run: object = adding, total: QueueTotal | None = None, **changes: object) -> SequenceBatcher:
    backend = HandBackend(run)  # type: ignore[arg-type]
    bounds = SequenceLimits(IDLE_SECONDS, 100)
    return SequenceBatcher(backend, policy(**changes), RunCost(1e-5), kept(), bounds, total)


def step(
    key: object, value: float = 1, *, owner: object = None, start: bool = False, **how: object
) -> MadeRequest:
    made = request([value], **how)  # type: ignore[arg-type]
    made.sequence = Step(key, start, False, key if isinstance(key, Stream) else owner)
    return made


def run_all(made: SequenceBatcher, *steps: MadeRequest) -> None:
    for each in steps:
        made.put(each)
    while made.run_once():
        pass


def answer(each: MadeRequest) -> float:
    return float(caller(each).output()[0, 0])


STATE = (np.zeros(1, np.float32),)


def test_a_sequence_begun_again_on_a_new_stream_outlives_the_old_stream() -> None:
    """A client whose stream broke connects again and says start; then the server sees the old one end."""
    known, old, new = SequenceTable(SequenceLimits(IDLE_SECONDS, 10)), Stream(), Stream()
    first = step("a", owner=old, start=True)
    known.enter(first)
    known.advance(first, STATE)
    known.leave(first, 0.0, answered=True)
    again = step("a", owner=new, start=True)
    known.enter(again)
    known.release(old)  # while the step on the new stream is under way
    known.advance(again, STATE)
    known.leave(again, 0.0, answered=True)
    assert known.enter(step("a", owner=new))


def test_starts_that_fail_leave_nothing_of_a_stream() -> None:
    known, stream = SequenceTable(SequenceLimits(IDLE_SECONDS, 10)), Stream()
    known.release(stream)  # a worker that was decoding lets steps in all the same
    for number in range(5):
        failed = step(str(number), owner=stream, start=True)
        known.enter(failed)
        known.leave(failed, 0.0, answered=False)
    assert (len(known), known._owned) == (0, {})


def test_a_sequence_begun_again_elsewhere_leaves_nothing_of_the_stream_it_began_on() -> None:
    known, old, new = SequenceTable(SequenceLimits(IDLE_SECONDS, 10)), Stream(), Stream()
    for owner, end in ((old, False), (new, True)):
        each = request([1])
        each.sequence = Step("a", True, end, owner)
        known.enter(each)
        known.advance(each, STATE)
        known.leave(each, 0.0, answered=True)
    assert (len(known), known._owned) == (0, {})


def test_a_sequence_that_never_pauses_keeps_no_idle_one_alive() -> None:
    known = SequenceTable(SequenceLimits(IDLE_SECONDS, 2))
    busy = step("busy", start=True)
    known.enter(busy)
    idle = step("idle", start=True)
    known.enter(idle)
    known.advance(idle, STATE)
    known.leave(idle, 0.0, answered=True)
    for turn in range(100):  # of one second each
        following = step("busy")
        known.enter(following)
        known.advance(busy, STATE)
        assert known.leave(busy, float(turn), answered=True) == (following, [])
        known.drop_idle(float(turn))
        busy = following
    assert known.expired == 1, "no step of it came for ten times as long as states are kept"


def test_a_step_that_was_too_late_leaves_the_state_as_it_was() -> None:
    """docs/sequences.md: too late, as if the step had not been sent."""

    def slowly(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if (inputs["x"] == 5).any():
            late.deadline = time.monotonic() - 0.001  # it passes meanwhile
        return adding(outputs, inputs)

    made = sequenced(slowly)
    run_all(made, step("a", 1, start=True))
    late = step("a", 5, deadline=time.monotonic() + 60)
    run_all(made, late)
    assert isinstance(caller(late).error(), DeadlineExpired)
    after = step("a", 2)
    run_all(made, after)
    assert answer(after) == 3


def test_a_stream_that_ends_right_after_its_first_answer_leaves_no_state() -> None:
    """Answers are sent before the steps leave, so the polling thread may see the stream end in between."""
    made, stream = sequenced(), Stream()
    first = step(stream)
    first.waits = lambda _: made.release(stream)
    run_all(made, first)
    assert made.sequences == 0


def test_one_stream_s_steps_leave_room_for_others() -> None:
    made, greedy = sequenced(queue_rows=100), Stream()
    for _ in range(100):
        made.put(step(greedy))
    made.put(step("somebody else", start=True))


def test_steps_held_back_count_against_the_bound_over_all_models() -> None:
    made, stream = sequenced(total=QueueTotal(QueueLimits(10))), Stream()
    for _ in range(10):
        made.put(step(stream))
    with pytest.raises(QueueFull):
        made.put(step(stream))


def test_what_is_refused_on_arrival_is_no_probe() -> None:
    def fail(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise ValueError("no")

    made, _ = batcher(fail, isolation=Isolation(1, 10.0))
    now = time.monotonic()
    made.put(request(arrived=now))
    made.run_once()
    assert made.breaker.is_open
    with pytest.raises(DeadlineExpired):
        made.put(request(arrived=now + 60.0, deadline=now + 59.0))
    made.put(request(arrived=now + 60.0))


def test_hopeless_requests_do_not_keep_a_mended_model_shut_off() -> None:
    breaker = Breaker(1, 1.0)
    breaker.failed()
    breaker.open(0.0)
    made, _ = batcher(echo)
    made.breaker = breaker
    for turn in range(100, 10_000):
        now = turn / 100
        try:
            made.put(request(arrived=now, deadline=now if turn % 100 != 50 else math.inf))
        except (DeadlineExpired, Unavailable):
            continue
        return
    raise Unavailable("nobody was let in for a hundred seconds")


def test_what_is_expired_on_arrival_is_not_told_to_try_again() -> None:
    """Overloaded: "... deadline is in -1000.0 ms", with a retry hint; DEADLINE_EXCEEDED if idle."""
    made, _ = batcher(echo)
    made.put(request())
    late = request()
    late.deadline = late.arrived - 1.0
    with pytest.raises(DeadlineExpired):
        made.put(late)


class _EndsBetween(list[float]):
    """The list of runs, whose only run ends on another thread right after it has been counted."""

    @override
    def __len__(self) -> int:
        length = super().__len__()
        self.clear()
        return length


def test_a_run_may_end_while_somebody_asks_when() -> None:
    runs = WaitEstimate(1)
    runs._ends = _EndsBetween([5.0])
    assert runs.seconds_to_answer(0, 1, 8, RunCost(1.0), 4.0) >= 1.0


def test_shapes_that_are_remembered_hold_no_texts() -> None:
    costs = RunCosts(RunCost(1e-3))
    for number in range(100):
        costs.of((None, f"{number}" + "x" * 10_000))
        costs.note_run((None, f"{number}" + "x" * 10_000))
    assert sum(len(str(key)) for key in costs.by_shape) < 100_000


def test_a_request_that_was_cancelled_is_let_go_of() -> None:
    line = PriorityLine()
    first, last = request(deadline=0.5, arrived=0.0), request(deadline=0.4, arrived=0.0)
    waiting: list[Request] = [request(deadline=0.1, arrived=0.0), first, last]
    for each in waiting:
        line.put(each)
    inputs = [weakref.ref(each.inputs["x"]) for each in (first, last)]
    for each in waiting[1:]:
        line.remove(each)
    del waiting[1:], first, last, each
    gc.collect()
    assert line.head() is waiting[0]
    assert [each() is None for each in inputs] == [True, True]


def test_what_was_handed_over_during_an_inline_run_finds_the_spare_thread() -> None:
    """Else it waits for a run of another model to end, and so does all that comes after it."""
    running, handed_over, over = threading.Event(), threading.Event(), threading.Event()

    def without_end(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        over.wait(BOUND_SECONDS)
        return echo(outputs, inputs)

    def inline(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        running.set()
        handed_over.wait(BOUND_SECONDS)
        return echo(outputs, inputs)

    hog, _ = batcher(without_end, expected_seconds=1.0)
    cost = RunCost(1e-4, 40, 4e-3)  # one row is the polling thread's, many are not
    made = DynamicBatcher(HandBackend(inline), policy(runs_in_parallel=2, max_rows=64), cost)
    short, long = request(), request([1.0] * 40)

    def decode() -> None:
        running.wait(BOUND_SECONDS)
        made.put(long)
        runners.notify(made)
        time.sleep(0.05)  # for the spare thread to look at it, while it is being run
        handed_over.set()

    runners = Runners(1, 1e-3, lambda error: None)
    runners.start(threading.get_ident())
    worker = threading.Thread(target=decode)
    worker.start()
    try:
        for each, its in ((request(), hog), (short, made)):
            its.put(each)
            runners.notify(its)
        while runners.work_inline():
            pass
        worker.join()
        while runners.work_inline():
            pass
        assert caller(short).wait()
        assert caller(long).wait(0.5)
    finally:
        over.set()
        runners.stop()


def test_late_steps_behind_one_another_are_told_by_the_same_sweep() -> None:
    made, now = sequenced(), time.monotonic()
    steps = [step("a", start=not number, arrived=now, deadline=now + 1.0) for number in range(4)]
    for each in steps:
        made.put(each)
    made.expire(now + 2.0)
    assert [type(caller(each).error()) for each in steps] == [DeadlineExpired] * 4
    assert made.backlog() == (0, 0)
