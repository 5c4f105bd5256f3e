"""Bounds on the memory of answers: what is held, what is submitted when, and that each request ends once."""

from __future__ import annotations

import math
import time
from typing import Any, cast

import pytest

from penstock.core.errors import AnswerTooLarge, DeadlineExpired, QueueFull, RequestCancelled, Unavailable
from penstock.core.request import Request
from penstock.core.tensors import DataType
from penstock.engine import Engine
from penstock.protocols.answer_sizes import UNKNOWN_BYTES, AnswerSizes, sizes_of
from penstock.protocols.answers import Account, AnswerLimits, Answers
from support import work
from support.work import Tally, caller, signature_of, spec

KIB = 1024
LIMITS = AnswerLimits(stream=40 * KIB, caller=80 * KIB, total=160 * KIB, held=1000, largest=100 * KIB)


class Submitted:
    """In place of the engine: remembers what is submitted."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.waiting: list[Request] = []
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def submit(self, model: object, request: Request, accepted: bool = False) -> None:
        self.requests.append(request)

    def withdraw(self, model: object) -> list[Request]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def taken(self) -> list[Request]:
        """What was submitted since it was last asked."""
        taken, self.requests = self.requests, []
        return taken


class Bench:
    """Answers with a model of 10 KiB a row."""

    def __init__(self, shape: tuple[int | str, ...] = ("N", 10 * KIB // 4)) -> None:
        self.engine = Submitted()
        self.answers = Answers(cast("Engine", self.engine), LIMITS)
        signature = signature_of([spec("x")], [spec("y", shape)])
        self.model = work.model(signature)
        self.tally = Tally()
        self.model.observe(self.tally)

    def account(self, name: str = "a", **more: Any) -> Account:
        return Account(name, LIMITS.stream, **more)

    def submit(self, account: Account, rows: int = 1, size: int = 0, **fields: Any) -> Request:
        """Submits a request whose answer has 10 KiB for each row."""
        request = work.request(1.0, **fields)
        request.rows, request.size = rows, size
        self.answers.submit(account, request, self.model, request, rows * 10 * KIB, False)
        return request


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_does_not_fit_a_stream_is_submitted_in_order_when_answers_have_left(bench: Bench) -> None:
    resumed: list[int] = []
    account = bench.account(resumed=lambda: resumed.append(1))
    requests = [bench.submit(account) for _ in range(6)]
    assert bench.engine.taken() == requests[:4]
    assert account.is_full
    assert bench.answers.used == 40 * KIB
    bench.answers.answered(account, requests[0], 10 * KIB)
    assert bench.engine.taken() == []
    bench.answers.left(account, 10 * KIB)
    assert bench.engine.taken() == [requests[4]]
    assert resumed == []
    bench.answers.answered(account, requests[1], 0)  # it was an error: there is room at once
    assert bench.engine.taken() == [requests[5]]
    bench.answers.answered(account, requests[2], 0)
    assert not account.is_full
    assert bench.answers.is_empty()


def test_small_requests_keep_their_place_behind_those_that_are_held(bench: Bench) -> None:
    account = bench.account()
    first, large = bench.submit(account, rows=4), bench.submit(account)
    small = bench.submit(account, rows=0)
    assert bench.engine.taken() == [first]
    assert bench.engine.woken == 2, "for those that are held, whose deadlines must be watched"
    bench.answers.answered(account, first, 0)
    assert bench.engine.taken() == [large, small]


def test_one_answer_alone_may_be_larger_than_the_bounds(bench: Bench) -> None:
    account = bench.account()
    request = bench.submit(account, rows=9)
    assert bench.engine.taken() == [request]
    others = [bench.submit(bench.account(name), rows=9) for name in "bcd"]
    assert bench.engine.taken() == others[:2], "one of each caller, up to twice the bound for all"


def test_one_caller_has_its_share_and_leaves_room_for_others(bench: Bench) -> None:
    streams = [bench.account() for _ in range(8)]
    for stream in streams:
        for _ in range(4):
            bench.submit(stream)
    assert len(bench.engine.taken()) == 8, "the bound of a caller: 80 KiB"
    others = [bench.account(str(number)) for number in range(20)]
    for other in others:
        for _ in range(4):
            bench.submit(other)
    assert bench.answers.used <= 2 * LIMITS.total, "all that wait, and one answer of each more"


def test_a_stream_that_reads_goes_on_beside_others_that_do_not(bench: Bench) -> None:
    accounts = [bench.account(str(number)) for number in range(30)]
    for account in accounts:
        for _ in range(4):
            bench.submit(account)
    reader = accounts[0]
    for _ in range(4):
        mine = [each for each in bench.engine.taken() if each in reader.expected]
        assert mine
        for request in mine:
            bench.answers.answered(reader, request, 10 * KIB)
            bench.answers.left(reader, 10 * KIB)
        if not reader.held:
            break
    assert not reader.held


def test_a_call_that_is_over_gives_all_back_and_its_held_requests_are_counted(bench: Bench) -> None:
    account, other = bench.account(), bench.account()
    for _ in range(6):
        bench.submit(account)
    waiting = [bench.submit(other) for _ in range(5)]
    bench.engine.taken()
    bench.answers.close(account)
    bench.answers.close(account)
    assert [type(error) for _, error in bench.tally.failures] == [RequestCancelled] * 2
    assert bench.answers.used == 40 * KIB
    assert bench.engine.taken() == []
    late = bench.submit(account)  # of a message that a worker was decoding
    assert bench.engine.taken() == [late]
    bench.answers.close(other)
    assert (bench.answers.used, bench.answers.is_empty()) == (0, True)
    assert not caller(waiting[-1]).results, "nobody waits for it"


def test_a_call_that_is_over_keeps_no_request(bench: Bench) -> None:
    """What is dropped during its run is never answered; its inputs do not wait for the garbage collector."""
    account = bench.account()
    bench.submit(account, rows=1)
    late = bench.submit(account, rows=2)
    bench.answers.close(account)
    assert account.expected == {}
    bench.answers.answered(account, late, 20 * KIB)
    assert (account.used, bench.answers.used, account.expected) == (0, 0, {})


def test_held_requests_expire_and_cancelled_ones_are_dropped(bench: Bench) -> None:
    account = bench.account()
    bench.submit(account, rows=4)
    late = bench.submit(account, deadline=time.monotonic() - 1)
    cancelled, good = bench.submit(account), bench.submit(account)
    cancelled.cancelled = True
    bench.answers.expire(time.monotonic())
    assert [type(each) for each in caller(late).results] == [DeadlineExpired]
    assert caller(cancelled).results == []
    assert [type(error) for _, error in bench.tally.failures] == [DeadlineExpired, RequestCancelled]
    assert [each.request for each in account.held] == [good]


@pytest.mark.parametrize("why", ["cancelled", "late"])
def test_a_held_request_that_is_over_takes_no_room_when_its_turn_comes(bench: Bench, why: str) -> None:
    """The sweep has not come by yet, which would have ended it."""
    account = bench.account()
    first, over = bench.submit(account, rows=4), bench.submit(account)
    bench.engine.taken()
    if why == "cancelled":
        over.cancelled = True
    else:
        over.deadline = time.monotonic() - 1
    bench.answers.answered(account, first, 0)
    assert [type(error) for _, error in bench.tally.failures] == [
        RequestCancelled if why == "cancelled" else DeadlineExpired
    ]
    assert bench.engine.taken() == []
    assert (bench.answers.used, account.used, account.expected) == (0, 0, {})


def test_at_a_stop_what_is_still_held_ends_with_the_error(bench: Bench) -> None:
    account = bench.account()
    bench.submit(account, rows=4)
    held = [bench.submit(account) for _ in range(3)]
    bench.answers.fail_all(Unavailable("the server stopped"))
    assert [[type(each) for each in caller(request).results] for request in held] == [[Unavailable]] * 3
    assert bench.answers.is_empty()


def test_too_many_bytes_of_held_requests_are_rejected(bench: Bench) -> None:
    account = bench.account()
    bench.submit(account, rows=4)
    requests = [bench.submit(account, size=400) for _ in range(3)]
    assert [[type(each) for each in caller(request).results] for request in requests] == [[], [], [QueueFull]]


class Waits(Request):
    """A request of an account."""

    def __init__(self, account: Account) -> None:
        made = work.request(1.0)
        super().__init__(made.inputs, ("y",), 1, None, "Predict", made.arrived)
        self._account = account
        self.results: list[object] = []

    def counted(self) -> tuple[Account, object]:
        return self._account, self

    def reply(self, result: object) -> None:
        self.results.append(result)


def test_what_waits_is_held_once_an_answer_is_far_larger_than_expected() -> None:
    """The shapes do not tell how large answers are, and the first ones were small."""
    bench = Bench(("N", "L"))
    account, sizes = bench.account(), sizes_of(bench.model)
    small = Waits(account)
    for _ in range(9):
        assert not sizes.learn(small, 100)
    assert sizes.expected(("y",), 1, None) == 0, "they do not count"
    waiting = [Waits(account) for _ in range(9)]
    bench.engine.waiting = list(waiting)
    assert sizes.learn(small, 20 * KIB)
    bench.answers.take_back(bench.model)
    assert bench.engine.taken() == waiting[:2], "two of 20 KiB fit, in their order"
    assert [each.request for each in account.held] == waiting[2:]
    assert (account.used, account.is_full) == (40 * KIB, True)
    bench.answers.answered(account, waiting[0], 20 * KIB)
    assert bench.engine.taken() == []
    bench.answers.left(account, 20 * KIB)
    assert bench.engine.taken() == [waiting[2]]


def test_what_waits_for_another_call_or_a_call_that_is_over_is_not_lost() -> None:
    bench = Bench(("N", "L"))
    account = bench.account()
    over, other = Waits(account), work.request(1.0)
    bench.answers.close(account)
    bench.engine.waiting = [over, other]
    bench.answers.take_back(bench.model)
    assert bench.engine.taken() == [over, other]
    assert bench.answers.is_empty()


def test_held_requests_count_with_what_is_known_when_they_are_submitted() -> None:
    """Of a stream, a few requests run until it is known how large answers are; then all others may."""
    bench = Bench(("N", "L"))
    account = bench.account()
    requests = [Waits(account) for _ in range(30)]
    for each in requests:
        bench.answers.submit(account, each, bench.model, each, UNKNOWN_BYTES)
    first = bench.engine.taken()
    assert first == requests[:1]
    sizes_of(bench.model).learn(first[0], 100)
    bench.answers.answered(account, first[0], 0)
    assert bench.engine.taken() == requests[1:]


def test_an_answer_that_is_known_to_be_too_large_is_not_made(bench: Bench) -> None:
    account = bench.account()
    request = bench.submit(account, rows=11)
    assert [type(each) for each in caller(request).results] == [AnswerTooLarge]
    assert bench.engine.taken() == []
    assert bench.answers.used == 0


def test_expected_sizes() -> None:
    outputs = [spec("y", ("N", 1000)), spec("z", ("N", "L")), spec("t", ("N", 1), DataType.BYTES)]
    sizes = AnswerSizes(work.model(signature_of([spec("x", ("N", "L"))], outputs)))
    assert sizes.expected(["y"], 3, None) == 12_000
    assert sizes.expected(["y"], 0, None) == 0
    assert sizes.is_known(["y"])
    assert not sizes.is_known(["y", "z"])
    assert sizes.expected(["z"], 1, (2,)) == UNKNOWN_BYTES
    request = work.request(1.0)
    request.rows, request.shape_key = 2, (2,)
    sizes.learn(request, 8000)
    assert sizes.expected(["z"], 1, (2,)) == 4000
    assert sizes.expected(["z"], 1, (3,)) == 4000, "the largest that is known"
    for _ in range(100):
        sizes.learn(request, 0)
    assert sizes.expected(["z"], 1, (2,)) == 0
    assert math.isfinite(sizes.expected(["t"], 1, (9,)))
