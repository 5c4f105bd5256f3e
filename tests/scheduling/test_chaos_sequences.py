"""Whatever steps come, whenever: each goes on from exactly those answered before it, and nothing is left.

As `test_chaos`, for a model whose state is kept. Every step adds a bit of its own to the sum that is its
sequence's state, so that the bits of an answer are the steps that it was made of.
"""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.backends.backend import RunControl
from penstock.core.caller import Caller
from penstock.core.errors import (
    DeadlineExpired,
    ModelFailed,
    Overloaded,
    QueueFull,
    RequestCancelled,
    RequestError,
    TooManySequences,
    Unavailable,
    UnknownSequence,
)
from penstock.core.request import Request, Response, Run, Step
from penstock.core.tensors import Array
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.rows import Alone, Packing, Rows
from penstock.scheduling.packing.states import States, StateTensor
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import MADE_ROOM, SequenceLimits
from support.examples import few
from support.simulation import Simulation, simulated
from support.work import policy, signature_of, spec

TICK = 1 / 128
EPSILON = TICK / 4
"""What looking at the clock adds up to is far less."""
SWEEP_TICKS = 3
IDLE_TICKS = 30
MOST_STEPS = 5000
"""Far more than there ever are."""
REFUSALS = (QueueFull, Overloaded, DeadlineExpired, TooManySequences, UnknownSequence)


class Stream:
    """Whoever owns sequences."""


class Plan(NamedTuple):
    """What one step is, and what is to happen to it; times in ticks.

    Attributes:
        arrives: when it comes.
        stream: the number of the stream it comes on; None for a unary call.
        id: of its sequence; "" for that of its stream.
        start: as in `Step`.
        end: likewise.
        size: the bytes it came in.
        timeout: how long after it came its deadline is.
        cancelled: how long after it came its caller goes; None for never.
        fault: "raises", "short" or "state", where the model fails on it, or gives no row for it.
    """

    arrives: int
    stream: int | None
    id: str
    start: bool
    end: bool
    size: int
    timeout: float
    cancelled: int | None
    fault: str


def plan_of(number: int) -> Plan:
    """The step that a number stands for."""
    chance = random.Random(number)
    stream = chance.choice((None, 0, 0, 1))
    id = chance.choice("aabc" if stream is None else ("", "", "a", "a", "b"))
    return Plan(
        arrives=chance.choice((0, 0, 1, 2, 3, 5, 8, 13, 21, 40, 80)),
        stream=stream,
        id=id,
        start=chance.random() < (0.35 if id else 0.1),
        end=chance.random() < 0.15,
        size=chance.choice((0, 10, 10, 100)),
        timeout=chance.choice((math.inf,) * 6 + (-1, 0, 1, 2, 5, 13)),
        cancelled=chance.choice((None,) * 6 + (0, 1, 5)),
        fault=chance.choice(("",) * 9 + ("raises", "short", "state")),
    )


class House(NamedTuple):
    """What steps meet; times in ticks.

    Attributes:
        parallel: how many runs may go on, and how many threads there are.
        max_rows: of a batch.
        queue_rows: the most that may wait.
        queue_bytes: likewise.
        max_sequences: the most that there may be.
        run: what a run takes.
        ends: when each stream ends with all that is under way on it; None for never.
        stops: when the server ends what still waits; None for never.
        heeds: whether the model can be ended while it runs.
        drops: whether the model drops rows, so that all run alone from then on. If not, it fails instead.
        callers: whether it is known who sends a step, so that each has its share of the sequences.
    """

    parallel: int
    max_rows: int
    queue_rows: int
    queue_bytes: int
    max_sequences: int
    run: float
    ends: tuple[int | None, int | None]
    stops: int | None
    heeds: bool
    drops: bool
    callers: bool


