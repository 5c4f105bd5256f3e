"""No caller keeps the others out of a queue, and all queues together hold no more than they may."""

from __future__ import annotations

import math

import pytest

from penstock.core.errors import QueueFull
from penstock.core.request import Request
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue.fair_share import RECENT_SECONDS, FairShare
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.queue.queue import RequestQueue
from support.work import MadeRequest, request


class Sent(MadeRequest):
    """A request that says who it came from."""

    __slots__ = ("_sender",)

    @property
    def sender(self) -> object:
        return self._sender


def sent(by: str, rows: int = 1, size: int = 0) -> Request:
    plain = request({}, rows=rows, arrived=0.0)
    made = Sent({}, ("y",), rows, None, "Predict", 0.0, math.inf)
    made.size, made.waits, made._sender = size, plain.waits, by
    return made


def queue(rows: int = 100, size: int = 10**9, total: QueueTotal | None = None) -> RequestQueue:
    return RequestQueue(QueueLimits(rows, size), RunCosts(RunCost(0.0)), total)


def let_in(queue: RequestQueue, by: str, count: int, now: float = 0.0, size: int = 0) -> int:
    """How many of so many requests of one row a caller gets in."""
    for number in range(count):
        try:
            queue.put(sent(by, size=size), now)
        except QueueFull:
            return number
    return count


def test_who_is_alone_may_fill_the_queue() -> None:
    assert let_in(queue(), "a", 200) == 100


def test_two_callers_share_it() -> None:
    made = queue()
    assert let_in(made, "a", 60) == 60
    assert let_in(made, "b", 1) == 1
    assert let_in(made, "a", 10) == 0, "more than half, and another one is there"
    assert let_in(made, "b", 60) == 39, "to the end of the room"


def test_who_holds_nothing_is_not_refused_for_his_share() -> None:
    made = queue()
    let_in(made, "a", 97)
    assert [let_in(made, by, 1) for by in "bcd"] == [1, 1, 1]


def test_who_was_refused_finds_room_when_there_is_some() -> None:
    """Else a caller that fills whatever becomes free would keep the others out for ever."""
    made = queue()
    let_in(made, "a", 100)
    assert let_in(made, "b", 1) == 0
    made.take(8, 0.1)
    assert let_in(made, "a", 8, 0.1) == 0
    assert let_in(made, "b", 8, 0.1) == 8


def test_who_does_not_come_any_more_is_forgotten() -> None:
    made = queue()
    let_in(made, "a", 100)
    assert let_in(made, "b", 1) == 0
    made.take(8, 0.1)
    assert let_in(made, "a", 8, RECENT_SECONDS + 0.1) == 8


def test_the_words_say_whose_room_it_is() -> None:
    made = queue()
    let_in(made, "a", 60)
    let_in(made, "b", 1)
    words = r"fair share .*1 of 2 callers. is used up: 60 rows are waiting, 1 more arrived, the limit is 50"
    with pytest.raises(QueueFull, match=words):
        made.put(sent("a"), 0.0)


def test_bytes_are_shared_as_well() -> None:
    made = queue(size=1000)
    assert let_in(made, "a", 6, size=100) == 6
    assert let_in(made, "b", 1, size=100) == 1
    assert let_in(made, "a", 1, size=100) == 0


def test_who_has_his_share_displaces_his_own_only() -> None:
    made = queue()
    let_in(made, "a", 50)
    let_in(made, "b", 10)
    own = sent("a")
    own.priority = -1
    with pytest.raises(QueueFull, match="share"):
        made.put(own, 0.0)
    for each in made._groups.requests():
        each.priority = 0
    urgent = sent("a")
    urgent.priority = 1
    displaced = made.displace(urgent, 0.0)
    assert [each.sender for each in displaced] == ["a"]


def test_what_leaves_is_given_back_by_every_way_out() -> None:
    made = queue()
    for _ in range(3):
        let_in(made, "b", 1)
        let_in(made, "a", 60)
        waiting = list(made._groups.requests())
        for each in waiting[:30]:
            made.discard(each)
        while made.take(8, 0.0).batch:
            pass
        assert (made.rows, made.bytes) == (0, 0)
    assert let_in(made, "c", 100) == 100


def test_two_that_keep_asking_both_get_in_again_and_again() -> None:
    """One takes all it can get, whenever something becomes free; the other asks for one, now and then."""
    made, now, modest = queue(40), 0.0, []
    for turn in range(200):
        now += 0.01
        let_in(made, "greedy", 40, now)
        if turn % 5 == 0:
            modest.append(let_in(made, "modest", 1, now))
        made.take(1, now)
    assert sum(modest) >= len(modest) - 3, modest


