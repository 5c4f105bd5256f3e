"""What is known of the sequences of one model: their states, and the steps that wait for one another."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from penstock.errors import TooManySequences, UnknownSequence
from penstock.messages import InferRequest, Step
from penstock.scheduling.state import State

START = "send a step with start to begin afresh"

LONGEST_RETRY_SECONDS = 60.0
"""However long states are kept: by then some may have ended."""


class SequenceBounds(NamedTuple):
    """How many states are kept, and for how long.

    Attributes:
        idle_seconds: how long after its last step a sequence's state is kept.
        max_sequences: the most sequences that have a state, or a step under way.
    """

    idle_seconds: float
    max_sequences: int


class _Sequence:
    """One sequence.

    Attributes:
        state: after the last step; None before the first has ended well.
        fresh: what the step under way has made of it; None until it has been run.
        head: the step that waits for a run or is part of one.
        held: the steps behind it, in their order.
        owner: the stream that the state began on.
        claims: the streams that it, or what came after it, has begun on.
        closing: streams that have ended while a step was under way: if the state is theirs then, it goes.
        used: when its last step ended.
    """

    __slots__ = ("claims", "closing", "fresh", "head", "held", "owner", "state", "used")

    def __init__(self, now: float) -> None:
        self.state: State | None = None
        self.fresh: State | None = None
        self.head: InferRequest | None = None
        self.held: OrderedDict[InferRequest, None] = OrderedDict()
        self.owner: object | None = None
        self.claims: tuple[object, ...] = ()
        self.closing: tuple[object, ...] = ()
        self.used = now


class Sequences:
    """The sequences of one model. A plain data structure that is handed the time; its user has the lock.

    Only `state_of` and `advance` may be called without: they are about a step whose run is under way, and
    while it is, nobody else changes what they touch.

    Args:
        bounds: how many there may be, and how long they are kept.

    Attributes:
        held_rows: the steps held back.
        held_bytes: the bytes they came in.
        expired: how many sequences have lost their state because nothing came.
    """

    def __init__(self, bounds: SequenceBounds) -> None:
        self._bounds = bounds
        self._known: OrderedDict[object, _Sequence] = OrderedDict()  # who has been idle longest first
        self._owned: dict[object, set[object]] = {}
        # Why the sequence is over that a stream has without an id: its next step must not begin a new one.
        self._over: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._earliest = math.inf  # no deadline of a held step is before this
        self.held_rows = self.held_bytes = self.expired = 0

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, request: InferRequest) -> bool:
        """Takes a step in.

        Returns:
            Whether it is the head of its sequence, else it is held back.

        Raises:
            UnknownSequence: its sequence has no state and the step does not begin one.
            TooManySequences: it would be one too many.
        """
        step = _step(request)
        known = self._known.get(step.key)
        if known is None:
            if not self._may_begin(step):
                raise self.unknown(request)
            try:
                known = self._begin(step.key, request.arrived)
            except TooManySequences:
                self._has_not_begun(step)
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

    def is_held_back(self, request: InferRequest) -> bool:
        """Whether a step that comes now is to wait for another one of its sequence."""
        known = self._known.get(_step(request).key)
        return known is not None and known.head is not None

    def leave(
        self, request: InferRequest, now: float, answered: bool
    ) -> tuple[InferRequest | None, list[InferRequest]]:
        """Takes a step out that has ended, however it did; one that is no head is left alone.

        Args:
            request: the step.
            now: the time.
            answered: whether its answer was given; else the state stays as it was.

        Returns:
            The next head of its sequence, if there is one; and those behind it that have lost their turn,
            because the state that they were to go on from has not come about.
        """
        step = _step(request)
        known = self._known.get(step.key)
        if known is None or known.head is not request:
            return None, []
        known.head, known.used = None, now
        self._known.move_to_end(step.key)
        self._settle(step, known, answered)
        if known.state is None and not answered:
            self._has_not_begun(step)
        lost: list[InferRequest] = []
        while known.held:
            following, _ = known.held.popitem(last=False)
            self._let_go(following)
            if known.state is not None or self._may_begin(_step(following)):
                known.head = following
                return following, lost
            lost.append(following)
        if known.state is None:
            self._forget(step.key)
        return None, lost

    def state_of(self, request: InferRequest) -> State | None:
        """The state that a step under way goes on from; None where it begins afresh."""
        step = _step(request)
        known = self._known.get(step.key)
        return None if step.start or known is None else known.state

    def advance(self, request: InferRequest, state: State) -> None:
        """A step under way has been run well: this is the state after it, once it has been answered."""
        known = self._known.get(_step(request).key)
        if known is not None and known.head is request:
            known.fresh = state

    def withdraw(self, request: InferRequest) -> bool:
        """Takes a step out that is held back; False where it is not."""
        known = self._known.get(_step(request).key)
        if known is None or request not in known.held:
            return False
        del known.held[request]
        self._let_go(request)
        return True

    def withdraw_all(self) -> list[InferRequest]:
        """Takes out all steps that are held back."""
        return self._withdrawn(math.inf)

    def late(self, now: float) -> list[InferRequest]:
        """Takes out the steps that are held back and whose deadline has passed."""
        return self._withdrawn(now) if now >= self._earliest else []

    def drop_idle(self, now: float) -> None:
        """Drops the states that have not been used for long."""
        known = self._known
        while known:
            key, oldest = next(iter(known.items()))
            if oldest.used + self._bounds.idle_seconds > now:
                return
            if oldest.head is not None:
                oldest.used = now
                known.move_to_end(key)
                continue
            self.expired += 1
            if key is oldest.owner:
                seconds = self._bounds.idle_seconds
                self._over[key] = f"its state has expired, since no step came for {seconds:g} s"
            self._forget(key)

    def release(self, owner: object) -> None:
        """Drops the states that began on a stream which has ended; what is under way goes with its step."""
        for key in self._owned.pop(owner, ()):
            known = self._known.get(key)
            if known is None:
                continue
            known.claims = tuple(each for each in known.claims if each is not owner)
            if known.head is not None:
                known.closing = (*known.closing, owner)
            elif known.owner is owner:
                self._forget(key)

    def unknown(self, request: InferRequest) -> UnknownSequence:
        """The error of a step whose sequence has no state."""
        step = _step(request)
        if step.key is step.owner:
            why = self._over.get(step.key, "it never began")
            return UnknownSequence(f"the stream's sequence cannot go on: {why}; {START}")
        return UnknownSequence(
            f"sequence {step.key} has no state here: it never began, has ended or has expired "
            f"(after {self._bounds.idle_seconds:g} s without a step); {START}"
        )

    def _may_begin(self, step: Step) -> bool:
        """Whether a step may be the first one: by its word, or as the first one of a stream."""
        return step.start or (step.key is step.owner and step.key not in self._over)

    def _begin(self, key: object, now: float) -> _Sequence:
        if len(self._known) >= self._bounds.max_sequences:
            self.drop_idle(now)
        if len(self._known) >= self._bounds.max_sequences:
            first = next(iter(self._known.values()))
            seconds = max(first.used + self._bounds.idle_seconds - now, 0.0)
            raise TooManySequences(
                f"{len(self._known)} sequences are under way, which is the most; end some",
                min(seconds, LONGEST_RETRY_SECONDS),
            )
        known = self._known[key] = _Sequence(now)
        return known

    def _has_not_begun(self, step: Step) -> None:
        """The first step was refused or has failed: what a stream sends next is not the first."""
        if step.key is step.owner:
            self._over.setdefault(step.key, "its first step has failed")

    def _settle(self, step: Step, known: _Sequence, answered: bool) -> None:
        """Takes over what a step has made of the state, if it ended well."""
        fresh, known.fresh = known.fresh, None
        if fresh is not None and answered:
            if step.start or known.state is None:
                known.owner = step.owner
            known.state = None if step.end else fresh
            if step.key is step.owner:
                self._over.pop(step.key, None)
                if step.end:
                    self._over[step.key] = "it has ended"
        if known.owner is not None and known.owner in known.closing:
            known.state = None
        known.closing = ()

    def _claim(self, step: Step, known: _Sequence) -> None:
        """Notes what is to be looked at when a stream ends, whether or not it will be the stream's then."""
        owner = step.owner
        if owner is not None and owner not in known.claims and (step.start or step.key is owner):
            known.claims = (*known.claims, owner)
            self._owned.setdefault(owner, set()).add(step.key)

    def _forget(self, key: object) -> None:
        for owner in self._known.pop(key).claims:
            owned = self._owned[owner]
            owned.discard(key)
            if not owned:
                del self._owned[owner]

    def _let_go(self, request: InferRequest) -> None:
        self.held_rows -= 1
        self.held_bytes -= request.size

    def _withdrawn(self, until: float) -> list[InferRequest]:
        late = [each for each in self._held() if each.deadline <= until]
        for each in late:
            self.withdraw(each)
        self._earliest = min((each.deadline for each in self._held()), default=math.inf)
        return late

    def _held(self) -> Iterator[InferRequest]:
        for known in self._known.values():
            yield from known.held


def _step(request: InferRequest) -> Step:
    assert request.sequence is not None, "a front door makes a step of every request for such a model"
    return request.sequence
