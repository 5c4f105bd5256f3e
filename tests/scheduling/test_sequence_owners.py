"""A sequence belongs to the caller that began it, and no caller keeps others from beginning theirs."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.caller import Caller
from penstock.core.errors import RequestError, SequenceTaken, TooManySequences, UnknownSequence
from penstock.core.request import Step
from penstock.scheduling.sequence_shares import CONTENDED_SECONDS
from penstock.scheduling.sequence_table import SequenceLimits, SequenceTable
from support.work import MadeRequest, request

IDLE_SECONDS = 60.0


class Stream:
    """A stream, which has a sequence of its own."""


class Network:
    """The connections that are open."""

    def __init__(self) -> None:
        self.closed: set[str] = set()

    def is_open(self, connection: str, since: float) -> bool:
        return connection not in self.closed

    def caller(
        self, connection: str, name: object = None, *, shares: bool = False, address: str = "host"
    ) -> Caller:
        return Caller(connection, name, shares, address, self.is_open)


@pytest.fixture
def network() -> Network:
    return Network()


def table(most: int = 10, *, shared: bool = False) -> SequenceTable:
    return SequenceTable(SequenceLimits(IDLE_SECONDS, most, shared=shared))


def step(
    key: object, caller: Caller | None, *, start: bool = False, end: bool = False, now: float = 0.0
) -> MadeRequest:
    made = request([1])
    made.arrived = now
    made.sequence = Step(key, start, end, key if isinstance(key, Stream) else None, None, caller)
    return made


def take(known: SequenceTable, made: MadeRequest, now: float = 0.0, *, value: float = 1.0) -> float:
    """Lets a step in and answers it with the sum of the values so far."""
    assert known.enter(made)
    before = known.state_of(made)
    after = (0.0 if before is None else float(before[0][0])) + value
    known.advance(made, (np.array([after]),))
    known.leave(made, now, answered=True)
    return after


def test_a_step_of_another_caller_is_unknown_and_changes_nothing(network: Network) -> None:
    known, a, b = table(), network.caller("a:1"), network.caller("b:1")
    take(known, step("1", a, start=True), value=5)
    with pytest.raises(UnknownSequence, match="sequence 1 is unknown to this caller: another caller began"):
        known.enter(step("1", b))
    assert take(known, step("1", a), value=1) == 6


def test_a_sequence_cannot_be_begun_by_another_caller_while_it_lives(network: Network) -> None:
    known, a, b = table(), network.caller("a:1"), network.caller("b:1")
    first = step("1", a, start=True)
    known.enter(first)  # not even while its first step is under way
    with pytest.raises(SequenceTaken, match="sequence 1 cannot begin: another caller began it"):
        known.enter(step("1", b, start=True))
    known.leave(first, 0.0, answered=False)
    assert take(known, step("1", b, start=True)) == 1


def test_the_same_caller_may_begin_it_anew_and_another_one_after_its_end(network: Network) -> None:
    known, a, b = table(), network.caller("a:1"), network.caller("b:1")
    take(known, step("1", a, start=True))
    assert take(known, step("1", a, start=True)) == 1
    assert take(known, step("1", a, end=True)) == 2
    assert take(known, step("1", b, start=True)) == 1
    with pytest.raises(UnknownSequence, match="unknown to this caller"):
        known.enter(step("1", a))


def test_a_named_caller_goes_on_from_any_connection(network: Network) -> None:
    known = table()
    take(known, step("1", network.caller("a:1", "me"), start=True))
    assert take(known, step("1", network.caller("a:2", "me", address="elsewhere"))) == 2
    for other in (network.caller("a:1"), network.caller("a:1", "you")):
        with pytest.raises(UnknownSequence, match="unknown to this caller"):
            known.enter(step("1", other))


def test_callers_that_share_ids_share_them_with_each_other_only(network: Network) -> None:
    known = table()
    take(known, step("1", network.caller("a:1", shares=True), start=True))
    assert take(known, step("1", network.caller("b:1", "name", shares=True))) == 2
    with pytest.raises(UnknownSequence):
        known.enter(step("1", network.caller("a:1")))
    take(known, step("2", network.caller("a:1"), start=True))
    with pytest.raises(UnknownSequence):
        known.enter(step("2", network.caller("a:1", shares=True)))


def test_a_model_may_let_all_callers_share_ids(network: Network) -> None:
    known = table(shared=True)
    take(known, step("1", network.caller("a:1"), start=True))
    assert take(known, step("1", network.caller("b:1", "name"))) == 2
    assert take(known, step("1", network.caller("c:1"), start=True)) == 1


def test_who_lost_its_connection_goes_on_over_a_new_one(network: Network) -> None:
    known = table()
    take(known, step("1", network.caller("a:1"), start=True))
    with pytest.raises(UnknownSequence, match="another connection"):
        known.enter(step("1", network.caller("a:2")))
    network.closed.add("a:1")
    with pytest.raises(UnknownSequence):
        known.enter(step("1", network.caller("b:1", address="elsewhere")))
    with pytest.raises(UnknownSequence):
        known.enter(step("1", network.caller("a:2", "name")))
    assert take(known, step("1", network.caller("a:2"))) == 2
    with pytest.raises(UnknownSequence):
        known.enter(step("1", network.caller("a:3")))


def test_what_two_callers_wanted_is_not_followed_by_the_second(network: Network) -> None:
    """It may not know that its start was refused; its steps must not go on from the first one's state."""
    known, b = table(), network.caller("b:1")
    take(known, step("1", network.caller("a:1"), start=True))
    with pytest.raises(SequenceTaken):
        known.enter(step("1", b, start=True))
    network.closed.add("a:1")
    with pytest.raises(UnknownSequence):
        known.enter(step("1", b))
    assert take(known, step("1", b, start=True)) == 1


