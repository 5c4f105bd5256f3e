"""When a request will be answered, and how fast requests come, in simulated time."""

from __future__ import annotations

import math

import pytest

from penstock.scheduling.cost import RunCost
from penstock.scheduling.estimates import Arrivals, WaitEstimate

COST = RunCost(1.0, 11, 2.0)  # 0.9 s and 0.1 s a row


def seconds(ahead: float, rows: int = 1, *, most: int = 1, ends: tuple[float, ...] = ()) -> float:
    runs = WaitEstimate(most)
    for end in ends:
        runs.run_started(end)
    return runs.seconds_to_answer(ahead, rows, 8, COST, 100.0)


def test_where_nothing_is_ahead_it_takes_its_own_run() -> None:
    assert seconds(0) == pytest.approx(1.0)
    assert seconds(0, rows=20) == pytest.approx(2.9)


def test_it_shares_a_run_with_what_is_ahead_and_fits() -> None:
    assert seconds(3) == pytest.approx(1.3)
    assert seconds(7) == pytest.approx(1.7)
    assert seconds(8) == pytest.approx(1.7 + 1.0), "a full batch, and then its own"
    assert seconds(7, rows=2) == pytest.approx(1.1), "no less than that: what does not fit is not counted"


def test_runs_share_what_is_ahead() -> None:
    assert seconds(16, most=2) == pytest.approx(1.7 + 1.0)


def test_runs_that_go_on_are_waited_for_where_no_more_may_begin() -> None:
    assert seconds(0, ends=(100.5,)) == pytest.approx(1.5)
    assert seconds(0, most=2, ends=(100.5,)) == pytest.approx(1.0)
    assert seconds(0, most=2, ends=(100.5, 100.2)) == pytest.approx(1.2)
    assert seconds(0, ends=(99.0,)) == pytest.approx(1.0), "it should have ended already"


def test_an_ended_run_is_forgotten() -> None:
    runs = WaitEstimate(1)
    runs.run_started(105.0)
    runs.run_ended(105.0)
    assert runs.seconds_to_answer(0, 1, 8, COST, 100.0) == pytest.approx(1.0)


def test_how_fast_rows_come_is_learned() -> None:
    arrivals = Arrivals()
    assert arrivals.until(1) == math.inf
    arrivals.note(1, 10.0)
    assert arrivals.until(1) == math.inf, "one says nothing of how fast"
    for number in range(1, 200):
        arrivals.note(2, 10.0 + number)
    assert arrivals.until(4) == pytest.approx(209.0 + 2.0)
    for number in range(200):
        arrivals.note(1, 209.0 + (number + 1) / 10)
    assert arrivals.until(10) == pytest.approx(229.0 + 1.0, rel=0.01)
