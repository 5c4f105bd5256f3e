"""Whatever comes, whenever it comes: every request ends once, as it should, and nothing is left behind.

Hypothesis makes up numbers; each stands for one request, with all that happens to it, so that a failure
shrinks to the few requests that it takes. Time is simulated, threads take turns (`support.simulation`).
"""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.backends.backend import RunControl
from penstock.core.errors import (
    DeadlineExpired,
    ModelFailed,
    Overloaded,
    QueueFull,
    RequestCancelled,
    RequestError,
    Unavailable,
)
from penstock.core.request import Flush, Request, Response, Run
from penstock.core.tensors import Array
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.rows import Alone, Packing, Rows
from penstock.scheduling.policy import Isolation
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from support.examples import few
from support.simulation import Simulation, simulated
from support.work import (
    Caller,
    batcher,
    echo,
    policy,
    request,
    run_all,
    signature_of,
    spec,
)

TICK = 1 / 128
"""Times are multiples of it, so that things often happen at the same time."""
EPSILON = TICK / 4
"""What looking at the clock adds up to is far less."""
MANY = 1000
"""Values of a request begin at its number times this."""
SWEEP_TICKS = 3
MOST_STEPS = 5000
"""Far more than there ever are."""


class Plan(NamedTuple):
    """What one request is, and what is to happen to it; times in ticks.

    Attributes:
        arrives: when it comes.
        rows: how many it has.
        members: as how many it is run where it fails; more than one is a block.
        width: of its rows: others share no batch with it.
        size: the bytes it came in.
        priority: as in `Request`.
        timeout: how long after it came its deadline is.
        cancelled: how long after it came its caller goes; None for never.
        fault: "raises" or "short", where the model fails on it, or gives one row too few; "reply", where
            answering raises.
        sender: who it comes from.
        leaves: whether its answer makes its sender cancel all that he has under way.
    """

    arrives: int
    rows: int
    members: int
    width: int
    size: int
    priority: int
    timeout: float
    cancelled: int | None
    fault: str
    sender: str
    leaves: bool


def plan_of(number: int) -> Plan:
    """The request that a number stands for."""
    chance = random.Random(number)
    members = chance.choice((1,) * 7 + (2, 4))
    rows = members if members > 1 else chance.choice((0, 1, 1, 1, 1, 2, 3, 5, 9, 20))
    return Plan(
        arrives=chance.choice((0, 0, 1, 2, 3, 5, 8, 13, 21, 40, 100)),
        rows=rows,
        members=members,
        width=chance.choice((1, 1, 1, 1, 2, 7)),
        size=chance.choice((0, 10, 10, 100, 1000)),
        priority=chance.choice((0, 0, 0, 0, 1, 7, -1)),
        timeout=chance.choice((math.inf, math.inf, -1, 0, 1, 2, 3, 5, 8, 13, 40)),
        cancelled=chance.choice((None,) * 5 + (0, 1, 2, 5, 13)),
        fault=chance.choice(("",) * 10 + ("raises", "short", "reply")) if rows else "",
        sender=chance.choice("aaabcd"),
        leaves=chance.random() < 0.05,
    )


class House(NamedTuple):
    """What requests meet; times in ticks.

    Attributes:
        parallel: how many runs may go on, and how many threads there are.
        max_rows: of a batch.
        queue_rows: the most that may wait.
        queue_bytes: likewise.
        delay: how long requests may be held back.
        run: what a run takes as it was measured: for any, and for each row.
        measured: whether that is known.
        stops: when the server stops, and when it ends what still waits; None for never.
        heeds: whether the model can be ended while it runs.
        broken: whether the model is found not to work when it is suspected.
        gathers: whether answers are let out by whoever runs, all at once.
        shapes: whether requests are of different ones.
        drops: whether the model drops rows, so that all run alone from then on. If not, it fails instead.
    """

    parallel: int
    max_rows: int
    queue_rows: int
    queue_bytes: int
    delay: int
    run: tuple[float, float]
    measured: bool
    stops: tuple[int, int] | None
    heeds: bool
    broken: bool
    gathers: bool
    shapes: bool
    drops: bool


