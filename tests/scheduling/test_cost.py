"""What a run is expected to cost follows what runs cost."""

from __future__ import annotations

import math
import random
from statistics import median

import numpy as np
import pytest

from penstock.core.memory import new_memory_seconds
from penstock.scheduling.cost import (
    FIRST_RUNS,
    LEVEL_STEP,
    MOST_OFF,
    SETTLED_RUNS,
    RunCost,
    RunCosts,
    bucket,
    elements,
)


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


def test_large_outputs_may_need_new_memory() -> None:
    cost = RunCost(1.0, 11, 2.0)
    assert cost.expect_in_new_memory(11) == cost.expect(11)
    outputs = [np.zeros((4, 1000)), np.zeros((4, 24))]
    cost.learn(4, cost.expect(4), outputs)
    cost.learn(2, cost.expect(2), [np.zeros(2)])
    assert cost.row_bytes == 8 * 1024
    for rows in (1, 11):
        more = rows * 8 * 1024 * new_memory_seconds()
        assert cost.expect_in_new_memory(rows) == pytest.approx(cost.expect(rows) + more, abs=0.0)


def test_outputs_of_quick_runs_are_not_looked_at() -> None:
    cost = RunCost(1e-5)
    cost.learn(1, 1e-5, [np.zeros(10)])
    assert cost.row_bytes == 0.0


@pytest.mark.parametrize("actual", [0.02, 5.0])
def test_it_finds_what_runs_take(actual: float) -> None:
    cost = RunCost(1.0, 11, 2.0)
    for _ in range(200):
        cost.learn(1, actual)
    assert cost.expect(1) == pytest.approx(actual, rel=0.02)
    assert cost.expect(11) == pytest.approx(2 * actual, rel=0.02)


def test_an_outlier_moves_it_by_one_step() -> None:
    cost = RunCost(1.0)
    for _ in range(FIRST_RUNS):
        cost.learn(1, 1.0)
    cost.learn(1, 1e6)
    assert cost.expect(1) == pytest.approx(1 + LEVEL_STEP * MOST_OFF)
    cost.learn(1, 0.0)
    assert cost.expect(1) == pytest.approx(1.0, rel=0.01)


def test_the_first_runs_count_for_more() -> None:
    """At load nothing else runs, and all is in the caches: a run was expected to take a twentieth of this."""
    cost = RunCost(9e-6)
    for _ in range(FIRST_RUNS):
        cost.learn(1, 163e-6)
    assert cost.expect(1) > 100e-6


def test_a_first_run_that_was_held_up_is_forgotten() -> None:
    cost = RunCost(1.0)
    for seconds in (1e6, *[1.0] * (FIRST_RUNS - 1)):
        cost.learn(1, seconds)
    assert cost.expect(1) == pytest.approx(1.0, rel=0.1)


def test_empty_runs_leave_the_line_sane() -> None:
    cost = RunCost(1.5e-3, 11, 3e-3)
    cost.learn(1, 1.5e-3)
    for _ in range(20_000):
        cost.learn(0, 1.4e-3)
    assert 0 <= cost.row_seconds < 3e-4
    assert cost.expect(1) == pytest.approx(1.5e-3, rel=0.2)
    assert cost.expect(11) < 6e-3
    assert cost.rows_within(1.0) > 100


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
    assert cost.expect(1) == pytest.approx(3.0, rel=0.02)


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


def line(cost: RunCost) -> tuple[float, float]:
    return cost.base_seconds, cost.row_seconds


def taught(cost: RunCost, rows: list[int], base: float, per_row: float, noise: float = 0.0) -> RunCost:
    chance = random.Random(2)
    for each in rows:
        cost.learn(each, (base + each * per_row) * chance.uniform(1 - noise, 1 + noise))
    return cost


@pytest.mark.parametrize("per_row", [0.0, 0.01, 0.1])
def test_it_finds_the_slope_where_the_rows_vary(per_row: float) -> None:
    chance = random.Random(1)
    rows = [chance.randint(1, 32) for _ in range(600)]
    cost = taught(RunCost(1.0, 32, 2.0), rows, 1.0, per_row, noise=0.1)
    for each in (1, 16, 32):
        assert cost.expect(each) == pytest.approx(1.0 + each * per_row, rel=0.15)


