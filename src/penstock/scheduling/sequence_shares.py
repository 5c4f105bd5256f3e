"""Equal shares of `max_sequences`: no caller can keep others from beginning sequences.

A caller may have all sequences while no other asks. If all are in use and a caller asks that has at least two
fewer than the one with the most, that one loses the sequence that it has used least recently. So callers that
want as many as they can get end with equal numbers, and no sequence is taken and given back again and again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from penstock.core.errors import TooManySequences

CONTENDED_SECONDS = 1.0
"""How long, after a caller had to be given a place of another, those with a full share begin no more: what
they began would be taken from them again."""

MOST_LOOKED_AT = 8
"""How many sequences are looked at for one that can be ended: the work for a step stays small."""


class SequenceShares:
    """How many sequences each caller has. A plain data structure; its user holds a lock.

    Args:
        most: the most sequences of all callers together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[object, OrderedDict[object, None]] = {}  # by holder; longest idle first
        self._holders: dict[object, object] = {}  # by sequence
        self._by_count: dict[int, OrderedDict[object, None]] = {}  # the holders that have this many
        self._largest = 0
        self._contended = -math.inf

    def __len__(self) -> int:
        return len(self._of)

    def count(self, holder: object) -> int:
        """How many sequences a caller has."""
        return len(self._of.get(holder, ()))

    def add(self, key: object, holder: object) -> None:
        """A caller has begun a sequence."""
        mine = self._of.setdefault(holder, OrderedDict())
        mine[key] = None
        self._holders[key] = holder
        self._counted(holder, len(mine) - 1, len(mine))

    def remove(self, key: object) -> None:
        """A sequence is over."""
        holder = self._holders.pop(key)
        mine = self._of[holder]
        del mine[key]
        if not mine:
            del self._of[holder]
        self._counted(holder, len(mine) + 1, len(mine))

    def used(self, key: object, holder: object) -> None:
        """A step of a sequence has come, perhaps on a new connection of its caller."""
        if self._holders[key] == holder:
            self._of[holder].move_to_end(key)
        else:
            self.remove(key)
            self.add(key, holder)

    def is_used_up(self, holder: object, now: float) -> bool:
        """Whether a caller has its share while others have just asked for theirs."""
        return now < self._contended + CONTENDED_SECONDS and self.count(holder) >= self.share(holder)

    def share(self, holder: object) -> int:
        """How many sequences a caller may have while others ask: the same for all."""
        among = len(self._of) + (holder not in self._of)
        return max(self._most // max(among, 2), 1)

    def to_end(self, holder: object) -> Iterator[object]:
        """The sequences that may be ended for a new one of `holder`, the best to end first; at most a few."""
        if self._largest < self.count(holder) + 2:
            return
        most = next(iter(self._by_count[self._largest]))
        yield from islice(self._of[most], MOST_LOOKED_AT)

    def contend(self, now: float) -> None:
        """A caller was given a place of another."""
        self._contended = now

    def too_many(self, holder: object, seconds: float | None, will_be_free: bool = False) -> TooManySequences:
        """The error of a step that cannot begin its sequence, although there may be a place.

        Args:
            holder: its caller.
            seconds: after how many seconds a place is free; None if that is not known. Other sequences may be
                used for ever.
            will_be_free: whether a place is free soon, after a step that is under way.
        """
        among, mine = len(self._holders), self.count(holder)
        if among < self._most:
            return TooManySequences(
                f"this caller has {mine} sequences, its share of the {self._most} places while other callers "
                "ask for theirs; end some of them"
            )
        words = f"{among} sequences are active, the limit"
        if mine == among:
            words += ", all of them this caller's; end some of them"
        else:
            others = len(self) - (mine > 0)
            words += f": {mine} of this caller, {among - mine} of {others} other caller{'s' * (others > 1)}"
        if will_be_free:
            words += "; one of theirs ends after its step that is under way, so try again soon"
        return TooManySequences(words, seconds)

    def _counted(self, holder: object, before: int, after: int) -> None:
        if before:
            same = self._by_count[before]
            del same[holder]
            if not same:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, OrderedDict())[holder] = None
        if after > self._largest or (before == self._largest and before not in self._by_count):
            self._largest = after