HOUSES = st.builds(
    House,
    parallel=st.sampled_from((1, 2)),
    max_rows=st.sampled_from((8, 1, 3)),
    queue_rows=st.sampled_from((4096, 4, 12)),
    queue_bytes=st.sampled_from((2**30, 500, 2000)),
    delay=st.sampled_from((0, 4)),
    run=st.sampled_from(((1, 0), (0.0, 0.0), (0.5, 0.5), (10, 1))),
    measured=st.booleans(),
    stops=st.sampled_from((None, (5, 5), (3, 9), (20, 60))),
    heeds=st.booleans(),
    broken=st.booleans(),
    gathers=st.booleans(),
    shapes=st.booleans(),
    drops=st.sampled_from((False, False, True)),
)
REQUESTS = st.integers(1, 40).flatmap(
    lambda count: st.lists(st.integers(0, 2**20), min_size=count, max_size=count)
)


class Asked(Request):
    """A request, and all that became of it. It has no slots, so that it can be known to be gone.

    Attributes:
        number: its place among the others; it comes by an RPC of that name.
        plan: what it is.
        results: the kinds of what came, for each of its members.
        let_in: whether it was: else it was refused, which is its end.
        taken: whether it has left the queue for a run.
    """

    def __init__(self, number: int, plan: Plan, house: Chaos, now: float) -> None:
        deadline = now + plan.timeout * TICK
        shape = (plan.rows, plan.width if house.shapes else 1)
        self.values = number * MANY + np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        if plan.fault == "raises":
            self.values[:1] = -1
        key = shape[1:] if house.shapes else None
        super().__init__({"x": self.values}, ("y",), plan.rows, key, str(number), now, deadline,
                         plan.priority)  # fmt: skip
        self.number, self.plan, self._house = number, plan, house
        self.count, self.size = plan.members, plan.size
        self.results: list[list[type]] = [[] for _ in range(plan.members)]
        self.let_in = self.taken = False

    @property
    def sender(self) -> str:
        return self.plan.sender

    @property
    def is_over(self) -> bool:
        """Whether all of it has been answered, or told to be dropped."""
        return not self.let_in or self._house.tally.told(self) == self.count

    def split(self) -> Sequence[Request]:
        return [Member(self, place) for place in range(self.count)] if self.count > 1 else (self,)

    def apart(self, most: int) -> Sequence[tuple[int, Request]]:
        if self.count == 1:
            return super().apart(most)
        return [(place, Member(self, place)) for place in range(min(self.count, most))]

    def reply(self, result: Response | RequestError) -> Flush | None:
        self.check_answer(result)
        for place in range(self.count):
            self.answered(place, result, self.values[place : place + 1] if self.count > 1 else self.values)
        return self.replied(result)

    def check_answer(self, result: Response | RequestError) -> None:
        """Looks at a result before it is taken."""
        if isinstance(result, Response):
            assert not self.cancelled, "answered though nobody waits"
            assert result.run.finished <= self.deadline, "an answer after the deadline"
            assert result.queue_seconds >= 0

    def replied(self, result: Response | RequestError) -> Flush | None:
        """What follows from a result."""
        if self.plan.leaves and isinstance(result, Response):
            self._house.leave(self.plan.sender)
        return self._house.flush_of(self)

    def answered(self, place: int, result: Response | RequestError, values: Array) -> None:
        """Takes the result of one of its members."""
        if isinstance(result, RequestError):
            self.results[place].append(type(result))
            return
        if self.plan.fault == "reply":
            raise ReplyFailed
        found = result.outputs["y"]
        if self.count > 1 and len(found) > 1:
            found = found[place : place + 1]
        kept = values[: len(values) - (self.plan.fault == "short")]
        assert np.array_equal(found, 2 * kept + 1), "rows of another one"
        self.results[place].append(Response)


class Member(Request):
    """One of a block's requests, which is run by itself after the block has failed."""

    def __init__(self, block: Asked, place: int) -> None:
        values = block.values[place : place + 1]
        super().__init__({"x": values}, block.outputs, 1, block.shape_key, block.rpc, block.arrived,
                         block.deadline, block.priority)  # fmt: skip
        self._micro_batch, self._place = block, place

    @property
    def cancelled(self) -> bool:
        return self._micro_batch.cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        """Only the block is ever cancelled."""

    def reply(self, result: Response | RequestError) -> Flush | None:
        self._micro_batch.check_answer(result)
        self._micro_batch.answered(self._place, result, self.inputs["x"])
        return self._micro_batch.replied(result)


class ReplyFailed(Exception):
    """An answer that cannot be sent."""


EXPECTED = {repr(ReplyFailed())}


