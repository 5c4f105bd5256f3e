"""Slow models are run a few times only, and batched only if that saves time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.backends.backend import RunControl
from penstock.config import BatchingConfig, RuntimeConfig
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.checks.cost import in_words, is_worth_batching
from penstock.models.checks.fit import fit
from penstock.models.checks.trying import undisturbed
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN
from penstock.models.trial import learning
from penstock.scheduling.cost import RunCost
from support.work import HandBackend, signature_of, spec

ROW_WISE = GraphFacts(Verdict.ROW_WISE, "")
STEP = 0.01


class Clocked(HandBackend):
    """Takes as long as told by its rows, on a clock that only its runs move.

    Attributes:
        sizes: the rows of each run.
        freed: the rows of the runs after which memory was freed.
    """

    def __init__(self, seconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.freed: list[int] = []
        self.now = 0.0
        self._seconds = seconds
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        super().__init__(self._clocked)

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: RunControl | None = None
    ) -> Sequence[Array]:
        if stop is not None and stop.is_large:
            self.freed.append(len(inputs["x"]))
        return super().run(outputs, inputs, stop)

    def _clocked(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows = len(inputs["x"])
        self.sizes.append(rows)
        self.now += self._seconds(rows)
        return [inputs["x"] * np.float32(2)]


def fitted(
    backend: HandBackend, enabled: bool | str = "auto", asked: bool = False, **settings: int
) -> tuple[Batching, RunCost, int]:
    return fit(backend, enabled, BatchingConfig(**settings), UNKNOWN, ROW_WISE, asked)  # type: ignore[arg-type]


def test_rows_that_take_as_long_together_as_one_by_one_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clocked(lambda rows: 0.061 * rows, monkeypatch)
    batching, cost, _ = fitted(backend)
    assert batching == Batching(
        False, "rows together take as long as one by one: 61 ms a row", proven=Verdict.ROW_WISE
    )
    assert cost.expect(1) == pytest.approx(0.061)
    assert sum(backend.sizes) <= 10, "a few runs of one row"


@pytest.mark.parametrize(
    ("base", "row", "batched"),
    [(0.0015, 0.0015, True), (0.0, 0.003, False), (0.004, 0.004, True), (0.0, 0.008, False)],
)
def test_a_busy_machine_does_not_decide(
    base: float, row: float, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fourth run takes more than twice as long, at random."""
    for seed in range(25):
        random = Random(seed)

        def seconds(rows: int, random: Random = random) -> float:
            return (base + row * rows) * random.choice((1.0, 1.0, 1.0, 2.5))

        found, _, _ = fitted(Clocked(seconds, monkeypatch))
        assert found.enabled is batched, f"seed {seed}: {found.reason}"


