"""What a run is expected to cost follows what runs cost."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest

from penstock.scheduling.cost import STEP, RunCost


@pytest.mark.parametrize("rows", [0, 1, 8, 1000])
def test_one_measured_run_says_nothing_of_rows(rows: int) -> None:
    assert RunCost(0.25).expect(rows) == pytest.approx(0.25)


def test_two_measured_runs_give_a_line() -> None:
    cost = RunCost(1.0, 11, 3.0)
    assert [cost.expect(rows) for rows in (1, 6, 11, 21)] == pytest.approx([1.0, 2.0, 3.0, 5.0])


def test_more_rows_never_cost_less() -> None:
    """Many rows that were quicker than one were a disturbed measurement."""
    cost = RunCost(1.0, 11, 0.5)
    assert cost.expect(11) == cost.expect(1) == 1.0


def test_rows_dearer_than_the_run_itself_leave_no_negative_base() -> None:
    cost = RunCost(1.0, 2, 10.0)
    assert cost.expect(0) == 0.0
    assert cost.expect(2) == pytest.approx(18.0)


@pytest.mark.parametrize("actual", [0.02, 5.0])
def test_it_finds_what_runs_take(actual: float) -> None:
    cost = RunCost(1.0, 11, 2.0)
    for _ in range(200):
        cost.learn(1, actual)
    assert cost.expect(1) == pytest.approx(actual, rel=STEP - 1)
    assert cost.expect(11) == pytest.approx(2 * actual, rel=STEP - 1)


def test_an_outlier_moves_it_by_one_step() -> None:
    cost = RunCost(1.0)
    cost.learn(1, 1e6)
    assert cost.expect(1) == pytest.approx(STEP)
    cost.learn(1, 0.0)
    assert cost.expect(1) == pytest.approx(1.0)


def test_it_follows_the_median_and_not_the_mean() -> None:
    chance = random.Random(1)
    taken = [chance.uniform(0.9, 1.1) if chance.random() < 0.7 else 100.0 for _ in range(2001)]
    cost = RunCost(10.0)
    for seconds in taken:
        cost.learn(1, seconds)
    assert cost.expect(1) == pytest.approx(median(taken), rel=0.2)


def test_runs_of_other_sizes_teach_it_too() -> None:
    cost = RunCost(1.0, 11, 2.0)
    for _ in range(200):
        cost.learn(11, 6.0)
    assert cost.expect(1) == pytest.approx(3.0, rel=STEP - 1)


def test_a_guess_is_replaced_by_the_first_run() -> None:
    cost = RunCost(1.0, measured=False)
    assert (cost.is_known, cost.expect(1), cost.rows_within(0.001)) == (False, 1.0, math.inf)
    cost.learn(1, 0.002)
    assert (cost.is_known, cost.expect(1)) == (True, 0.002)


@pytest.mark.parametrize(
    ("seconds", "rows"), [(0.9, 0), (1.0, 1), (1.19, 1), (1.21, 2), (3.01, 11), (100.0, 496)]
)
def test_rows_within_a_time(seconds: float, rows: int) -> None:
    assert RunCost(1.0, 11, 3.0).rows_within(seconds) == pytest.approx(rows, abs=1 if seconds > 3.1 else 0)


def test_rows_that_cost_nothing_are_without_end() -> None:
    assert RunCost(1.0).rows_within(1.5) == math.inf
    assert RunCost(1.0).rows_within(0.5) == 0