class Told:
    """The observer: counts what it hears of every request, and holds none."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.failed_as: dict[str, Counter[type]] = {}

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        assert run.started <= run.assembled <= run.finished <= answered
        self.done.update({each.rpc: each.count for each in requests if isinstance(each, Asked)})
        for each in requests:
            if isinstance(each, Member):
                self.done[each.rpc] += 1

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        assert seconds >= 0
        self.failed_as.setdefault(rpc, Counter())[type(error)] += count

    def on_event(self, event: str, **facts: object) -> None: ...

    def told(self, asked: Asked) -> int:
        """How often it has heard of a request, or of members of it."""
        return self.done[asked.rpc] + self.failed_as.get(asked.rpc, Counter()).total()


class Watched(Rows):
    """Looks at every run that begins."""

    packs_single = True

    def __init__(self, house: Chaos) -> None:
        super().__init__(batched=True)
        self._house = house

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        self.begins(batch)
        return super().assemble(batch)

    def alone(self) -> Packing:
        return WatchedAlone(self)

    def begins(self, batch: Sequence[Request]) -> None:
        """A run begins."""
        self._house.check(self._problem, batch)
        for each in batch:
            if isinstance(each, Asked):
                each.taken = True
        self._house.assembled = batch

    def _problem(self, batch: Sequence[Request]) -> None:
        house = self._house
        assert batch
        assert house.gathers or not house.unflushed, "the run holds up answers"
        assert len({each.shape_key for each in batch}) == 1
        # A block of more rows runs alone, and its parts are no larger.
        is_one = len({each.rpc for each in batch}) == 1
        assert is_one or sum(each.rows for each in batch) <= house.max_rows
        for each in batch:
            assert each.deadline + EPSILON > house.time.now, "run after its deadline"
            assert not each.cancelled, "run after it was cancelled"


class WatchedAlone(Alone):
    """Looks at every run that begins, once none has several requests."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        for each in batch:
            if isinstance(each, Asked):
                each.taken = True
        inputs = super().assemble(batch)
        self._watched.begins(batch)
        return inputs