def test_a_slope_nobody_measured_is_found_as_well() -> None:
    cost = taught(RunCost(1.0), [1, 16, 4, 32] * 100, 0.1, 0.5)
    assert cost.expect(1) == pytest.approx(0.6, rel=0.2)
    assert cost.expect(32) == pytest.approx(16.1, rel=0.1)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_where_the_rows_hardly_vary_the_slope_keeps_its_share(rows: int) -> None:
    """All runs of one size, twice as slow as measured: that says nothing of how rows and base share it."""
    cost = taught(RunCost(1.0, 11, 2.0), [rows] * 300, *[2 * each for each in line(RunCost(1.0, 11, 2.0))])
    assert line(cost) == pytest.approx((1.8, 0.2), rel=0.02)


def test_it_never_becomes_negative() -> None:
    cost = RunCost(1.0, 11, 2.0)
    chance = random.Random(3)
    for _ in range(2000):
        cost.learn(chance.randint(0, 64), chance.choice([0.0, 1e-9, 1e3, 1e9]))
        assert cost.expect(0) >= 0.0
        assert cost.expect(64) >= cost.expect(1) >= 0.0


def test_the_spread_is_what_one_run_in_twenty_exceeds() -> None:
    cost = RunCost(1.0)
    chance = random.Random(4)
    for _ in range(5000):
        cost.learn(1, chance.uniform(0.6, 1.4))
    assert cost.spread * cost.expect(1) == pytest.approx(1.36, abs=0.08)


def test_within_a_time_fits_less_where_runs_spread() -> None:
    steady, spread = RunCost(1.0, 11, 2.0), RunCost(1.0, 11, 2.0)
    spread.spread = 1.5
    assert steady.rows_within(3.0) == 21
    assert spread.rows_within(3.0) == 11


def test_of_quick_runs_only_some_move_the_line() -> None:
    cost = taught(RunCost(1e-5), [1] * SETTLED_RUNS, 1e-5, 0.0)
    moves = set()
    for _ in range(8):
        cost.learn(1, 1.1e-5)
        moves.add(cost.expect(1))
    assert len(moves) == 3  # as it was, and after each of two


def test_sizes_of_shapes_have_lines_of_their_own() -> None:
    costs = RunCosts(RunCost(1.0))
    short, long = ((16,), (16,)), ((500,), (500,))
    assert not costs.of(short).is_known
    assert costs.of(short).expect(1) == pytest.approx(1.0)
    for _ in range(50):
        costs.of(short).learn(1, 0.5)
        costs.of(long).learn(1, 8.0)
    assert costs.of(((15,), (15,))) is costs.of(short)  # the same power of two
    assert costs.of(long).expect(1) == pytest.approx(8.0)
    assert {size: each.expect(1) for size, each in costs.lines().items()} == {
        32: pytest.approx(0.5),
        1024: pytest.approx(8.0),
    }


def test_an_unknown_size_is_expected_to_cost_what_the_nearest_does() -> None:
    costs = RunCosts(RunCost(1.0))
    costs.of(((16,),)).learn(1, 0.5)
    costs.of(((4096,),)).learn(1, 64.0)
    assert costs.of(((2000,),)).expect(1) == 64.0
    assert costs.of(((8,),)).expect(1) == 0.5


def test_where_shapes_do_not_differ_there_is_one_line() -> None:
    costs = RunCosts(RunCost(1.0))
    assert costs.of(None) is costs.first
    assert costs.lines() == {0: costs.first}


@pytest.mark.parametrize(
    ("key", "count"),
    [(None, 0), ((), 1), ((3, 4), 12), (((3, 4), (5,)), 17), ((((2, 3),), b"x"), 6), (((), (7,)), 8)],
)
def test_the_elements_of_a_key(key: object, count: int) -> None:
    assert elements(key) == count


def test_a_bucket_is_the_next_power_of_two() -> None:
    assert [bucket(size) for size in (0, 1, 2, 3, 4, 5, 1023, 1024)] == [1, 1, 2, 4, 4, 8, 1024, 1024]
