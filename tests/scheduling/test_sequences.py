"""Steps of a sequence run one by one, those of different ones together, and only good steps count."""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.core.errors import (
    DeadlineExpired,
    ModelFailed,
    QueueFull,
    RequestCancelled,
    RequestError,
    TooManySequences,
    Unavailable,
    UnknownSequence,
)
from penstock.core.request import Response, Step
from penstock.core.tensors import Array
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.rows import Rows
from penstock.scheduling.packing.states import States, StateTensor
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import SequenceLimits
from support.work import HandBackend, MadeRequest, Tally, assert_adds_up, caller, policy, request, wait_until

IDLE_SECONDS = 10.0
BAD = 1000.0
"""A value that the model fails on."""


class Stream:
    """Whoever owns sequences."""


def adding(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    """y = sumN = sum + x; the state's batch axis is 1, so that it lies across the rows."""
    if (inputs["x"] >= BAD).any():
        raise ModelFailed("too much")
    after = inputs["sum"] + inputs["x"].reshape(1, -1, 1)
    return [{"y": after[0], "sumN": after}[name] for name in outputs]


def sequenced(
    run: Callable[[Sequence[str], Mapping[str, Array]], Sequence[Array]] = adding,
    *,
    max_sequences: int = 100,
    **changes: object,
) -> tuple[SequenceBatcher, Tally]:
    tensor = StateTensor("sum", "sumN", 1, np.zeros((1, 1, 1), np.float32))
    bounds = SequenceLimits(IDLE_SECONDS, max_sequences)
    made = SequenceBatcher(
        HandBackend(run), policy(**changes), RunCost(1e-5), States(Rows(batched=True), [tensor]), bounds
    )
    tally = Tally()
    made.observer = tally
    return made, tally


def step(key: object, value: float = 1, *, start: bool = False, end: bool = False, **how: Any) -> MadeRequest:
    made = request([value], **how)
    made.sequence = Step(key, start, end, key if isinstance(key, Stream) else None)
    return made


def run(made: SequenceBatcher, *steps: MadeRequest) -> list[float]:
    """Puts steps in, runs until nothing waits, and gives what the model answered."""
    for each in steps:
        made.put(each)
    while made.run_once():
        pass
    return [float(caller(each).output()[0, 0]) for each in steps]


def test_a_step_goes_on_from_the_one_before() -> None:
    made, tally = sequenced()
    steps = [step("a", 1, start=True), step("a", 2), step("a", 3)]
    assert run(made, *steps) == [1, 3, 6]
    assert tally.batches == [1, 1, 1]
    assert_adds_up(tally, steps)
    assert run(made, step("a", 4)) == [10]


def test_steps_of_different_sequences_run_together() -> None:
    made, tally = sequenced()
    steps = [step(key, key * 10 + turn, start=not turn) for turn in range(3) for key in range(5)]
    answers = run(made, *steps)
    assert tally.batches == [5, 5, 5]
    assert answers == [
        sum(key * 10 + each for each in range(turn + 1)) for turn in range(3) for key in range(5)
    ]


def test_a_state_holds_no_memory_of_the_batch() -> None:
    made, _ = sequenced()
    run(made, *[step(key, start=True) for key in range(8)])
    states = [made._sequences.state_of(step(key)) for key in range(8)]
    assert [(array.base, array.shape) for (array,) in states] == [(None, (1, 1, 1))] * 8  # type: ignore[misc]


@pytest.mark.parametrize("why", ["too many", "no room", "fails", "late"])
def test_what_follows_a_first_step_that_failed_begins_nothing(why: str) -> None:
    """Else a stream would go on from a fresh state, as if what it lost had never been."""
    made, _ = sequenced(max_sequences=1 if why == "too many" else 9, queue_rows=1)
    stream, first = Stream(), step(Stream())
    first.sequence = Step(stream, owner=stream)
    if why == "too many":
        run(made, step("a", start=True))
    elif why == "no room":
        made.put(step("a", start=True))
    elif why == "late":
        first.deadline = 0.0
    else:
        first.inputs = {"x": np.array([[BAD]], np.float32)}
    with contextlib.suppress(RequestError):
        made.put(first)
    run(made)
    if why == "too many":
        run(made, step("a", end=True))
    with pytest.raises(
        UnknownSequence, match="the stream's sequence cannot continue: its first step has failed"
    ):
        made.put(step(stream))
    assert [*run(made, step(stream, 3, start=True)), *run(made, step(stream, 4))] == [3, 7]


def test_start_begins_afresh_and_end_drops_the_state() -> None:
    made, _ = sequenced()
    assert run(made, step("a", 5, start=True), step("a", 1, start=True), step("a", 1, end=True)) == [5, 1, 2]
    assert made.sequences == 0
    with pytest.raises(UnknownSequence, match=r"sequence a has no state: .* send a step with start"):
        made.put(step("a"))
    assert run(made, step("a", 7, start=True)) == [7]


def test_the_first_step_of_a_stream_needs_no_word() -> None:
    made, _ = sequenced()
    stream = Stream()
    assert run(made, step(stream, 1), step(stream, 2), step(stream, 3, end=True)) == [1, 3, 6]
    with pytest.raises(UnknownSequence, match="the stream's sequence cannot continue: it has ended"):
        made.put(step(stream))
    assert run(made, step(stream, 4, start=True), step(stream, 1)) == [4, 5]


@pytest.mark.parametrize("key", ["a", Stream()], ids=["by id", "of a stream"])
def test_an_idle_sequence_expires(key: object) -> None:
    made, _ = sequenced()
    run(made, step(key, start=True))
    made.expire(time.monotonic() + IDLE_SECONDS - 1)
    assert (made.sequences, made.sequences_expired) == (1, 0)
    made.expire(time.monotonic() + IDLE_SECONDS + 1)
    assert (made.sequences, made.sequences_expired) == (0, 1)
    with pytest.raises(UnknownSequence, match="expired"):
        made.put(step(key))
    assert run(made, step(key, 2, start=True), step(key, 2)) == [2, 4]


def test_one_whose_step_is_under_way_is_not_idle() -> None:
    made, _ = sequenced()
    made.put(step("a", start=True))
    made.expire(time.monotonic() + 2 * IDLE_SECONDS)
    assert run(made, step("a", 2)) == [3]


def test_there_is_a_most_of_sequences_and_a_hint() -> None:
    made, _ = sequenced(max_sequences=2)
    run(made, step("a", start=True), step("b", start=True))
    with pytest.raises(TooManySequences, match="2 sequences are active, the limit") as raised:
        made.put(step("c", start=True))
    assert 0 < (raised.value.retry_after_seconds or 0) <= IDLE_SECONDS
    assert run(made, step("a", end=True)) == [2]
    assert run(made, step("c", start=True)) == [1]


def test_room_is_made_by_those_that_have_expired() -> None:
    made, _ = sequenced(max_sequences=1)
    run(made, step("a", start=True))
    late = step("b", start=True, arrived=time.monotonic() + IDLE_SECONDS + 1)
    assert run(made, late) == [1]


# As if it had not been sent


def test_a_step_whose_answer_cannot_be_sent_leaves_the_state_as_it_was() -> None:
    made, tally = sequenced()
    run(made, step("a", 1, start=True))
    told: list[Response | RequestError] = []

    def refuse(result: Response | RequestError) -> None:
        told.append(result)
        if isinstance(result, Response):
            raise ValueError("too large")

    made.put(step("a", 2, reply=refuse))
    with pytest.raises(ValueError, match="too large"):
        made.run_once()
    assert [type(each) for each in told] == [Response, ModelFailed]
    assert run(made, step("a", 4)) == [5]
    assert len(tally.done) == 2


def test_a_failed_step_leaves_the_state_as_it_was() -> None:
    made, tally = sequenced()
    good = [step("a", 1, start=True), step("b", 10, start=True)]
    bad, after = step("a", BAD), [step("a", 2), step("b", 20)]
    for each in (*good, bad, *after):
        made.put(each)
    while made.run_once():
        pass
    assert [float(caller(each).output()[0, 0]) for each in (*good, *after)] == [1, 10, 3, 30]
    assert isinstance(caller(bad).error(), ModelFailed)
    assert_adds_up(tally, [*good, bad, *after])


def test_those_behind_a_failed_start_have_nothing_to_go_on_from() -> None:
    made, tally = sequenced()
    bad, behind, afresh, last = step("a", BAD, start=True), step("a"), step("a", 5, start=True), step("a", 1)
    for each in (bad, behind, afresh, last):
        made.put(each)
    while made.run_once():
        pass
    assert isinstance(caller(bad).error(), ModelFailed)
    assert isinstance(caller(behind).error(), UnknownSequence)
    assert [float(caller(each).output()[0, 0]) for each in (afresh, last)] == [5, 6]
    assert_adds_up(tally, [bad, behind, afresh, last])


def test_a_failed_start_leaves_the_state_before() -> None:
    made, _ = sequenced()
    run(made, step("a", 3, start=True))
    made.put(step("a", BAD, start=True))
    assert run(made, step("a", 1)) == [4]


def test_a_cancelled_step_does_not_count_wherever_it_is() -> None:
    made, tally = sequenced()
    steps = [step("a", 1, start=True), step("a", 10), step("a", 100), step("a", 4)]
    for each in steps:
        made.put(each)
    made.cancel(steps[2])  # held back
    assert made.backlog() == (3, 0)
    assert made.run_once()
    made.cancel(steps[1])  # in the queue
    assert [type(caller(each).error()) for each in steps[1:3]] == [RequestCancelled] * 2
    while made.run_once():
        pass
    assert float(caller(steps[3]).output()[0, 0]) == 5
    assert len(tally.done) == 2
    assert len(tally.failures) == 2


def test_one_cancelled_while_it_runs_does_not_count() -> None:
    steps = [step("a", 1, start=True), step("a", 10), step("a", 100)]

    def cancelling(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"][0, 0] == 10:
            made.cancel(steps[1])
        return adding(outputs, inputs)

    made, _ = sequenced(cancelling)
    for each in steps:
        made.put(each)
    while made.run_once():
        pass
    assert caller(steps[1]).results == []
    assert float(caller(steps[2]).output()[0, 0]) == 101


def test_held_steps_expire_at_their_deadlines() -> None:
    made, _ = sequenced()
    now = time.monotonic()
    steps = [step("a", start=True), step("a", 5, deadline=now + 100), step("a", 7)]
    for each in steps:
        made.put(each)
    made.expire(now + 50)
    assert caller(steps[1]).results == []
    made.expire(now + 101)
    assert isinstance(caller(steps[1]).error(), DeadlineExpired)
    while made.run_once():
        pass
    assert float(caller(steps[2]).output()[0, 0]) == 8


class Compared(MadeRequest):
    """A step that counts how often steps are compared with each other."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = object.__hash__


def test_steps_that_expire_together_are_not_compared_with_each_other() -> None:
    made, _ = sequenced(queue_rows=1000)
    now = time.monotonic()
    made.put(step("a", start=True))
    late = [step("a", deadline=now + 10) for _ in range(500)]
    for each in late:
        each.__class__ = Compared
        made.put(each)
    before = Compared.times
    made.expire(now + 11)
    assert all(isinstance(caller(each).error(), DeadlineExpired) for each in late)
    assert Compared.times == before


def test_held_steps_count_against_the_bounds() -> None:
    made, _ = sequenced(queue_rows=3)
    for each in [step("a", start=True), step("a"), step("a")]:
        made.put(each)
    assert (made.waiting_rows, made.backlog()) == (1, (3, 0))
    with pytest.raises(QueueFull, match="3 steps of 0 bytes are waiting") as raised:
        made.put(step("a"))
    assert raised.value.retry_after_seconds is not None
    made.put(step("b", start=True))  # whoever waits for nobody is the queue's concern
    with pytest.raises(QueueFull):
        made.put(step("b"))
    assert made.sequences == 2
    while made.run_once():
        pass
    assert made.backlog() == (0, 0)


def test_held_steps_count_by_their_bytes() -> None:
    made, _ = sequenced(queue_bytes=100)
    first, second = step("a", start=True), step("a")
    first.size = second.size = 60
    made.put(first)
    with pytest.raises(QueueFull):
        made.put(second)


def test_every_step_is_answered_at_the_stop() -> None:
    made, tally = sequenced()
    steps = [step(key, start=not turn) for turn in range(3) for key in "ab"]
    for each in steps:
        made.put(each)
    made.fail_all(Unavailable("over"))
    assert [type(caller(each).error()) for each in steps] == [Unavailable] * 6
    assert made.backlog() == (0, 0)
    assert_adds_up(tally, steps)


def test_no_step_gives_way_to_one_of_higher_priority() -> None:
    made, _ = sequenced(queue_rows=2)
    steps = [step("a", 1, start=True, priority=-1), step("b", 1, start=True, priority=-1)]
    for each in steps:
        made.put(each)
    with pytest.raises(QueueFull):
        made.put(step("c", start=True, priority=1))
    assert run(made) == []
    assert [caller(each).output().item() for each in steps] == [1, 1]


def test_at_the_stop_those_behind_a_run_are_answered_too() -> None:
    going, go_on = threading.Event(), threading.Event()

    def slow(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        going.set()
        assert go_on.wait(30)
        return adding(outputs, inputs)

    made, _ = sequenced(slow)
    steps = [step("a", start=True), step("a")]
    for each in steps:
        made.put(each)
    thread = threading.Thread(target=made.run_once)
    thread.start()
    assert going.wait(30)
    made.fail_all(Unavailable("over"))
    go_on.set()
    thread.join()
    assert isinstance(caller(steps[0]).results[0], Response)
    assert isinstance(caller(steps[1]).error(), Unavailable)


# What began on a stream ends with it


def test_a_stream_takes_its_sequences_with_it() -> None:
    made, _ = sequenced()
    stream, other = Stream(), Stream()
    mine, others = step("mine", start=True), step("others", start=True)
    mine.sequence, others.sequence = Step("mine", True, False, stream), Step("others", True, False, other)
    run(made, mine, others, step(stream), step("nobody's", start=True))
    assert made.sequences == 4
    made.release(stream)
    assert made.sequences == 2
    assert run(made, step("others"), step("nobody's")) == [2, 2]
    with pytest.raises(UnknownSequence):
        made.put(step("mine"))


def test_a_step_under_way_is_the_last_of_a_stream_that_has_ended() -> None:
    made, _ = sequenced()
    stream = Stream()
    mine = step("mine", start=True)
    mine.sequence = Step("mine", True, False, stream)
    run(made, mine)
    going_on, behind = step("mine"), step("mine")
    made.put(going_on)
    made.put(behind)
    made.release(stream)
    while made.run_once():
        pass
    assert float(caller(going_on).output()[0, 0]) == 2
    assert isinstance(caller(behind).error(), UnknownSequence)
    assert made.sequences == 0


def test_a_state_of_another_shape_fails_its_step() -> None:
    def growing(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [inputs["x"], np.zeros((2, len(inputs["x"]), 1), np.float32)]

    made, _ = sequenced(growing)
    bad = step("a", start=True)
    made.put(bad)
    made.run_once()
    words = "state output sumN has shape [2, 1, 1], expected [1, 1, 1] for 1 step, the shape of input sum"
    assert words in str(caller(bad).error())
    assert made.sequences == 0


# Whatever happens in whatever order


class Expected:
    """What should come: the plainest model of sequences there is."""

    def __init__(self) -> None:
        self.sums: dict[object, float] = {}

    def outcome(self, each: MadeRequest) -> float | type[Exception]:
        """The answer to a step whose turn has come."""
        assert each.sequence is not None
        key, start, end, *_ = each.sequence
        value = float(each.inputs["x"][0, 0])
        if not start and key not in self.sums:
            return UnknownSequence
        if value >= BAD:
            return ModelFailed
        answer = (0.0 if start else self.sums[key]) + value
        self.sums[key] = answer
        if end:
            del self.sums[key]
        return answer


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_are_answered_as_a_plain_model_would(seed: int) -> None:
    draw = random.Random(seed)
    made, tally = sequenced(max_rows=draw.choice([1, 3, 8]))
    expected, order, cancelled = Expected(), list[MadeRequest](), set[MadeRequest]()
    refused: set[MadeRequest] = set()
    for _ in range(300):
        dice = draw.random()
        if dice < 0.6:
            value = BAD if draw.random() < 0.1 else draw.randrange(100)
            each = step(draw.choice("abcde"), value, start=draw.random() < 0.2, end=draw.random() < 0.1)
            try:
                made.put(each)
            except UnknownSequence:
                refused.add(each)
            order.append(each)
        elif dice < 0.75:
            waiting = [each for each in order if not caller(each).results and each not in refused]
            if waiting:
                victim = draw.choice(waiting)
                made.cancel(victim)
                cancelled.add(victim)
        else:
            made.run_once()
    while made.run_once():
        pass
    assert made.backlog() == (0, 0)
    for each in order:
        if each in cancelled:
            assert isinstance(caller(each).error(), RequestCancelled)
        elif each in refused:
            assert expected.outcome(each) is UnknownSequence
        else:
            _check(each, expected.outcome(each))
    assert made.sequences == len(expected.sums)
    assert len(tally.done) + len(tally.failures) == len(order) - len(refused)


def _check(each: MadeRequest, expected: float | type[Exception]) -> None:
    (result,) = caller(each).results
    if isinstance(expected, float):
        assert isinstance(result, Response), result
        assert float(result.outputs["y"][0, 0]) == expected
    else:
        assert isinstance(result, expected)


def test_threads_that_run_and_put_at_once_lose_nothing() -> None:
    made, tally = sequenced(runs_in_parallel=4)
    steps = {key: [step(key, 1, start=not turn) for turn in range(200)] for key in range(8)}
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            made.run_once()

    def send(key: int) -> None:
        for each in steps[key]:
            made.put(each)

    threads = [threading.Thread(target=work) for _ in range(3)]
    threads += [threading.Thread(target=send, args=(key,)) for key in steps]
    for each in threads:
        each.start()
    wait_until(lambda: len(tally.done) == 1600)
    over.set()
    for each in threads:
        each.join()
    for each in steps.values():
        assert [float(caller(one).output()[0, 0]) for one in each] == list(range(1, 201))
    assert made.backlog() == (0, 0)


def test_a_deadline_of_never_waits_for_ever() -> None:
    made, _ = sequenced()
    steps = [step("a", start=True), step("a", deadline=math.inf)]
    for each in steps:
        made.put(each)
    made.expire(time.monotonic() + 1e6)
    assert caller(steps[1]).results == []