HOUSES = st.builds(
    House,
    parallel=st.sampled_from((1, 2)),
    max_rows=st.sampled_from((8, 1, 3)),
    queue_rows=st.sampled_from((4096, 4, 12)),
    queue_bytes=st.sampled_from((2**30, 200)),
    max_sequences=st.sampled_from((100, 2, 3)),
    run=st.sampled_from((1, 0.0, 0.5, 6)),
    ends=st.tuples(st.sampled_from((None, 4, 14, 41)), st.sampled_from((None, 2, 22))),
    stops=st.sampled_from((None, None, 5, 20)),
    heeds=st.booleans(),
    drops=st.sampled_from((False, False, True)),
    callers=st.booleans(),
)
STEPS = st.integers(1, 40).flatmap(
    lambda count: st.lists(st.integers(0, 2**20), min_size=count, max_size=count)
)


class Asked(Request):
    """A step, and all that became of it. It has no slots, so that it can be known to be gone.

    Attributes:
        number: its place among the others; it comes by an RPC of that name.
        plan: what it is.
        results: the kinds of what came.
        let_in: whether it was: else it was refused, which is its end.
        taken: whether a run of it has begun.
        is_over: whether it was refused, or the observer told how it ended.
    """

    def __init__(self, number: int, plan: Plan, house: Chaos, now: float) -> None:
        self.bit = 1 << number
        inputs = {"x": np.array([[self.bit]], np.int64)}
        super().__init__(inputs, ("y",), 1, None, str(number), now, now + plan.timeout * TICK)
        owner = None if plan.stream is None else house.streams[plan.stream]
        self.number, self.plan, self._house = number, plan, house
        connection = f"of stream {plan.stream}" if owner else f"of calls {plan.size % 3}"
        sender = Caller(connection) if house.has_callers else None
        self.step = self.sequence = Step(plan.id or owner, plan.start, plan.end, owner, None, sender)
        self.size = plan.size
        self.results: list[type] = []
        self.let_in = self.taken = False
        self.is_over = True

    def reply(self, result: Response | RequestError) -> None:
        self.results.append(type(result))
        if isinstance(result, Response):
            assert not self.cancelled, "answered though nobody waits"
            assert result.run.finished <= self.deadline, "an answer after the deadline"
            found = result.outputs["y"]
            dropped = self.plan.fault == "short"
            assert len(found) == (0 if dropped else 1)
            self._house.known[self.step.key].answered(self, None if dropped else int(found.item()))
        elif isinstance(result, UnknownSequence):
            self._house.known[self.step.key].check_lost(self, self._house.time.now, result)


class Known:
    """What must be known of one sequence.

    Attributes:
        total: its state; None where there is none.
        owner: the stream that the state began on.
        is_done: whether a stream's own sequence has ended, or failed to begin: it does not begin by itself.
        is_loose: whether the state may be gone, since no step came for long.
        closing: streams that have ended while a step was under way: if the state is theirs then, it goes.
    """

    def __init__(self) -> None:
        self.total: int | None = None
        self.owner: object = None
        self.closing: set[object] = set()
        self.is_done = self.is_loose = False
        self._used = math.inf

    def answered(self, asked: Asked, got: int | None) -> None:
        """A step was answered with a sum, or without one if the model has dropped it."""
        step = asked.step
        begins = step.start or self.total is None
        assert step.start or not begins or (step.key is step.owner and not self.is_done), (
            "went on from nothing"
        )
        expected = asked.bit + (0 if begins else self.total or 0)
        assert got in (expected, None), "went on from another state"
        if begins:
            self.owner = step.owner
        self.is_loose = False
        self.is_done = step.end
        self.total = None if step.end else expected

    def check_lost(self, asked: Asked, now: float, error: UnknownSequence) -> None:
        """A step was told that its sequence is not known."""
        assert asked.step.caller is not None or MADE_ROOM not in str(error)
        if MADE_ROOM in str(error):  # a start behind its last step as well
            self.total, self.is_done = None, asked.step.key is asked.step.owner
            return
        assert not asked.step.start, "a beginning that is not known"
        self.look(now)
        own = asked.step.key is asked.step.owner
        assert self.is_loose or self.closing or (self.total is None and (self.is_done or not own)), (
            "a state was lost"
        )

    def look(self, now: float) -> None:
        """A step has come."""
        self.is_loose = self.is_loose or now >= self._used + IDLE_TICKS * TICK - EPSILON

    def ended(self, now: float) -> None:
        """The step that was under way has ended, well or not."""
        self._used = now
        if self.owner in self.closing:
            self.total = None
        self.closing = set()

    def not_answered(self, asked: Asked) -> None:
        """The step whose turn it was has been given no answer, or was not let in."""
        self.is_done = self.is_done or (self.total is None and asked.step.key is asked.step.owner)

    def released(self, owner: object, is_under_way: bool) -> None:
        """A stream has ended."""
        if is_under_way:
            self.closing.add(owner)
        elif self.owner is owner:
            self.total = None


