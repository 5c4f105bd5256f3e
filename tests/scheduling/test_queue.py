"""The queue's rules, in simulated time."""

from __future__ import annotations

import math
import random
import time
import weakref
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from penstock.core.errors import DeadlineExpired, QueueFull
from penstock.core.request import Request
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue.batch_groups import HIGH, LOW, NORMAL
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.queue.priority_line import PATIENCE_SECONDS
from penstock.scheduling.queue.queue import AGED_SECONDS, AGED_TURN, RequestQueue
from support.work import request


class OneLine(RunCosts):
    """The same cost whatever the shapes."""

    def of(self, shape_key: object) -> RunCost:
        return self.first

    def has_run(self, shape_key: object) -> bool:
        return True


FREE = OneLine(RunCost(0.0))
COSTLY = RunCost(0.25, 2, 0.375)  # and 0.125 s for each further row


def entry(
    rows: int = 1, key: object = None, arrived: float = 0.0, deadline: float = math.inf, priority: int = 0
) -> Request:
    return request({}, rows=rows, shape_key=key, arrived=arrived, deadline=deadline, priority=priority)


def queue_of(*entries: Request, max_rows: int = 100) -> RequestQueue:
    queue = RequestQueue(QueueLimits(max_rows), FREE)
    for each in entries:
        queue.put(each, each.arrived)
    return queue


def take(queue: RequestQueue, max_rows: int, now: float) -> tuple[list[Request], list[Request]]:
    taken = queue.take(max_rows, now)
    return taken.batch, taken.late


def batches(queue: RequestQueue, max_rows: int, now: float = 0.0) -> list[list[Request]]:
    found = []
    while (taken := take(queue, max_rows, now)) != ([], []):
        assert not taken[1]
        found.append(taken[0])
    return found


def test_an_empty_queue_gives_nothing() -> None:
    queue = RequestQueue(QueueLimits(10), FREE)
    assert take(queue, 8, 0.0) == ([], [])
    assert queue.expire(1e9) == []
    assert queue.rows == queue.next_batch(8)[0] == 0


class Shape:
    """A shape key that says when nothing refers to it any more."""


def test_nothing_is_kept_of_the_shapes_that_have_left() -> None:
    """Also where many shapes left at once, so that no batch was chosen among the last few of them."""
    queue = queue_of(*[entry(key=key, deadline=1.0) for key in range(40)])
    assert queue.next_batch(8)[0] == 8
    assert len(queue.expire(2.0)) == 40
    shape = Shape()
    kept = weakref.ref(shape)
    for _ in range(2):
        queue.put(entry(key=shape), 2.0)
    del shape
    assert len(take(queue, 8, 2.0)[0]) == 2
    assert kept() is None


def test_requests_leave_in_order_of_arrival() -> None:
    entries = [entry() for _ in range(5)]
    queue = queue_of(*entries)
    assert queue.rows == 5
    assert batches(queue, 3) == [entries[:3], entries[3:]]
    assert queue.rows == 0


def test_rows_count_and_not_requests() -> None:
    entries = [entry(rows=rows) for rows in (3, 3, 3, 1)]
    assert batches(queue_of(*entries), 6) == [entries[:2], entries[2:]]


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    entries = [entry(rows=3), entry(rows=4), entry(rows=1)]
    assert batches(queue_of(*entries), 4) == [entries[:1], entries[1:2], entries[2:]]


@pytest.mark.parametrize("before", [0, 1])
def test_a_request_larger_than_a_batch_comes_alone(before: int) -> None:
    entries = [entry() for _ in range(before)] + [entry(rows=9), entry()]
    found = batches(queue_of(*entries), 8)
    assert [entries[before]] in found
    assert [each for batch in found for each in batch] == entries