@pytest.mark.parametrize("name", [None, "me"])
def test_what_is_left_of_a_caller_that_has_gone_may_be_begun_anew(network: Network, name: object) -> None:
    """A client that crashed and comes back counts from 1 again."""
    known = table()
    take(known, step("1", network.caller("a:1", name), start=True))
    network.closed.add("a:1")
    assert take(known, step("1", network.caller("b:1", address="elsewhere"), start=True)) == 1


def test_a_step_under_way_is_not_left(network: Network) -> None:
    known = table()
    first = step("1", network.caller("a:1"), start=True)
    known.enter(first)
    network.closed.add("a:1")
    with pytest.raises(SequenceTaken):
        known.enter(step("1", network.caller("b:1"), start=True))


# Shares


def fill(known: SequenceTable, caller: Caller, *ids: object, now: float = 0.0) -> None:
    for id in ids:
        take(known, step(id, caller, start=True, now=now), now)


def test_a_caller_that_holds_all_gives_way_to_another(network: Network) -> None:
    known, a, b = table(4), network.caller("a:1"), network.caller("b:1")
    fill(known, a, "1", "2", "3", "4")
    take(known, step("1", a))  # now 2 is the longest idle
    fill(known, b, "b1")
    with pytest.raises(UnknownSequence, match="sequence 2 has no state: it was ended to make room for"):
        known.enter(step("2", a))
    assert [take(known, step(id, a)) for id in "134"] == [3, 2, 2]
    fill(known, b, "b2")  # of each two
    with pytest.raises(TooManySequences, match="4 sequences are active, the limit: 2 of this caller, 2 of 1"):
        known.enter(step("b3", b, start=True))
    assert (len(known), known.evicted) == (4, 2)


def test_a_caller_alone_may_have_all_and_is_told_so(network: Network) -> None:
    known, a = table(3), network.caller("a:1")
    fill(known, a, *"123")
    with pytest.raises(TooManySequences, match="3 sequences are active, the limit, all of them this") as no:
        known.enter(step("4", a, start=True))
    assert no.value.retry_after_seconds is None, "it may use them for ever"


def test_a_caller_with_its_share_begins_no_more_while_others_ask(network: Network) -> None:
    known, a, b = table(4), network.caller("a:1"), network.caller("b:1")
    fill(known, a, *"1234")
    take(known, step("b", b, start=True, end=True))
    assert len(known) == 3
    with pytest.raises(TooManySequences, match="this caller has 3 sequences, its share of the 4") as no:
        known.enter(step("5", a, start=True))
    assert no.value.retry_after_seconds is None
    later = CONTENDED_SECONDS + 1
    assert take(known, step("5", a, start=True, now=later), later) == 1