class Chaos:
    """A batcher with its threads, and what comes to it."""

    def __init__(self, house: House, time: Simulation) -> None:
        self.time, self.tally = time, Told()
        self.max_rows, self.gathers, self.shapes = house.max_rows, house.gathers, house.shapes
        self.problems: list[str] = []
        self.asked: list[Asked] = []
        self._house = house
        self._flushes: dict[str, Flush] = {}
        self.unflushed: set[str] = set()
        self.assembled: Sequence[Request] = ()
        self._going: dict[RunControl, Sequence[Request]] = {}
        self._stopping = False
        base, row = house.run
        self.providers, self.signature, self.file = (), signature_of([spec("x")], [spec("y")]), None
        self.total = QueueTotal(QueueLimits(2 * house.queue_rows, 2 * house.queue_bytes))
        self.batcher = DynamicBatcher(
            self,  # type: ignore[arg-type]
            policy(max_rows=house.max_rows, queue_rows=house.queue_rows, queue_bytes=house.queue_bytes,
                   runs_in_parallel=house.parallel, max_delay_seconds=house.delay * TICK),
            RunCost((base + row) * TICK, 2, (base + 2 * row) * TICK, measured=house.measured),
            Watched(self),
            self.total,
            Isolation(2, 5 * TICK, 4 * TICK, lambda: not house.broken),
        )  # fmt: skip
        self.batcher.observer = self.tally

    # The model

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: RunControl) -> Sequence[Array]:
        """y = 2 x + 1, as quick as expected or not; it fails on numbers below 0."""
        x, (base, row) = inputs["x"], self._house.run
        luck = random.Random(int(x.sum())).choice((0.0, 1.0, 1.0, 1.0, 1.0, 9.0))
        heeded = stop if self._house.heeds else None
        self._going[stop], self.assembled = self.assembled, ()
        try:
            self.time.pause(luck * (base + row * len(x)) * TICK, heeded)
        finally:
            del self._going[stop]
        if heeded is not None and heeded.stopped:
            raise ModelFailed("ended")
        short = any(
            self.asked[number].plan.fault == "short" for number in {*(x // MANY).ravel().tolist()} - {-1}
        )
        if (x < 0).any() or (short and not self._house.drops):
            raise random.Random(len(x)).choice((ModelFailed, RuntimeError))("on a number below 0")
        return [2 * x[: len(x) - short] + 1]

    def close(self) -> None: ...

    # What happens

    def play(self, numbers: Sequence[int]) -> None:
        """Lets requests come, and all that follows from it happen, until nothing does any more."""
        start = self.time.now
        for plan in map(plan_of, numbers):
            self.time.at(start + plan.arrives * TICK, lambda plan=plan: self._arrive(plan))  # type: ignore[misc]
        if self._house.stops is not None:
            drained, ended = self._house.stops
            self.time.at(start + drained * TICK, self._drain)
            self.time.at(start + ended * TICK, lambda: self.batcher.fail_all(Unavailable("stopped")))
        self.time.at(start, self._sweep)
        for _ in range(MOST_STEPS):
            if not self.time.step():
                return
            self._look()
            self._check_waiting()
        raise AssertionError("there is no end to it")

    def leave(self, sender: str) -> None:
        """A caller gives up all that is under way."""
        for each in self.asked:
            if each.sender == sender and not each.is_over:
                self.batcher.cancel(each)

    def flush_of(self, asked: Asked) -> Flush | None:
        """What lets the answers out that a caller has been given; some have none."""
        sender = asked.sender
        if sender == "a":
            return None
        self.unflushed.add(sender)
        return self._flushes.setdefault(sender, lambda: self.unflushed.discard(sender))

    def _arrive(self, plan: Plan) -> None:
        asked = Asked(len(self.asked), plan, self, self.time.now)
        self.asked.append(asked)
        if self._stopping:
            return
        was_idle = not self.batcher.waiting_rows and not self.batcher.running_batches
        try:
            self.batcher.put(asked)
        except RequestError as error:
            self.check(self._check_refusal, asked, error, was_idle)
            return
        asked.let_in = True
        if plan.cancelled is not None:
            self.time.at(self.time.now + plan.cancelled * TICK, lambda: self._cancel(asked))

    def _cancel(self, asked: Asked) -> None:
        was_over = asked.is_over
        self.batcher.cancel(asked)
        if not was_over and not asked.taken:
            self.check(self._check_over, asked)

    def _drain(self) -> None:
        self._stopping = True
        self.batcher.drain()

    def _sweep(self) -> None:
        now = self.time.now
        self.batcher.expire(now)
        for each in self.asked:
            if each.deadline <= now and not each.taken:
                self.check(self._check_over, each)
        for stop, batch in self._going.items():
            self.check(self._check_stopped, stop, batch, now)
        if self.time.is_anything_to_come or any(not each.is_over for each in self.asked):
            self.time.at(now + SWEEP_TICKS * TICK, self._sweep)

    def _look(self) -> None:
        """What a runner does: runs what is due as long as there is a thread, or looks again later."""
        while self.batcher.waiting_rows and self.batcher.may_run() and (worker := self.time.idle()):
            due = self.batcher.due(self.time.now)
            if due > self.time.now:
                self.check(self._check_due, due)
                self.time.at(due, lambda: None)
                return
            worker.work = self._run_once
            self.time.let_act(worker)
            assert set(worker.errors) <= EXPECTED

    def _run_once(self) -> None:
        later: dict[Flush, None] | None = {} if self._house.gathers else None
        try:
            self.batcher.run_once(later)
        finally:
            for flush in later or ():
                flush()

    # What must be so

    def check(self, what: Any, *of: Any) -> None:
        """Notes what is not as it should be: an exception might be taken for the model's."""
        try:
            what(*of)
        except AssertionError as error:
            self.problems.append(f"{error} {of}")

    def _check_refusal(self, asked: Asked, error: RequestError, was_idle: bool) -> None:
        if isinstance(error, Unavailable):
            assert self.batcher.breaker.is_open
        elif asked.deadline <= asked.arrived:
            assert isinstance(error, DeadlineExpired)
        else:
            assert isinstance(error, QueueFull | Overloaded | DeadlineExpired), error
            assert error.retry_after_seconds is not None
            assert error.retry_after_seconds >= 0
            assert not was_idle, "refused though there was nobody"

    def _check_over(self, asked: Asked) -> None:
        assert asked.is_over, "not told so at once"

    def _check_stopped(self, stop: RunControl, batch: Sequence[Request], now: float) -> None:
        is_wanted = any(not each.cancelled and each.deadline > now for each in batch)
        assert stop.stopped != is_wanted, "a run goes on for nobody, or is ended though somebody waits"

    def _check_due(self, due: float) -> None:
        assert due <= self.time.now + self._house.delay * TICK, "held back for too long"

    def _check_waiting(self) -> None:
        waiting = [each for each in self.asked if each.let_in and not each.taken and not each.is_over]
        rows, size = sum(each.rows or 1 for each in waiting), sum(each.size for each in waiting)
        assert (self.batcher.waiting_rows, self.batcher.waiting_bytes) == (rows, size)
        assert (self.total.rows, self.total.bytes) == (rows, size)
        self._check_limit([each.rows or 1 for each in waiting], self._house.queue_rows)
        self._check_limit([each.size for each in waiting], self._house.queue_bytes)

    def _check_limit(self, waiting: Sequence[int], most: int) -> None:
        """One request above the limit may wait, and leaves the lower half of it to others."""
        above = [each for each in waiting if each > most]
        assert len(above) <= 1
        others = sum(waiting) - sum(above)
        assert others <= (most // 2 if above else most)

    def check_end(self) -> None:
        """All is over, and adds up."""
        assert self.problems == []
        for each in self.asked:
            self._check_end_of(each)
        assert (self.batcher.waiting_rows, self.batcher.waiting_bytes, self.batcher.running_batches) == (
            0,
            0,
            0,
        )
        assert self.batcher.backlog() == (self.total.rows, self.total.bytes) == (0, 0)
        assert not self.unflushed, "answers were not let out"
        errors = [error for worker in self.time.workers for error in worker.errors]
        assert set(errors) <= EXPECTED

    def _check_end_of(self, asked: Asked) -> None:
        told = self.tally.told(asked)
        came = Counter(kind for results in asked.results for kind in results)
        if not asked.let_in:
            assert (told, came.total()) == (0, 0)
            return
        assert told == asked.count, "not told once"
        assert all(len(results) <= 1 for results in asked.results), "answered twice"
        failed = self.tally.failed_as.get(asked.rpc, Counter())
        assert came[Response] == self.tally.done[asked.rpc]
        dropped = failed - came  # told to the observer only
        assert asked.cancelled or not dropped, "no answer"
        assert set(dropped) <= {RequestCancelled, DeadlineExpired}
        if asked.plan.fault and not (asked.plan.fault == "short" and self._house.drops):
            assert asked.count > 1 or Response not in came
        else:
            assert ModelFailed not in failed, "failed though there was nothing wrong with it"


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """What is there already is not looked through again every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@few
@given(REQUESTS, HOUSES)
def test_every_request_ends_once(numbers: list[int], house: House) -> None:
    every_request_ends_once(numbers, house)


def every_request_ends_once(numbers: list[int], house: House) -> None:
    with simulated(house.parallel) as time:
        chaos = Chaos(house, time)
        chaos.play(numbers)
        chaos.check_end()
        gone = [weakref.ref(each) for each in chaos.asked]
        chaos.asked.clear()
        gc.collect(0)
        if any(each() is not None for each in gone):
            gc.collect()
        assert [each() for each in gone if each() is not None] == []


# What was found


def test_of_several_shapes_nobody_is_refused_where_nothing_waits_or_runs() -> None:
    """A first run that was slow would keep out all with less time than it took, for ever."""
    with simulated(1) as time:
        slow = [1.0]

        def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
            time.now += slow.pop() if slow else 0.001
            return echo(outputs, inputs)

        made, _ = batcher(run)
        made.put(request(arrived=time.now, shape_key=((4,),)))
        made.run_once()
        made.put(request(arrived=time.now, deadline=time.now + 0.5, shape_key=((4,),)))


def test_who_is_too_late_for_a_retry_is_told_before_it_runs() -> None:
    with simulated(1) as time:
        flushed: list[float] = []

        class Caught(Caller):
            def __call__(self, result: object) -> Flush:
                super().__call__(result)  # type: ignore[arg-type]
                return lambda: flushed.append(time.now)

        def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
            time.now += 1.0
            if (inputs["x"] < 0).any():
                raise ModelFailed("on a number below 0")
            return echo(outputs, inputs)

        made, _ = batcher(run)
        late = request(arrived=time.now, deadline=time.now + 1.5, reply=Caught())
        run_all(
            made, request([-1], arrived=time.now), request(arrived=time.now), late, request(arrived=time.now)
        )
        assert flushed[0] < late.arrived + 4.5, "its half runs from the fourth second on"