# All models together


def test_the_queues_of_all_models_are_bounded_together() -> None:
    total = QueueTotal(QueueLimits(10, 1000))
    first, second = queue(total=total), queue(total=total)
    assert let_in(first, "a", 20) == 10
    with pytest.raises(QueueFull, match="queues of all models are full: 10 rows are waiting, 1 more arrived"):
        second.put(sent("b"), 0.0)
    first.take(4, 0.0)
    assert let_in(second, "b", 9) == 4
    assert (total.rows, total.bytes) == (10, 0)


def test_bytes_of_all_models_are_bounded_together() -> None:
    total = QueueTotal(QueueLimits(10, 1000))
    first, second = queue(total=total), queue(total=total)
    first.put(sent("a", size=900), 0.0)
    assert let_in(second, "b", 1, size=101) == 0
    first.take(1, 0.0)
    assert let_in(second, "b", 3, size=400) == 2


# Requests above a limit


@pytest.mark.parametrize(("rows", "size"), [(500, 0), (1, 5000), (500, 5000)])
@pytest.mark.parametrize("bound", ["queue", "total", "both"])
def test_others_have_half_of_a_limit_while_a_request_above_it_waits(bound: str, rows: int, size: int) -> None:
    """It is accepted if nothing else waits. Then every request of others was rejected until it had run."""
    limits, none = QueueLimits(100, 1000), QueueLimits(10**6, 10**6)
    total = QueueTotal(none if bound == "queue" else limits)
    own = none if bound == "total" else limits
    first, second = queue(*own, total=total), queue(*own, total=total)
    for _ in range(3):  # nothing of it is left behind
        large = sent("a", rows, size)
        first.put(large, 0.0)
        with pytest.raises(QueueFull, match="do not count"):
            first.put(sent("a", 60 if rows > 1 else 1, 600 if size else 0), 0.0)
        others = [second, first] if bound == "total" else [first]
        assert sum(let_in(each, "b", 60, size=10) for each in others) == 50
        first.discard(large)
        assert sum(let_in(first, by, 200, size=10) for by in "cde") == 50, "nothing waits that is above"
        while first.take(1000, 0.0).batch or second.take(1000, 0.0).batch:
            pass
        assert (total.rows, total.bytes, first.rows, first.bytes) == (0, 0, 0, 0)


def test_what_is_accepted_beside_a_request_above_the_limit_is_bounded() -> None:
    made = queue(100)
    made.put(sent("a", 500), 0.0)
    with pytest.raises(QueueFull, match="500 rows are waiting, of which 450 do not count, 500 more arrived"):
        made.put(sent("b", 500), 0.0)
    assert [let_in(made, by, 50) for by in "bcd"] == [50, 0, 0]
    assert made.rows == 550


def test_a_request_of_just_the_limit_counts_in_full() -> None:
    made = queue(100)
    made.put(sent("a", 100), 0.0)
    assert let_in(made, "b", 1) == 0


def test_a_request_above_the_limit_gives_way_for_what_it_counts() -> None:
    made = queue(100)
    low = sent("a", 500)
    low.priority = -1
    made.put(low, 0.0)
    assert let_in(made, "b", 50) == 50
    urgent = sent("c", 51)
    with pytest.raises(QueueFull):
        made.put(urgent, 0.0)
    assert made.displace(urgent, 0.0) == [], "it counts as 50 rows"
    fitting = sent("c", 50)
    assert made.displace(fitting, 0.0) == [low]
    assert made.rows == 100


def test_many_callers_that_came_once_take_no_share_for_longer_than_others() -> None:
    share = FairShare(QueueLimits(100), [])
    for number in range(1000):
        once = sent(f"caller {number}")
        share.add(once, once.sender)
        share.remove(once)
    for by in ("a", "b"):
        share.add(sent(by), by)
    assert share.why_full(sent("a", rows=49), "a", RECENT_SECONDS + 0.1) is None
    assert "1 of 2 callers" in str(share.why_full(sent("a", rows=50), "a", RECENT_SECONDS + 0.1))


def test_callers_that_never_wait_are_forgotten_as_well() -> None:
    """While others fill the queue, each call may come by a connection of its own, and all were remembered."""
    share, now = FairShare(QueueLimits(100), ()), 0.0
    for number in range(5000):
        now = number * RECENT_SECONDS / 100
        assert share.why_full(sent(f"{number}"), f"{number}", now) is None
    assert len(share._recent) <= 102