class Told:
    """The observer: counts what it hears of every step, and holds none."""

    def __init__(self, house: Chaos) -> None:
        self.done: Counter[str] = Counter()
        self.failed_as: dict[str, list[type]] = {}
        self._house = house

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        for each in requests:
            self.done[each.rpc] += 1
            self._house.over(each.rpc)

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        self.failed_as.setdefault(rpc, []).extend([type(error)] * count)
        self._house.over(rpc)

    def on_event(self, event: str, **facts: object) -> None: ...


class Watched(States):
    """Looks at every run that begins."""

    def __init__(self, house: Chaos, rows: Packing) -> None:
        super().__init__(rows, [StateTensor("sum", "sumN", 1, np.zeros((1, 1, 1), np.int64))])
        self._house = house

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        self._house.check(self._house.check_run, batch)
        for each in batch:
            assert isinstance(each, Asked)
            each.taken = True
        return super().assemble(batch)

    def alone(self) -> Packing:
        made = Watched(self._house, Alone())
        made.sequences = self.sequences
        return made


class Chaos:
    """A batcher of steps with its threads, and what comes to it."""

    def __init__(self, house: House, time: Simulation) -> None:
        self.time, self.tally = time, Told(self)
        self.problems: list[str] = []
        self.asked: list[Asked] = []
        self.streams = (Stream(), Stream())
        self.has_callers = house.callers
        self.known: dict[object, Known] = {key: Known() for key in (*"abc", *self.streams)}
        self._house = house
        self._gone: set[object] = set()
        self._stopped = False
        self.providers, self.signature, self.file = (), signature_of([spec("x")], [spec("y")]), None
        self.total = QueueTotal(QueueLimits(2 * house.queue_rows, 2 * house.queue_bytes))
        self.batcher = SequenceBatcher(
            self,  # type: ignore[arg-type]
            policy(max_rows=house.max_rows, queue_rows=house.queue_rows, queue_bytes=house.queue_bytes,
                   runs_in_parallel=house.parallel),
            RunCost(house.run * TICK),
            Watched(self, Rows(batched=True)),
            SequenceLimits(IDLE_TICKS * TICK, house.max_sequences, shared=True),
            self.total,
        )  # fmt: skip
        self.batcher.observer = self.tally

    # The model

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: RunControl) -> Sequence[Array]:
        """y = sumN = sum + x, as quick as expected or not; it fails on some."""
        x = inputs["x"]
        luck = random.Random(int(x.sum())).choice((0.0, 1.0, 1.0, 1.0, 4.0))
        heeded = stop if self._house.heeds else None
        self.time.pause(luck * self._house.run * TICK, heeded)
        if heeded is not None and heeded.stopped:
            raise ModelFailed("ended")
        faults = {self.asked[int(each).bit_length() - 1].plan.fault for each in x.ravel()}
        if "raises" in faults or ("short" in faults and not self._house.drops):
            raise ModelFailed("on one of these")
        after = inputs["sum"] + x.reshape(1, -1, 1)
        found = {"y": after[0]["short" in faults :], "sumN": after[..., "state" in faults :]}
        return [found[name] for name in outputs]

    def close(self) -> None: ...

    # What happens

    def play(self, numbers: Sequence[int]) -> None:
        """Lets steps come, and all that follows from it happen, until nothing does any more."""
        start = self.time.now
        for plan in map(plan_of, numbers):
            self._at(start, plan.arrives, lambda plan=plan: self._arrive(plan))  # type: ignore[misc]
        for stream, ends in zip(self.streams, self._house.ends, strict=True):
            self._at(start, ends, lambda stream=stream: self._end(stream))  # type: ignore[misc]
        self._at(start, self._house.stops, self._stop)
        self.time.at(start, self._sweep)
        for _ in range(MOST_STEPS):
            if not self.time.step():
                return
            self._look()
            self._check_waiting()
        raise AssertionError("there is no end to it")

    def over(self, rpc: str) -> None:
        """The observer was told how a step has ended."""
        asked = self.asked[int(rpc)]
        asked.is_over = True
        if self._is_first(asked):
            known = self.known[asked.step.key]
            known.ended(self.time.now)
            if Response not in asked.results:
                known.not_answered(asked)

    def _is_first(self, asked: Asked) -> bool:
        """Whether no step of its sequence is under way before it."""
        return all(each.is_over for each in self.steps_of(asked.step.key) if each.number < asked.number)

    def steps_of(self, key: object) -> list[Asked]:
        """All steps of a sequence so far."""
        return [each for each in self.asked if each.step.key == key]

    def _at(self, start: float, ticks: int | None, what: Callable[[], None]) -> None:
        if ticks is not None:
            self.time.at(start + ticks * TICK, what)

    def _arrive(self, plan: Plan) -> None:
        asked = Asked(len(self.asked), plan, self, self.time.now)
        self.asked.append(asked)
        if self._stopped or asked.step.owner in self._gone:
            return
        self.known[asked.step.key].look(self.time.now)
        crowd = self.batcher.sequences
        asked.is_over = False
        try:
            self.batcher.put(asked)
        except RequestError as error:
            asked.is_over = True
            self.check(self._check_refusal, asked, error, crowd)
            if self._is_first(asked):
                self.known[asked.step.key].not_answered(asked)
            return
        asked.let_in = True
        if plan.cancelled is not None:
            self.time.at(self.time.now + plan.cancelled * TICK, lambda: self._cancel(asked))

    def _cancel(self, asked: Asked) -> None:
        was_over = asked.is_over
        if not was_over:  # as a protocol does: a request with an answer is not cancelled
            self.batcher.cancel(asked)
        if not was_over and not asked.taken:
            self.check(self._check_over, asked)

    def _end(self, stream: Stream) -> None:
        """A stream breaks off, with all that is under way on it."""
        self._gone.add(stream)
        for each in self.asked:
            if each.step.owner is stream:
                self._cancel(each)
        self.batcher.release(stream)
        for key, known in self.known.items():
            known.released(stream, not all(each.is_over for each in self.steps_of(key)))

    def _stop(self) -> None:
        self._stopped = True
        self.batcher.drain()
        self.batcher.fail_all(Unavailable("stopped"))

    def _sweep(self) -> None:
        now = self.time.now
        self.batcher.expire(now)
        for each in self.asked:
            # One sweep later at the latest: see below.
            if each.deadline <= now - (SWEEP_TICKS + 1) * TICK and not each.taken:
                self.check(self._check_over, each)
        if self.time.is_anything_to_come or self.batcher.sequences or not all(e.is_over for e in self.asked):
            self.time.at(now + SWEEP_TICKS * TICK, self._sweep)

    def _look(self) -> None:
        """What a runner does: runs what waits as long as there is a thread."""
        while self.batcher.waiting_rows and self.batcher.may_run() and (worker := self.time.idle()):
            worker.work = self.batcher.run_once
            self.time.let_act(worker)
            assert worker.errors == []

    # What must be so

    def check(self, what: Any, *of: Any) -> None:
        """Notes what is not as it should be: an exception might be taken for the model's."""
        try:
            what(*of)
        except AssertionError as error:
            self.problems.append(f"{error} {of}")

    def check_run(self, batch: Sequence[Asked]) -> None:
        """A run begins."""
        assert 0 < len(batch) <= self._house.max_rows
        for each in batch:
            assert each.deadline + EPSILON > self.time.now, "run after its deadline"
            assert not each.cancelled, "run after it was cancelled"
            before = [one for one in self.steps_of(each.step.key) if one.number < each.number]
            assert all(one.is_over for one in before), "run before the one before it has ended"

    def _check_refusal(self, asked: Asked, error: RequestError, crowd: int) -> None:
        assert isinstance(error, REFUSALS), error
        if isinstance(error, UnknownSequence):
            self.known[asked.step.key].check_lost(asked, self.time.now, error)
        elif isinstance(error, TooManySequences):
            assert crowd >= self._house.max_sequences or (self.has_callers and "its share" in str(error))
        elif isinstance(error, DeadlineExpired):
            assert asked.deadline < math.inf
        else:
            assert any(not each.is_over for each in self.asked), "refused though there was nobody"

    def _check_over(self, asked: Asked) -> None:
        assert asked.is_over, f"not told so at once: {asked.number}"

    def _check_waiting(self) -> None:
        waiting = [each for each in self.asked if not each.is_over and not each.taken]
        rows, size = len(waiting), sum(each.size for each in waiting)
        assert self.batcher.backlog() == (rows, size)
        assert (self.total.rows, self.total.bytes) == (rows, size)
        assert self.batcher.sequences <= self._house.max_sequences

    def check_end(self) -> None:
        """All is over, and adds up."""
        assert self.problems == []
        assert [error for worker in self.time.workers for error in worker.errors] == []
        for each in self.asked:
            self._check_end_of(each)
        assert (self.batcher.backlog(), self.batcher.running_batches, self.batcher.sequences) == (
            (0, 0),
            0,
            0,
        )
        for stream in self.streams:
            self.batcher.release(stream)

    def _check_end_of(self, asked: Asked) -> None:
        done, failed = self.tally.done[asked.rpc], self.tally.failed_as.get(asked.rpc, [])
        assert done + len(failed) == asked.let_in, "not told once"
        if asked.results:
            assert asked.results == (failed or [Response])
        else:
            assert not asked.let_in or asked.cancelled, "no answer"
            assert set(failed) <= {RequestCancelled, DeadlineExpired}
        assert not (asked.plan.fault and done) or (asked.plan.fault == "short" and self._house.drops)
        assert asked.plan.fault or ModelFailed not in failed, "failed though there was nothing wrong with it"


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """What is there already is not looked through again every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@few
@given(STEPS, HOUSES)
def test_every_step_ends_once_and_goes_on_from_the_one_before(numbers: list[int], house: House) -> None:
    every_step_ends_once(numbers, house)


def every_step_ends_once(numbers: list[int], house: House) -> None:
    with simulated(house.parallel) as time:
        chaos = Chaos(house, time)
        chaos.play(numbers)
        chaos.check_end()
        gone = [weakref.ref(each) for each in (*chaos.asked, *chaos.streams)]
        chaos.asked.clear()
        chaos.known.clear()
        chaos.streams = ()  # type: ignore[assignment]
        chaos._gone.clear()
        gc.collect(0)
        if any(each() is not None for each in gone):
            gc.collect()
        assert [each() for each in gone if each() is not None] == []