def test_a_caller_that_never_pauses_gives_way_after_a_step(network: Network) -> None:
    """A step that was accepted is answered; then its sequence ends, and those behind it are told."""
    known, a, b = table(2), network.caller("a:1"), network.caller("b:1")
    running = [step(id, a, start=True) for id in "12"]
    behind = [step(id, a) for id in "12"]
    assert [known.enter(each) for each in (*running, *behind)] == [True, True, False, False]
    for _ in range(3):  # only one has to go for it
        with pytest.raises(TooManySequences, match="2 of 1 other caller; one of theirs ends after its step"):
            known.enter(step("b", b, start=True))
    known.advance(running[1], (np.array([1.0]),))
    assert known.leave(running[1], 0.0, answered=True) == (behind[1], [])
    known.advance(running[0], (np.array([1.0]),))
    assert known.leave(running[0], 0.0, answered=True) == (None, [behind[0]])
    assert "make room" in str(known.unknown(behind[0]))
    with pytest.raises(TooManySequences, match="its share of the 2 places"):
        known.enter(step("3", a, start=True))
    assert take(known, step("b", b, start=True)) == 1
    assert (known.evicted, known.held_rows) == (1, 0)


def test_a_step_under_way_is_not_ended_if_a_place_has_become_free(network: Network) -> None:
    known, a, b = table(2), network.caller("a:1"), network.caller("b:1")
    running = [step(id, a, start=True) for id in "12"]
    for each in running:
        known.enter(each)
    with pytest.raises(TooManySequences):
        known.enter(step("b", b, start=True))
    known.leave(running[1], 0.0, answered=False)
    known.advance(running[0], (np.array([1.0]),))
    known.leave(running[0], 0.0, answered=True)
    assert take(known, step("1", a)) == 2
    assert known.evicted == 0


def test_nothing_is_left_of_streams_that_have_ended(network: Network) -> None:
    known = table(6)
    for number in range(20):
        stream, caller = Stream(), network.caller(f"{number}:1")
        with contextlib.suppress(TooManySequences):
            take(known, step(stream, caller))
            each = step(f"id {number}", caller, start=True)
            assert each.sequence is not None
            each.sequence = each.sequence._replace(owner=stream)
            take(known, each)
        known.release(stream)
    assert len(known) == len(known._shares) == len(known._owned) == 0
    assert known._shares._holders == known._shares._by_count == {}


def test_a_hint_says_when_a_place_is_free(network: Network) -> None:
    known, a, b = table(2), network.caller("a:1"), network.caller("b:1")
    fill(known, b, "b", now=10.0)
    fill(known, a, "a", now=20.0)
    with pytest.raises(TooManySequences) as no:
        known.enter(step("c", a, start=True, now=30.0))
    assert no.value.retry_after_seconds is None
    network.closed.add("b:1")
    with pytest.raises(TooManySequences) as no:
        known.enter(step("c", a, start=True, now=30.0))
    assert no.value.retry_after_seconds == 10.0 + IDLE_SECONDS - 30.0
    assert take(known, step("c", a, start=True, now=70.0), 70.0) == 1


def test_a_new_caller_gets_the_place_of_one_that_has_gone(network: Network) -> None:
    known = table(2)
    for name in "ab":
        fill(known, network.caller(f"{name}:1"), name)
    newcomer = network.caller("c:1")
    with pytest.raises(TooManySequences):
        known.enter(step("c", newcomer, start=True))
    network.closed.add("b:1")
    fill(known, newcomer, "c")
    with pytest.raises(UnknownSequence, match="make room"):
        known.enter(step("b", network.caller("b:2")))


def test_a_stream_whose_sequence_was_ended_hears_of_it(network: Network) -> None:
    known, a, stream = table(2), network.caller("a:1"), Stream()
    take(known, step(stream, a))
    fill(known, a, "2")
    fill(known, network.caller("b:1"), "b")
    with pytest.raises(UnknownSequence, match="the stream's sequence cannot continue: it was ended to make"):
        known.enter(step(stream, a))