def test_requests_of_no_rows_count_as_one() -> None:
    queue = queue_of(entry(rows=0), entry(rows=0), max_rows=2)
    assert queue.rows == 2
    with pytest.raises(QueueFull):
        queue.put(entry(rows=0), 0.0)
    assert len(batches(queue, 1)) == 1
    assert queue.rows == 0


def test_no_rows_after_a_full_batch_still_fit_but_not_after_a_larger_one() -> None:
    full = [entry(rows=8), entry(rows=0)]
    assert batches(queue_of(*full), 8) == [full]
    larger = [entry(rows=9), entry(rows=0)]
    assert batches(queue_of(*larger), 8) == [larger[:1], larger[1:]]


def test_the_most_rows_that_may_wait() -> None:
    queue = queue_of(entry(rows=6), max_rows=8)
    queue.put(entry(rows=2), 0.0)
    with pytest.raises(QueueFull, match="8 rows are waiting, 1 more arrived, the limit is 8"):
        queue.put(entry(), 0.0)
    assert queue.rows == 8


def test_a_request_larger_than_the_queue_is_let_in_alone() -> None:
    queue = queue_of(entry(rows=9), max_rows=8)
    with pytest.raises(QueueFull):
        queue.put(entry(rows=5), 0.0)  # beside it, half of the limit is left
    take(queue, 8, 0.0)
    queue.put(entry(rows=1), 0.0)
    with pytest.raises(QueueFull):
        queue.put(entry(rows=9), 0.0)


def test_room_comes_back_by_every_way_out() -> None:
    gone = entry(rows=2)
    queue = queue_of(gone, entry(rows=2, deadline=1.0), entry(rows=4), max_rows=8)
    assert queue.discard(gone)
    assert queue.rows == 6
    queue.expire(1.0)
    assert queue.rows == 4
    take(queue, 8, 1.0)
    assert queue.rows == 0


def test_priority_goes_first_and_gives_way() -> None:
    low, normal, high = entry(priority=-5), entry(), entry(priority=1)
    assert batches(queue_of(low, normal, high), 1) == [[high], [normal], [low]]
    assert batches(queue_of(low, normal, high), 3) == [[high, normal, low]]


def test_how_high_a_priority_is_does_not_matter() -> None:
    entries = [entry(priority=1), entry(priority=9)]
    assert batches(queue_of(*entries), 1) == [entries[:1], entries[1:]]


def test_the_lanes_are_in_order() -> None:
    assert HIGH < NORMAL < LOW


def test_only_equal_shapes_share_a_batch() -> None:
    a, b, c = entry(key="A"), entry(key="B", arrived=1.0), entry(key="A", arrived=2.0)
    assert batches(queue_of(a, b, c), 8) == [[a, c], [b]]


def test_the_group_of_the_oldest_request_is_next() -> None:
    a, b = entry(key="A", arrived=2.0), entry(key="B", arrived=1.0)
    assert batches(queue_of(a, b), 8) == [[b], [a]]


def test_the_group_of_the_most_urgent_request_is_next() -> None:
    a, b = entry(key="A", arrived=1.0), entry(key="B", arrived=2.0, priority=1)
    assert batches(queue_of(a, b), 8) == [[b], [a]]


def test_a_request_that_comes_too_late_is_refused() -> None:
    queue = RequestQueue(QueueLimits(8), FREE)
    with pytest.raises(DeadlineExpired):
        queue.put(entry(deadline=5.0), 5.0)
    assert queue.rows == 0


def test_what_has_expired_is_not_in_the_batch() -> None:
    late, fine = entry(deadline=1.0), entry(deadline=1.1)
    queue = queue_of(late, fine)
    assert take(queue, 8, 1.0) == ([fine], [late])
    assert queue.rows == 0


def test_expired_requests_take_no_room_in_the_batch() -> None:
    late, fine = [entry(rows=4, deadline=1.0) for _ in range(4)], [entry(rows=4) for _ in range(2)]
    assert take(queue_of(*late, *fine), 8, 1.0) == (fine, late)


