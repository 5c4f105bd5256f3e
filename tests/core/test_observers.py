"""Several observers of a model are told as one."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import override

from penstock.core.errors import QueueFull, RequestError
from penstock.core.observers import SilentObserver, combined
from penstock.core.request import Request, Run
from support.work import Tally, request


class Broken(SilentObserver):
    """Raises on everything that it is told."""

    @override
    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        raise ValueError("broken")


class Batches(SilentObserver):
    """Wants to know of batches only."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @override
    def batch_done(self, requests: Any, run: Run, answered: float) -> None:
        self.seen.append(requests)


RUN = Run(0.0, 0.0, 0.0, 1, {})


def test_all_are_told_in_their_order() -> None:
    first, second = Tally(), Tally()
    both = combined([first, second])
    requests: list[Request] = [request()]
    both.batch_done(requests, RUN, 0.0)
    error = QueueFull("full")
    both.failed("Predict", error, 2, seconds=0.5)
    both.on_event("hung", seconds=1.0)
    for each in (first, second):
        assert (each.done, each.failures, each.events) == (requests, [("Predict", error)] * 2, ["hung"])


def test_one_observer_is_told_directly() -> None:
    only = Tally()
    assert combined([only]) is only


def test_what_one_of_them_wants_to_know_is_told_to_it_directly() -> None:
    tally, batches = Tally(), Batches()
    both = combined([tally, SilentObserver(), batches])
    assert both.failed == tally.failed
    assert both.on_event == tally.on_event
    both.batch_done([], RUN, 0.0)
    assert batches.seen == [[]]
    assert tally.batches == [1]


def test_what_none_of_them_wants_to_know_is_told_to_none() -> None:
    combined([SilentObserver(), Batches()]).on_event("hung")


def test_one_that_raises_keeps_the_others_from_nothing() -> None:
    tally = Tally()
    all_of_them = combined([Broken(), tally, Broken()])
    with pytest.raises(ValueError, match="broken"):
        all_of_them.failed("Predict", QueueFull("full"))
    assert len(tally.failures) == 1
