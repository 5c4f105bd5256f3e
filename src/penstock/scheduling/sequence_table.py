"""The table of a model's sequences: their states, and steps that wait for the step before them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple
from weakref import WeakKeyDictionary

from penstock.core.caller import Caller
from penstock.core.errors import TooManySequences, UnknownSequence
from penstock.core.request import Request, Step
from penstock.scheduling.packing.states import State
from penstock.scheduling.sequence_entry import OVER_HTTP, START, SequenceEntry
from penstock.scheduling.sequence_shares import MOST_LOOKED_AT, SequenceShares
from penstock.scheduling.step_inputs import step_of

MADE_ROOM = "it was ended to make room for another caller, when all places were in use"
NONE = object()
"""No key of a sequence."""


class SequenceLimits(NamedTuple):
    """How many states are kept, and for how long.

    Attributes:
        idle_seconds: how long a sequence's state is kept after its last step.
        max_sequences: the most sequences that may have a state, or a step that is queued or running.
        counts_bytes: whether the bytes of the states are counted.
        shared: whether all callers share the ids of sequences.
    """

    idle_seconds: float
    max_sequences: int
    counts_bytes: bool = False
    shared: bool = False


class SequenceTable:
    """The sequences of one model. A plain data structure that is given the time; its user holds a lock.

    Only `state_of` and `advance` may be called without the lock: they are about a step that is being run, and
    meanwhile no other thread changes what they use.

    Args:
        limits: how many sequences there may be, and how long their states are kept.

    Attributes:
        held_rows: how many steps are held back.
        held_bytes: the bytes of their messages.
        expired: how many states have expired.
        evicted: how many sequences were ended to make room for those of other callers.
        state_bytes: the bytes of all states, if they are counted.
    """

    def __init__(self, limits: SequenceLimits) -> None:
        self._limits = limits
        self._known: OrderedDict[object, SequenceEntry] = OrderedDict()  # longest idle first
        self._owned: dict[object, set[object]] = {}
        # Why the sequence that a stream has without an id is over: its next step must not begin a new one.
        self._over: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._shares = SequenceShares(limits.max_sequences)
        self._evicted: OrderedDict[object, float] = OrderedDict()  # when, by id; the oldest first
        self._leaving: object = NONE  # a sequence that ends after the step that is under way
        self._earliest = math.inf  # no deadline of a held step is before this
        self.held_rows = self.held_bytes = self.expired = self.evicted = self.state_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, request: Request) -> bool:
        """Adds a step.

        Returns:
            Whether it is the head of its sequence; if not, it is held back.

        Raises:
            UnknownSequence: its sequence has no state, and the step does not begin a sequence.
            TooManySequences: it would begin one sequence too many.
            SequenceTaken: it would begin a sequence that another caller has begun.
        """
        step = step_of(request)
        known = self._known.get(step.key)
        if known is not None and step.caller is not None and step.key is not step.owner:
            known = self._of_caller(step, step.caller, known, request.arrived)
        if known is None:
            if not self._may_begin(step):
                raise self.unknown(request)
            try:
                known = self._begin(step, request.arrived)
            except TooManySequences:
                self._not_begun(step)
                raise
        self._claim(step, known)
        if known.head is None:
            known.head = request
            return True
        known.held[request] = None
        self.held_rows += 1
        self.held_bytes += request.size
        self._earliest = min(self._earliest, request.deadline)
        return False

    def begins(self, request: Request) -> bool:
        """Whether a step that arrives now, or waits as a head, begins its sequence."""
        step = step_of(request)
        known = self._known.get(step.key)
        if known is None:
            return self._may_begin(step)
        return step.start or (known.head is request and known.state is None)

    def rejected(self, request: Request) -> None:
        """A step that arrived now is rejected before it is entered."""
        if step_of(request).key not in self._known:
            self._not_begun(step_of(request))

    def missed(self, owner: object) -> None:
        """A step of a stream's own sequence was rejected, and never arrived here."""
        if owner not in self._known:
            self._over.setdefault(owner, "its first step was rejected")

    def is_held_back(self, request: Request) -> bool:
        """Whether a step that arrives now has to wait for another step of its sequence."""
        step = request.sequence
        known = None if step is None else self._known.get(step.key)
        return known is not None and known.head is not None

    def leave(self, request: Request, now: float, answered: bool) -> tuple[Request | None, list[Request]]:
        """Removes a step that has ended in any way; does nothing if it is not a head.

        Args:
            request: the step.
            now: the time, by `time.monotonic()`.
            answered: whether it was answered. If not, the state stays as it was.

        Returns:
            The next head of its sequence, if there is one; and the held steps that cannot run any more,
            because the step that they continue from has failed.
        """
        step = step_of(request)
        key = step.key
        known = self._known.get(key)
        if known is None or known.head is not request:
            return None, []
        known.head, known.used = None, now
        self._known.move_to_end(key)
        self._settle(step, known, answered)
        self._shares.used(key, known.caller and known.caller.connection)
        if known.state is None and not answered:
            self._not_begun(step)
        lost: list[Request] = []
        must_leave = self._leaving is not NONE and self._has_to_leave(key, now)
        while known.held:
            following, _ = known.held.popitem(last=False)
            self._uncount(following)
            if not must_leave and (known.state is not None or self._may_begin(step_of(following))):
                known.head = following
                return following, lost
            lost.append(following)
        if must_leave and (lost or known.state is not None):
            self._evict(step.key, now)
        elif known.state is None:
            self._forget(step.key)
        return None, lost

    def state_of(self, request: Request) -> State | None:
        """The state that a running step continues from; None if it begins a sequence."""
        step = request.sequence
        assert step is not None  # as in `step_of`, but without a call
        return None if step.start or (known := self._known.get(step.key)) is None else known.state

    def advance(self, request: Request, state: State) -> None:
        """A running step has succeeded: `state` is the state after it, once it has been answered."""
        step = request.sequence
        assert step is not None  # likewise
        known = self._known.get(step.key)
        if known is not None and known.head is request:
            known.fresh = state

    def withdraw(self, request: Request) -> bool:
        """Removes a step that is held back; False if it is not held back."""
        known = self._known.get(step_of(request).key)
        if known is None or request not in known.held:
            return False
        del known.held[request]
        self._uncount(request)
        return True

    def withdraw_all(self) -> list[Request]:
        """Removes all steps that are held back."""
        return self._withdrawn(math.inf)

    def late(self, now: float) -> list[Request]:
        """Removes the steps that are held back and whose deadline has passed."""
        return self._withdrawn(now) if now >= self._earliest else []

    def drop_idle(self, now: float) -> None:
        """Drops the states that have not been used for `idle_seconds`."""
        known = self._known
        while self._evicted and next(iter(self._evicted.values())) + self._limits.idle_seconds <= now:
            self._evicted.popitem(last=False)
        while known:
            key, oldest = next(iter(known.items()))
            if oldest.used + self._limits.idle_seconds > now:
                return
            if oldest.head is not None:
                oldest.used = now
                known.move_to_end(key)
                continue
            self.expired += 1
            if key is oldest.owner:
                seconds = self._limits.idle_seconds
                self._over[key] = f"its state has expired (after {seconds:g} s without a step)"
            self._forget(key)

    def release(self, owner: object) -> None:
        """Drops the states that began on a stream which has ended; during a step, once that has ended."""
        for key in self._owned.pop(owner, ()):
            known = self._known.get(key)
            if known is None:
                continue
            known.claims = tuple(each for each in known.claims if each is not owner)
            if known.head is not None:
                known.closing = (*known.closing, owner)
            elif known.owner is owner:
                self._forget(key)

    def unknown(self, request: Request) -> UnknownSequence:
        """The error of a step whose sequence has no state."""
        step = step_of(request)
        if step.key is step.owner:
            why = self._over.get(step.key, "it never began")
            return UnknownSequence(
                f"the stream's sequence cannot continue: {why}; {START}, or open a new stream"
            )
        if step.key in self._evicted:
            return UnknownSequence(f"sequence {step.key} has no state: {MADE_ROOM}; {START}{OVER_HTTP}")
        return UnknownSequence(
            f"sequence {step.key} has no state: it never began, has ended, or has expired "
            f"(after {self._limits.idle_seconds:g} s without a step); {START}{OVER_HTTP}"
        )

    def _may_begin(self, step: Step) -> bool:
        """Whether a step may begin a sequence: because it says so, or as the first step of a stream."""
        return step.start or (step.key is step.owner and step.key not in self._over)

    def _of_caller(
        self, step: Step, caller: Caller, known: SequenceEntry, now: float
    ) -> SequenceEntry | None:
        """The sequence, if a step of this caller may use it; None if it is over, and the step begins it anew.

        Raises:
            UnknownSequence: another caller has begun it.
            SequenceTaken: likewise, and the step says start.
            TooManySequences: this caller has its share.
        """
        other = known.caller
        if self._limits.shared or other is None or caller.is_same(other):
            may_use = True
        elif not known.is_abandoned:
            may_use = False
        elif step.start:
            self._check_share(caller.connection, now)
            self._forget(step.key)
            return None
        else:
            may_use = caller.may_follow(other) and not known.wanted
        if may_use:
            known.caller = caller
            known.seen = max(known.seen, now)
            return known
        known.wanted = known.wanted or step.start
        raise known.not_for(step)

    def _begin(self, step: Step, now: float) -> SequenceEntry:
        holder = step.caller and step.caller.connection
        if len(self._known) >= self._limits.max_sequences:
            self.drop_idle(now)
        self._check_share(holder, now)
        if len(self._known) >= self._limits.max_sequences:
            self._make_room(holder, now)
        self._evicted.pop(step.key, None)
        known = self._known[step.key] = SequenceEntry(now, step.caller)
        self._shares.add(step.key, holder)
        return known

    def _check_share(self, holder: object, now: float) -> None:
        if self._shares.is_used_up(holder, now):
            raise self._shares.too_many(holder, self._seconds_to_free(now))

    def _make_room(self, holder: object, now: float) -> None:
        """Ends a sequence for a new one: of the caller that has the most, or one whose caller has gone.

        If all that could be ended have a step under way, one of them ends after it. A later try finds room.

        Raises:
            TooManySequences: this caller has its share.
        """
        of_largest = tuple(self._shares.to_end(holder))
        key = next((each for each in of_largest if self._known[each].head is None), None)
        if key is None and self._shares.count(holder) < self._shares.share(holder):
            key = self._left_behind()
        if key is None:
            if of_largest and self._leaving not in self._known:
                self._leaving = of_largest[0]
                self._shares.contend(now)
            raise self._shares.too_many(holder, self._seconds_to_free(now), bool(of_largest))
        self._shares.contend(now)
        self._evict(key, now)

    def _evict(self, key: object, now: float) -> None:
        """Ends a sequence to make room for another caller's."""
        self.evicted += 1
        if key is self._known[key].owner:
            self._over[key] = MADE_ROOM
        else:
            self._evicted[key] = now
            if len(self._evicted) > self._limits.max_sequences:
                self._evicted.popitem(last=False)
        self._forget(key)

    def _has_to_leave(self, key: object, now: float) -> bool:
        """Whether a sequence whose step has ended must end with it, to make room for another caller."""
        if key != self._leaving:
            return False
        self._leaving = NONE
        is_full = len(self._known) >= self._limits.max_sequences
        if is_full:
            self._shares.contend(now)
        return is_full

    def _left_behind(self) -> object | None:
        """The sequence of a caller that has gone, if one is among those that are idle longest."""
        few = islice(self._known.items(), MOST_LOOKED_AT)
        return next((key for key, known in few if known.is_abandoned), None)

    def _seconds_to_free(self, now: float) -> float | None:
        """When a place will be free; None if this is not known."""
        key = self._left_behind()
        return None if key is None else max(self._known[key].used + self._limits.idle_seconds - now, 0.0)

    def _not_begun(self, step: Step) -> None:
        """The first step was rejected or failed: the next step of a stream must not begin its sequence."""
        if step.key is step.owner:
            self._over.setdefault(step.key, "its first step has failed")

    def _settle(self, step: Step, known: SequenceEntry, answered: bool) -> None:
        """Stores the state after a step, if that was answered."""
        fresh, known.fresh = known.fresh, None
        if fresh is not None and answered:
            if step.start or known.state is None:
                known.owner = step.owner
                if step.key is step.owner:  # nothing is over while it has a state
                    self._over.pop(step.key, None)
            known.state = None if step.end else fresh
            if step.end and step.key is step.owner:
                self._over[step.key] = "it has ended"
        if known.closing:
            if known.owner is not None and known.owner in known.closing:
                known.state = None
            known.closing = ()
        if self._limits.counts_bytes:
            size = sum([array.nbytes for array in known.state or ()])
            self.state_bytes += size - known.bytes
            known.bytes = size

    def _claim(self, step: Step, known: SequenceEntry) -> None:
        """Notes that a stream's end may drop the state, which depends on who owns it then."""
        owner = step.owner
        if owner is not None and owner not in known.claims and (step.start or step.key is owner):
            known.claims = (*known.claims, owner)
            self._owned.setdefault(owner, set()).add(step.key)

    def _forget(self, key: object) -> None:
        known = self._known.pop(key)
        self._shares.remove(key)
        self._leaving = NONE if key == self._leaving else self._leaving
        self.state_bytes -= known.bytes
        for owner in known.claims:
            owned = self._owned[owner]
            owned.discard(key)
            if not owned:
                del self._owned[owner]

    def _uncount(self, request: Request) -> None:
        self.held_rows -= 1
        self.held_bytes -= request.size

    def _withdrawn(self, until: float) -> list[Request]:
        late = [each for each in self._held() if each.deadline <= until]
        for each in late:
            self.withdraw(each)
        self._earliest = min((each.deadline for each in self._held()), default=math.inf)
        return late

    def _held(self) -> Iterator[Request]:
        for known in self._known.values():
            yield from known.held