def test_where_a_whole_group_has_expired_the_next_one_is_taken() -> None:
    late, fine = entry(key="A", deadline=1.0), entry(key="B", arrived=0.5)
    assert take(queue_of(late, fine), 8, 2.0) == ([fine], [late])


def test_a_late_request_does_not_make_its_group_the_next_one() -> None:
    late, low = entry(key="A", deadline=1.0), entry(key="A", priority=-1)
    normal = entry(key="B", arrived=0.5)
    assert take(queue_of(late, low, normal), 8, 2.0) == ([normal], [late])


def test_expire_takes_out_what_is_late_and_nothing_else() -> None:
    late = [entry(deadline=1.0, key=key, priority=priority) for key in "AB" for priority in (-1, 0, 1)]
    fine = [entry(deadline=2.0, key="A"), entry(key="C")]
    queue = queue_of(*late, *fine)
    assert queue.expire(0.999) == []
    assert set(queue.expire(1.0)) == set(late)
    assert queue.expire(1.5) == []
    assert queue.expire(2.0) == fine[:1]
    assert batches(queue, 8, 2.0) == [fine[1:]]


def test_expire_finds_what_came_after_the_earliest_deadline_has_gone() -> None:
    queue = queue_of(entry(deadline=1.0))
    take(queue, 8, 0.0)
    late = entry(deadline=9.0)
    queue.put(late, 2.0)
    assert queue.expire(9.0) == [late]


def test_discard_takes_out_what_waits() -> None:
    entries = [entry(rows=2, key=key, priority=priority) for key in "AB" for priority in (1, 0, -1)]
    queue = queue_of(*entries)
    for count, each in enumerate(entries, 1):
        assert queue.discard(each)
        assert not queue.discard(each)
        assert queue.rows == 2 * (len(entries) - count)
    assert take(queue, 8, 0.0) == ([], [])


def test_discard_knows_what_does_not_wait() -> None:
    taken = entry()
    queue = queue_of(taken)
    take(queue, 8, 0.0)
    assert not queue.discard(taken)
    assert not queue.discard(entry(key="never seen"))
    assert queue.rows == 0


def test_what_has_waited_longest_is_known() -> None:
    queue = queue_of(
        entry(key="A", arrived=2.0), entry(key="B", arrived=1.0, priority=-1), entry(key="A", arrived=3.0)
    )
    assert queue.oldest() == 1.0
    assert queue_of().oldest() == math.inf


def test_the_earliest_deadline_is_known() -> None:
    queue = queue_of(entry(), entry(deadline=1.0))
    assert queue.earliest_deadline == 1.0
    queue.take(8, 0.0)
    queue.put(entry(arrived=2.0), 2.0)
    assert queue.earliest_deadline == math.inf


def test_the_next_batch_is_known() -> None:
    queue = queue_of(entry(rows=3, key="A"), entry(rows=40, key="B", arrived=1.0, priority=1))
    assert queue.next_batch(8)[0] == 40
    queue.take(8, 1.0)
    assert queue.next_batch(8)[0] == 3


