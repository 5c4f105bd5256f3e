"""How much of a model's best rate is answered in time under overload, in simulated time on one core.

While a run goes on, calls arrive and are admitted or rejected: that takes time from the run, as it does where
both share a core.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from penstock.core.errors import RequestError
from penstock.core.request import Response
from penstock.core.tensors import Array
from penstock.scheduling import batcher
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.execution import execution, failures
from support.work import HandBackend, echo, policy, request

DEADLINE = 0.05
TAKE, REJECT, ANSWER, WAKE = 100e-6, 80e-6, 40e-6, 60e-6
"""In seconds: to admit a call, to reject it, to answer it; and to wake a runner for a batch."""
IN_FLIGHT = 8  # where the best rate is measured
MAX_ROWS = 32


class Core:
    """One core with calls at random times.

    Args:
        base: of a run, in seconds.
        row: what each row adds.
    """

    def __init__(self, base: float, row: float, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self._base, self._row = base, row
        self._random = random.Random(0)
        self._arrivals: list[float] = []
        self.in_time = self.late = self.rejected = 0
        for module in (batcher, execution, failures):
            patch.setattr(module, "time", self)
        cost = RunCost(base + row, 2, base + 2 * row)
        self._batcher = DynamicBatcher(HandBackend(self._run), policy(max_rows=MAX_ROWS), cost)

    def monotonic(self) -> float:
        """The time, for modules that take this for the module `time`."""
        return self.now

    thread_time = monotonic

    @property
    def best(self) -> float:
        """Answers a second with eight calls in flight: half of them run while the others wait."""
        rows = IN_FLIGHT / 2
        return rows / (self._base + rows * (self._row + TAKE + ANSWER) + WAKE)

    def offer(self, rate: float, seconds: float) -> None:
        """Has calls arrive at a rate, until all have ended."""
        at, end = self.now, self.now + seconds
        while (at := at + self._random.expovariate(rate)) < end:
            self._arrivals.append(at)
        self._arrivals.reverse()
        while self._arrivals or self._batcher.waiting_rows:
            if not self._batcher.waiting_rows:
                self._arrive()
                continue
            while self._arrivals and self._arrivals[-1] <= self.now:
                self._arrive()
            self._batcher.expire(self.now)
            self.now += WAKE
            self._batcher.run_once()

    def _arrive(self) -> None:
        self.now = max(self.now, self._arrivals.pop())
        made = request([1.0], arrived=self.now, deadline=self.now + DEADLINE, reply=self._ended)
        try:
            self._batcher.put(made)
            self.now += TAKE
        except RequestError:
            self.rejected += 1
            self.now += REJECT

    def _ended(self, result: Response | RequestError) -> None:
        self.now += ANSWER
        if isinstance(result, Response):
            self.in_time += 1
        else:
            self.late += 1

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        seconds = (self._base + len(inputs["x"]) * self._row) * max(self._random.gauss(1.0, 0.05), 0.8)
        end = self.now + seconds
        while self._arrivals and self._arrivals[-1] < end:
            before = self.now = max(self.now, self._arrivals[-1])
            self._arrive()
            end += self.now - before
        self.now = max(self.now, end)
        return echo(outputs, inputs)


MODELS = {  # base and row, in milliseconds
    "1 ms a row": (0.0, 1.0),
    "2 ms a row": (0.0, 2.0),
    "5 ms a row": (0.0, 5.0),
    "2 ms with a small base": (0.5, 1.5),
    "2 ms with a base": (1.0, 1.0),
    "mostly base": (4.0, 1.0),
    "a dear row with a base": (2.0, 4.0),
}


@pytest.mark.parametrize(("load", "share"), [(2.0, 0.85), (3.0, 0.75)])
@pytest.mark.parametrize("model", MODELS)
def test_most_of_the_best_rate_is_answered_in_time(
    model: str, load: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, row = MODELS[model]
    core = Core(base / 1e3, row / 1e3, monkeypatch)
    core.offer(load * core.best, 3.0)
    calls = core.in_time + core.late + core.rejected
    assert core.in_time > share * core.best * 3.0
    assert core.late < 0.06 * calls, "admitted in vain"


@pytest.mark.parametrize("load", [0.3, 0.6])
@pytest.mark.parametrize("model", MODELS)
def test_what_can_be_served_is_not_rejected(model: str, load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    base, row = MODELS[model]
    core = Core(base / 1e3, row / 1e3, monkeypatch)
    core.offer(load * core.best, 3.0)
    calls = core.in_time + core.late + core.rejected
    assert core.in_time >= 0.995 * calls


def test_a_burst_that_fits_is_admitted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(0.004, 0.001, monkeypatch)
    core._arrivals = [core.now + 0.01 + number * 1e-5 for number in range(24)]
    core.offer(1e-9, 0.001)
    assert (core.in_time, core.late, core.rejected) == (24, 0, 0)