def test_nothing_is_left_of_callers_that_have_gone(network: Network) -> None:
    known = table(50)
    for number in range(200):
        caller = network.caller(f"{number}:1", number if number % 2 else None)
        for each in range(3):
            with contextlib.suppress(TooManySequences):
                fill(known, caller, f"{number} {each}", now=float(number))
    assert len(known) == 50
    known.drop_idle(1e6)
    assert len(known) == len(known._shares) == len(known._evicted) == 0
    assert known._shares._holders == known._shares._by_count == {}


class Model:
    """The plainest table there is: who began each sequence, and its sum."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.begun_by: dict[str, tuple[str, str | None]] = {}


@settings(max_examples=300, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.integers(0, 2**32), st.sampled_from((2, 3, 6)))
def test_whatever_callers_do_no_state_is_mixed_and_none_is_lost_in_silence(seed: int, most: int) -> None:
    chance, network = random.Random(seed), Network()
    known, model, now = table(most), Model(), 0.0
    callers = [network.caller(f"{address}:{port}", name, address=address)
               for address in "pq" for port in (1, 2) for name in (None, None, "n")]  # fmt: skip
    for _ in range(120):
        now += chance.choice((0.0, 0.1, 2.0))
        who, id = chance.choice(callers), chance.choice("12345678")
        if chance.random() < 0.05:
            network.closed.symmetric_difference_update({who.connection})
            continue
        if who.connection in network.closed:
            continue
        made = step(id, who, start=chance.random() < 0.4, end=chance.random() < 0.1, now=now)
        held = {key: entry.caller for key, entry in known._known.items()}
        used = {key: entry.used for key, entry in known._known.items()}
        mine = held.get(id)
        try:
            got = take(known, made, now)
        except RequestError as error:
            _check_refusal(known, made, error, mine)
            gone = set(held) - set(known._known)
            assert not gone, "a refused step ends nothing"
            continue
        start = made.sequence is not None and made.sequence.start
        if start:
            assert mine is None or who.is_same(mine) or mine.connection in network.closed
        else:
            assert mine is not None
            assert who.is_same(mine) or (mine.connection in network.closed and who.may_follow(mine))
        model.sums[id] = 1.0 if start else model.sums[id] + 1.0
        assert got == model.sums[id], "went on from another state"
        for lost in set(held) - set(known._known) - {id}:
            if used[lost] + IDLE_SECONDS <= now:
                continue
            assert len(held) == most, "ended although there was a place"
            caller = held[lost]
            assert caller is not None
            with pytest.raises(UnknownSequence, match="make room"):
                known.enter(step(lost, caller, now=now))
        assert len(known) <= most
        counts = [known._shares.count(connection) for connection in {each.connection for each in callers}]
        assert sum(counts) == len(known)
    known.drop_idle(now + 2 * IDLE_SECONDS)
    assert len(known) == len(known._shares) == len(known._evicted) == known._shares._largest == 0
    assert known._shares._holders == known._shares._by_count == {}


def _check_refusal(known: SequenceTable, made: MadeRequest, error: RequestError, mine: Caller | None) -> None:
    assert made.sequence is not None
    who = made.sequence.caller
    assert who is not None
    if isinstance(error, TooManySequences):
        assert made.sequence.start
        assert mine is None or not who.is_same(mine)
    elif isinstance(error, SequenceTaken):
        assert made.sequence.start
        assert mine is not None
        assert not who.is_same(mine)
    else:
        assert isinstance(error, UnknownSequence)
        assert mine is None or not who.is_same(mine)


def test_a_greedy_caller_and_a_modest_one_settle(network: Network) -> None:
    """Both begin whenever they may; the numbers end equal and nothing goes to and fro."""
    known, callers = table(10), [network.caller("a:1"), network.caller("b:1")]
    numbers, now = iter(range(10**6)), 0.0

    def try_to_begin(who: Caller) -> None:
        with contextlib.suppress(TooManySequences):
            fill(known, who, str(next(numbers)), now=now)

    for _ in range(20):
        try_to_begin(callers[0])
    for _ in range(200):
        now += 0.01
        for each in callers:
            try_to_begin(each)
    assert [known._shares.count(each.connection) for each in callers] == [5, 5]
    assert known.evicted == 5