@pytest.mark.parametrize(("base", "row", "batched"), [(0.0012, 0.0012, True), (0.0, 0.0024, False)])
def test_long_runs_that_others_interrupt_do_not_decide(
    base: float, row: float, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full machine a long run is interrupted more often than a short one, in every round."""

    def on_the_wall(rows: int) -> float:
        return (base + row * rows) * (1 + 0.5 * rows)

    by_wall, *_ = fitted(Clocked(on_the_wall, monkeypatch))
    assert not by_wall.enabled
    worked = 0.0

    def seconds(rows: int) -> float:
        nonlocal worked
        worked += base + row * rows
        return on_the_wall(rows)

    backend = Clocked(seconds, monkeypatch)
    found, cost, _ = fit(backend, "auto", BatchingConfig(), UNKNOWN, ROW_WISE, clock=lambda: worked)
    assert found.enabled is batched, found.reason
    assert cost.expect(1) == pytest.approx(base + row)


def test_which_runs_are_timed_by_the_work_of_a_processor() -> None:
    backend = HandBackend(lambda outputs, inputs: [])
    backend.providers = ("CPUExecutionProvider",)
    assert undisturbed(backend, 1) is time.thread_time
    assert undisturbed(backend, 2) is None, "another thread may do a part of it"
    backend.providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert undisturbed(backend, 1) is None, "a device may do a part of it"


@pytest.mark.parametrize(
    ("threads", "clock"),
    [({}, time.thread_time), ({"inter_op_threads": 2}, None), ({"intra_op_threads": 2}, None)],
)
def test_a_run_that_several_threads_work_on_is_timed_by_the_wall(threads: Any, clock: Any) -> None:
    backend = HandBackend(lambda outputs, inputs: [])
    backend.providers = ("CPUExecutionProvider",)
    candidate: Any = SimpleNamespace(runtime=RuntimeConfig(**{"intra_op_threads": 1, **threads}))
    found: Any = SimpleNamespace(backend=backend, cores=1)
    assert learning._clock(candidate, found) is clock


@pytest.mark.parametrize(
    ("times", "rows"),
    [
        ({2: 1.98, 4: 3.1, 8: 3.5, 32: 6.5}, 4),
        ({2: 4.6, 4: 4.7, 8: 5.0, 32: 6.5}, 32),
        ({2: 1.9, 4: 3.8, 8: 3.9, 32: 12.0}, 8),
        ({2: 4.6, 4: 4.7, 8: 7.1, 32: 25.0}, 0),
        ({2: 2.0, 4: 4.0, 8: 7.3, 32: 4.0}, 0),
    ],
)
def test_a_line_through_few_rows_does_not_decide(
    times: Mapping[int, float], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of as many rows over that of one: they need not lie on a line."""
    known = {1: 1.0, **times}

    def seconds(count: int) -> float:
        return 0.0023 * float(np.interp(count, list(known), list(known.values())))

    found, cost, most = fitted(Clocked(seconds, monkeypatch))
    assert found.enabled is bool(rows), found.reason
    if rows:
        assert most == rows
        assert cost.expect(rows) == pytest.approx(seconds(rows))


def test_what_is_clear_is_not_measured_often(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clocked(lambda rows: 0.002 * rows, monkeypatch)
    fitted(backend)
    often = sum(backend.sizes)
    backend = Clocked(lambda rows: 0.002 * (0.1 + 0.9 * rows), monkeypatch)
    fitted(backend)
    assert sum(backend.sizes) > often


def test_the_settings_may_ask_for_batching_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for how in ({"enabled": True}, {"asked": True}):
        assert fitted(Clocked(lambda rows: STEP * rows, monkeypatch), **how)[0].enabled  # type: ignore[arg-type]


def test_a_slow_first_run_of_two_rows_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def seconds(rows: int) -> float:
        seen.append(rows)
        return 0.05 if rows == 2 and seen.count(2) == 1 else STEP + 0.001 * rows

    assert fitted(Clocked(seconds, monkeypatch))[0].enabled


@pytest.mark.parametrize(
    ("base", "row", "rows"),
    [(0.0009, 0.0001, 64), (0.010, 0.0005, 16), (0.010, 0.002, 4), (0.010, 0.008, 2), (0.100, 0.020, 4)],
)
def test_the_most_rows_of_a_slow_model_take_about_twice_as_long_as_one(
    base: float, row: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Clocked(lambda count: base + row * count, monkeypatch)
    batching, cost, most = fitted(backend)
    assert batching.enabled, batching.reason
    assert most == rows
    assert cost.expect(rows) == pytest.approx(base + row * rows)
    assert rows in backend.sizes, "what is run together was compared"


def test_rows_of_a_setting_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    batching, _, most = fitted(Clocked(lambda rows: STEP + 0.001 * rows, monkeypatch), max_rows=50)
    assert (batching.enabled, most) == (True, 50)


def test_a_slow_model_is_compared_by_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clocked(lambda rows: 0.5 + 0.05 * rows, monkeypatch)
    assert fitted(backend)[0].enabled
    assert backend.sizes.count(1) <= 7


@pytest.mark.parametrize("seconds", [1e-5, STEP])
def test_memory_of_larger_batches_is_freed(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clocked(lambda rows: seconds * (1 + 0.01 * rows), monkeypatch)
    assert fitted(backend)[0].enabled
    assert backend.freed == [1]


def test_what_is_switched_off_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clocked(lambda rows: STEP, monkeypatch)
    assert not fitted(backend, enabled=False)[0].enabled
    assert set(backend.sizes) == {1}
    assert backend.freed == []


@pytest.mark.parametrize(("many", "worth"), [(8.0, False), (7.3, False), (7.1, True), (1.0, True)])
def test_worth(many: float, worth: bool) -> None:
    assert is_worth_batching(RunCost(1.0, 8, many), 8) is worth


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0612, "61 ms"), (0.0061, "6.1 ms"), (0.61, "610 ms"), (2.5, "2500 ms")]
)
def test_times_for_people(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_lengths_at_which_one_row_fails_are_not_tried_with_several() -> None:
    signature = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows, length = inputs["x"].shape
        assert rows == 1 or length >= 512, "this would end the process"
        if length < 512:
            raise ModelFailed("too short")
        return [inputs["x"]]

    batching, cost, _ = fitted(HandBackend(run, signature))
    assert batching.enabled, batching.reason
    assert cost.is_known


def test_a_model_on_which_one_row_fails_is_not_tried_with_several() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        assert len(inputs["x"]) == 1, "this would end the process"
        raise ModelFailed("no")

    batching, cost, _ = fitted(HandBackend(run))
    assert batching.reason == "the model fails on every generated input: no"
    assert not cost.is_known
