"""What is rejected before its inputs are read is what would be rejected anyway, with the same words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import DeadlineExpired, QueueFull, RequestError, Unavailable
from penstock.core.request import Request
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.policy import Isolation
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from support.work import Caller, HandBackend, MadeRequest, echo, policy, request

NOW = 100.0


class Sent(MadeRequest):
    """A request of a sender."""

    __slots__ = ("_sender",)

    def __init__(self, sender: str, rows: int, now: float, left: float, priority: int, size: int) -> None:
        super().__init__({}, ("y",), rows, None, "Predict", now, now + left, priority, size)
        self.waits = Caller()
        self._sender = sender

    @property
    def sender(self) -> object:
        return self._sender


def made(total: QueueTotal | None = None, isolation: Isolation | None = None, **how: int) -> DynamicBatcher:
    """A batcher whose runs of one row take 1 ms, and of 4 rows 2 ms."""
    rules = replace(policy(max_rows=4), **how)
    return DynamicBatcher(HandBackend(echo), rules, RunCost(0.001, 4, 0.002), None, total, isolation)


def waiting(batcher: DynamicBatcher) -> Sequence[Request]:
    """The requests in the queue."""
    queue = batcher._queue
    return [*queue._groups.requests(), *([] if queue._only is None else [queue._only])]


def rejection(batcher: DynamicBatcher, each: Request) -> RequestError | None:
    """The error with which a request is not put into the queue; None if it is."""
    try:
        batcher.put(each)
    except RequestError as error:
        return error
    return None


def test_while_nothing_changes_requests_get_the_same_error() -> None:
    batcher = made(queue_rows=1)
    batcher.put(Sent("a", 1, NOW, 60.0, 0, 10))

    def error(rows: int = 1) -> RequestError | None:
        return batcher.why_rejected(Sent("a", rows, NOW, math.inf, 0, 10))

    first = error()
    assert str(first) == "the queue is full: 1 row is waiting, 1 more arrived, the limit is 1"
    assert error() is first
    assert "2 more arrived" in str(error(2))
    assert first is not None
    for _ in range(9):  # how long the queue takes to empty is worked out anew after a run
        batcher.costs.first.learn(1, 10.0)
    again = error()
    assert str(again) == str(first)
    assert again is not None
    assert again.retry_after_seconds > first.retry_after_seconds


arrivals = st.tuples(
    st.sampled_from([0.0, 0.0, 0.01, 1.5]),
    st.sampled_from(["a", "a", "b", "c"]),
    st.integers(0, 5),
    st.sampled_from([math.inf, math.inf, 0.0, -0.1, 0.0005, 0.002, 0.004, 0.01, 1.0]),
    st.sampled_from([-1, 0, 0, 0, 1]),
    st.sampled_from([10, 10, 60]),
)


@settings(deadline=None)
@given(
    st.lists(arrivals, min_size=1, max_size=30), st.integers(1, 12), st.sampled_from([6, 100]), st.booleans()
)
def test_why_a_request_is_rejected_is_what_put_says(
    came: list[tuple[float, str, int, float, int, int]], queue_rows: int, most: int, runs: bool
) -> None:
    batcher = made(QueueTotal(QueueLimits(most)), queue_rows=queue_rows, queue_bytes=200)
    now = NOW
    if runs:
        batcher._running_batches = 1
        batcher._wait_estimate.run_started(now + 0.003)
    for later, sender, rows, left, priority, size in came:
        now += later
        each = Sent(sender, rows, now, left, priority, size)
        before = waiting(batcher)
        expected = batcher.why_rejected(each)
        assert batcher.rejecting is (expected is not None)
        error = rejection(batcher, each)
        assert (error is None) is (each in waiting(batcher))
        if expected is not None:
            assert (type(error), str(error)) == (type(expected), str(expected))
            assert error is not None
            assert error.retry_after_seconds == expected.retry_after_seconds
        elif error is not None:
            assert isinstance(error, QueueFull)
            assert any(other.priority < priority for other in before), "their places might have helped"


def test_an_open_breaker_rejects_until_the_next_probe() -> None:
    batcher = made(isolation=Isolation(failures=1, open_seconds=1.0))
    batcher.breaker.failed()
    batcher.breaker.open(NOW)
    early, late = Sent("a", 1, NOW + 0.5, math.inf, 0, 10), Sent("a", 1, NOW + 1.5, math.inf, 0, 10)
    expected = batcher.why_rejected(early)
    assert isinstance(expected, Unavailable)
    assert expected.shut_off
    with pytest.raises(Unavailable) as found:
        batcher.put(early)
    assert str(found.value) == str(expected)
    assert found.value.retry_after_seconds == expected.retry_after_seconds == pytest.approx(0.5)
    assert batcher.why_rejected(late) is None
    assert batcher.why_rejected(late) is None, "asking is no probe"
    batcher.put(late)
    assert isinstance(batcher.why_rejected(Sent("a", 1, NOW + 1.5, math.inf, 0, 10)), Unavailable)
    passed = Sent("a", 1, NOW + 1.5, 0.0, 0, 10)
    assert isinstance(batcher.why_rejected(passed), DeadlineExpired)


def test_a_request_that_finds_room_meanwhile_is_not_both_rejected_and_run() -> None:
    """Between the two steps of a request that finds the queue full, a runner thread may empty it."""
    batcher = made(queue_rows=1)
    batcher.put(request(rows=1))
    late = request(rows=1)
    displace = batcher._queue.displace

    def empties_first(each: Request, now: float) -> list[Request]:
        assert batcher.run_once()
        return displace(each, now)

    batcher._queue.displace = empties_first  # type: ignore[method-assign]
    with pytest.raises(QueueFull):
        batcher.put(late)
    assert batcher.waiting_rows == 0


def test_late_requests_share_an_error_that_raising_does_not_change() -> None:
    batcher = made()
    batcher._running_batches = 1
    batcher._wait_estimate.run_started(NOW + 0.003)
    late = Sent("a", 1, NOW, 0.002, 0, 10)
    shared = batcher.why_rejected(late)
    assert isinstance(shared, DeadlineExpired)
    for _ in range(3):
        raised = rejection(batcher, late)
        assert raised is not shared
        assert (type(raised), str(raised)) == (type(shared), str(shared))
        assert raised is not None
        assert raised.retry_after_seconds == shared.retry_after_seconds
    assert batcher.why_rejected(late) is shared
    assert shared.__traceback__ is None, "it would keep the frames of every request that it was raised for"