def test_thousands_leave_quickly_by_every_way_out() -> None:
    """A stream that ends takes its requests out one by one: each must not cost a walk through all."""
    seconds = []
    for count in (2_000, 20_000):
        entries = [entry(deadline=1.0) for _ in range(count)]
        queue = queue_of(*entries, max_rows=count)
        started = time.thread_time()
        for each in reversed(entries[count // 2 :]):
            queue.discard(each)
        queue.expire(1.0)
        seconds.append(time.thread_time() - started)
        assert queue.rows == 0
    assert seconds[1] < 40 * seconds[0] + 0.05, "the time grows with the square of the number"


# Deadlines


def test_what_is_due_first_goes_first_and_equal_ones_as_they_came() -> None:
    late, soon, never, also_soon = (entry(deadline=at) for at in (0.9, 0.1, math.inf, 0.1))
    assert batches(queue_of(late, soon, never, also_soon), 1) == [[soon], [also_soon], [late], [never]]


def test_a_request_without_a_deadline_is_passed_but_not_for_ever() -> None:
    first = entry(arrived=0.0)
    passing = entry(arrived=0.5, deadline=0.6)
    behind = entry(arrived=0.5, deadline=0.5 + PATIENCE_SECONDS + 0.1)
    assert batches(queue_of(first, passing, behind), 1, now=0.5) == [[passing], [first], [behind]]


def test_a_deadline_makes_no_class_go_before_a_higher_one() -> None:
    soon, high = entry(deadline=0.1), entry(priority=1)
    assert batches(queue_of(soon, high), 1) == [[high], [soon]]


def costly(*entries: Request) -> RequestQueue:
    queue = RequestQueue(QueueLimits(100), OneLine(COSTLY))
    for each in entries:
        queue.put(each, each.arrived)
    return queue


def test_a_batch_is_cut_where_one_more_row_would_make_its_first_late() -> None:
    entries = [entry(deadline=0.51), *[entry(deadline=5.0) for _ in range(4)]]
    # 0.25 s for one row and 0.125 for each further: three take 0.5.
    assert take(costly(*entries), 8, 0.0) == (entries[:3], [])


def test_a_request_that_would_be_late_in_a_batch_waits_for_none_of_it() -> None:
    """Of a lower class, it comes after others that leave it no time; it has more as the first of the next."""
    high, tight = [entry(priority=1) for _ in range(4)], entry(deadline=0.3)
    assert take(costly(*high, tight), 8, 0.0) == (high, [])


def test_what_cannot_be_in_time_any_more_is_not_run() -> None:
    hopeless, fine = entry(deadline=0.2), entry(deadline=1.0)
    assert take(costly(hopeless, fine), 8, 0.0) == ([fine], [hopeless])


def test_the_last_one_is_tried_whatever_is_expected() -> None:
    hopeless = entry(deadline=0.2)
    assert take(costly(hopeless), 8, 0.0) == ([hopeless], [])


def test_on_a_guess_nobody_is_refused() -> None:
    queue = RequestQueue(QueueLimits(100), OneLine(RunCost(1.0, measured=False)))
    entries = [entry(deadline=0.2), entry(deadline=0.2)]
    for each in entries:
        queue.put(each, 0.0)
    assert take(queue, 8, 0.0) == (entries, [])


# Ageing


def test_who_has_waited_long_begins_every_eighth_batch() -> None:
    queue = RequestQueue(QueueLimits(1000), FREE)
    low = [entry(priority=-1) for _ in range(2)]
    for each in low:
        queue.put(each, 0.0)
    turns = []
    for number in range(16):
        queue.put(entry(arrived=AGED_SECONDS, priority=1), AGED_SECONDS)
        (taken,), _ = take(queue, 1, AGED_SECONDS)
        if taken in low:
            turns.append(number + 1)
    assert turns == [AGED_TURN, 2 * AGED_TURN]


def test_who_has_not_waited_long_begins_none() -> None:
    queue = RequestQueue(QueueLimits(1000), FREE)
    queue.put(entry(priority=-1, arrived=0.1), 0.1)
    for _ in range(20):
        queue.put(entry(arrived=0.5, priority=1), 0.5)
        (taken,), _ = take(queue, 1, 0.5)
        assert taken.priority == 1


def test_an_aged_request_takes_those_along_that_may_run_with_it() -> None:
    queue = RequestQueue(QueueLimits(1000), FREE)
    old, other, same = entry(key="A", priority=-1), entry(key="B", arrived=1.0), entry(key="A", arrived=1.0)
    for _ in range(AGED_TURN - 1):
        take(queue, 1, 0.0)
    for each in (old, other, same):
        queue.put(each, 1.0)
    assert take(queue, 8, 1.0) == ([old, same], [])


# Bytes


def sized(size: int) -> Request:
    made = entry()
    made.size = size
    return made


def test_the_most_bytes_that_may_wait() -> None:
    queue = RequestQueue(QueueLimits(100, 1000), FREE)
    first, second = sized(600), sized(400)
    queue.put(first, 0.0)
    queue.put(second, 0.0)
    with pytest.raises(QueueFull, match="1000 bytes are waiting, 1 more arrived, the limit is 1000"):
        queue.put(sized(1), 0.0)
    queue.discard(second)
    assert queue.bytes == 600
    queue.put(sized(400), 0.0)
    take(queue, 8, 0.0)
    assert queue.bytes == 0


def test_a_single_request_of_more_bytes_is_let_in_alone() -> None:
    queue = RequestQueue(QueueLimits(100, 1000), FREE)
    queue.put(sized(5000), 0.0)
    with pytest.raises(QueueFull):
        queue.put(sized(501), 0.0)  # beside it, half of the limit is left
    queue.put(sized(500), 0.0)
    with pytest.raises(QueueFull):
        queue.put(sized(5000), 0.0)


def test_of_the_lowest_class_who_came_last_gives_way() -> None:
    low = [entry(priority=-1, arrived=float(number), key=number % 2) for number in range(4)]
    normal = entry(arrived=9.0)
    queue = queue_of(*low, normal, max_rows=5)
    urgent = [entry(priority=1, arrived=10.0, rows=rows) for rows in (2, 3)]
    with pytest.raises(QueueFull):
        queue.put(urgent[0], 10.0)
    assert queue.displace(urgent[0], 10.0) == [low[3], low[2]]
    assert queue.displace(urgent[1], 10.0) == [low[1], low[0], normal]
    assert queue.rows == 5
    assert [each for batch in batches(queue, 8, 10.0) for each in batch] == urgent


def test_nobody_gives_way_for_nothing_or_to_his_equal() -> None:
    queue = queue_of(entry(priority=-1), entry(), max_rows=2)
    assert queue.displace(entry(rows=2), 0.0) == [], "one row is not enough"
    assert queue.displace(entry(priority=-9), 0.0) == []
    assert queue.rows == 2


def test_who_gives_way_makes_room_in_bytes() -> None:
    queue = RequestQueue(QueueLimits(100, 1000), FREE)
    waiting = [sized(300) for _ in range(3)]
    for each in waiting:
        each.priority = -1
        queue.put(each, 0.0)
    larger = sized(500)
    with pytest.raises(QueueFull):
        queue.put(larger, 0.0)
    assert queue.displace(larger, 0.0) == [waiting[2], waiting[1]]
    assert (queue.rows, queue.bytes) == (2, 800)


def test_of_many_shapes_the_most_urgent_is_next_whatever_comes_and_goes() -> None:
    chance = random.Random(5)
    queue, waiting = RequestQueue(QueueLimits(10_000), FREE), []
    for turn in range(3_000):
        if chance.random() < (0.7 if turn < 1_500 else 0.3):
            made = entry(
                key=chance.randrange(300), deadline=chance.uniform(1, 9), priority=chance.choice((-1, 0, 1))
            )
            queue.put(made, 0.0)
            waiting.append(made)
        elif waiting and chance.random() < 0.3:
            gone = waiting.pop(chance.randrange(len(waiting)))
            assert queue.discard(gone)
        elif waiting:
            queue._takes = 0  # none begins with who has waited long
            taken, _ = take(queue, 4, 0.0)
            first = min(waiting, key=lambda each: (-each.priority, min(each.deadline, PATIENCE_SECONDS)))
            urgency = (-first.priority, min(first.deadline, PATIENCE_SECONDS))
            assert (-taken[0].priority, min(taken[0].deadline, PATIENCE_SECONDS)) == urgency
            for each in taken:
                waiting.remove(each)
    assert queue.rows == len(waiting)


def test_nobody_starves_among_many_shapes() -> None:
    queue = RequestQueue(QueueLimits(10_000), FREE)
    low = entry(key="low", priority=-1)
    queue.put(low, 0.0)
    for turn in range(2_000):
        for number in range(3):
            queue.put(entry(key=(turn * 3 + number) % 400, arrived=9.0), 9.0)
        if low in take(queue, 1, 9.0)[0]:
            return
    raise AssertionError("it is still waiting")


def test_thousands_of_shapes_leave_quickly() -> None:
    seconds = []
    for count in (1_000, 10_000):
        queue = queue_of(*[entry(key=number) for number in range(count)], max_rows=count)
        started = time.thread_time()
        assert len(batches(queue, 32, 0.1)) == count
        seconds.append(time.thread_time() - started)
    assert seconds[1] < 40 * seconds[0] + 0.05, "the time grows with the square of the number"


def test_thousands_with_deadlines_in_any_order_leave_quickly() -> None:
    seconds = []
    for count in (2_000, 20_000):
        entries = [entry(deadline=0.1 + 0.8 * (number * 7919 % count) / count) for number in range(count)]
        queue = queue_of(*entries, max_rows=count)
        started = time.thread_time()
        for each in entries[: count // 2]:
            queue.discard(each)
        found = [each for batch in batches(queue, 32) for each in batch]
        seconds.append(time.thread_time() - started)
        assert [each.deadline for each in found] == sorted(each.deadline for each in entries[count // 2 :])
    assert seconds[1] < 40 * seconds[0] + 0.05, "the time grows with the square of the number"


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order, no request is lost or doubled, and order is kept."""

    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.total = QueueTotal(QueueLimits(1000))
        self.queue = RequestQueue(QueueLimits(40), OneLine(COSTLY), self.total)
        self.now = 0.0
        self.takes = 0
        self.order: list[str] = []
        self.expected: dict[Request, int] = {}  # what waits, and its place in the order of arrival
        self.count = 0

    @rule(
        target=waiting,
        rows=st.integers(0, 12),
        key=st.sampled_from("ABC"),
        priority=st.sampled_from([-2, -1, 0, 1, 2]),
        patience=st.sampled_from([math.inf, 1.0, 2.0, 5.0]),
    )
    def put(self, rows: int, key: str, priority: int, patience: float) -> Request:
        new = entry(rows, key, self.now, self.now + patience, priority)
        room = self.waiting_rows() + max(rows, 1) <= 40 or not self.expected
        try:
            self.queue.put(new, self.now)
        except QueueFull:
            assert not room
        else:
            assert room
            self.order = [*self.shapes(), *([] if key in self.shapes() else [key])]
            self.expected[new] = self.count = self.count + 1
        return new

    @rule(max_rows=st.integers(1, 10))
    def take(self, max_rows: int) -> None:
        self.takes += 1
        batch, late = take(self.queue, max_rows, self.now)
        assert (batch, late) == self.expected_of_take(max_rows)
        self.leave(*batch, *late)

    def expected_of_take(self, max_rows: int) -> tuple[list[Request], list[Request]]:
        """The rules of the queue, told again without any of its structure."""
        waiting, batch, late = dict(self.expected), list[Request](), list[Request]()

        def is_late(each: Request) -> bool:
            alone = not batch and sum(max(other.rows, 1) for other in waiting) <= max(each.rows, 1)
            needed = 0.0 if alone else COSTLY.expect(each.rows)
            return each.deadline <= self.now or self.now + needed > each.deadline

        def fits(each: Request) -> bool:
            rows = sum(other.rows for other in [*batch, each])
            earliest = min(other.deadline for other in [*batch, each])
            return rows <= max_rows and (
                earliest == math.inf or rows <= COSTLY.rows_within(earliest - self.now)
            )

        def move(each: Request) -> bool:
            if not is_late(each) and batch and not fits(each):
                return False
            (late if is_late(each) else batch).append(each)
            del waiting[each]
            return True

        if self.takes % AGED_TURN == 0 and waiting:
            oldest = min(
                waiting,
                key=lambda each: (
                    each.arrived,
                    line(each),
                    self.shapes().index(each.shape_key),
                    waiting[each],
                ),
            )
            if oldest.arrived + AGED_SECONDS <= self.now:
                move(oldest)
        while waiting:
            group = [each for each in waiting if not batch or each.shape_key == batch[0].shape_key]
            if not group:
                break
            following = min(
                group,
                key=lambda each: (
                    line(each),
                    min(each.deadline, each.arrived + PATIENCE_SECONDS),
                    self.shapes().index(each.shape_key),
                    waiting[each],
                ),
            )
            if not move(following):
                break
        return batch, late

    @rule(request=consumes(waiting))
    def discard(self, request: Request) -> None:
        assert self.queue.discard(request) == (request in self.expected)
        self.expected.pop(request, None)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        expired = self.queue.expire(self.now)
        assert set(expired) == {each for each in self.expected if each.deadline <= self.now}
        self.leave(*expired)

    @invariant()
    def rows_are_the_sum(self) -> None:
        assert self.queue.rows == self.waiting_rows()
        assert (self.queue.oldest() == math.inf) == (not self.expected)
        assert self.queue.rows == self.total.rows

    def waiting_rows(self) -> int:
        return sum(max(each.rows, 1) for each in self.expected)

    def shapes(self) -> list[str]:
        """The shapes that wait, those first of which one has been waiting without a break for longest."""
        return [key for key in self.order if any(each.shape_key == key for each in self.expected)]

    def leave(self, *requests: Request) -> None:
        for each in requests:
            del self.expected[each]  # fails where one comes twice or was never put


def line(request: Request) -> int:
    return NORMAL if request.priority == 0 else HIGH if request.priority > 0 else LOW


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_taking_all_in_one_step_is_taking_one_after_the_other(data: st.DataObject) -> None:
    """Whatever waits, both ways take the same batches, for the same reason, and leave the same behind."""
    times = st.integers(0, 12).map(lambda quarters: quarters / 4)
    rules = st.tuples(
        st.integers(1, 3), st.sampled_from(["a", "a", "a", "b"]), times, st.sampled_from([0, 0, 0, 1, -1])
    )
    sent = data.draw(st.lists(st.tuples(rules, st.one_of(st.just(math.inf), times)), max_size=10))
    limit, max_rows = data.draw(st.sampled_from([8, 100])), data.draw(st.integers(1, 20))
    told = []
    for in_one_step in (True, False):
        queue = RequestQueue(QueueLimits(limit), OneLine(RunCost(0.25, 2, 0.375)))
        queue.put(entry(1, "b"), 0.0)
        queue.take(1, 0.0)  # so that groups have been used before
        if not in_one_step:
            queue._groups.take_all = lambda rows: None  # type: ignore[method-assign]
        ids = {}
        for number, ((rows, key, arrived, priority), left) in enumerate(sent):
            each = entry(rows, key, arrived, arrived + left, priority)
            ids[each] = number
            with suppress(QueueFull, DeadlineExpired):
                queue.put(each, arrived)
        log: list[object] = []
        for now in (1.0, 2.0, 3.0, 4.0):
            taken = queue.take(max_rows, now)
            log.append(([ids[each] for each in taken.batch], [ids[each] for each in taken.late]))
            log.append(
                (
                    taken.rows,
                    taken.cut_reason,
                    queue.rows,
                    queue.bytes,
                    queue.total.rows,
                    list(queue._class_rows),
                )
            )
            log.append((sorted(map(str, queue._groups)), queue.earliest_deadline))
        told.append(log)
    assert told[0] == told[1]
