"""The lists of known requests: found by a message's length or beginning, bounded; the ones in use are kept.

A new known request takes the place of the one that was used least. So requests that differ each time, of
which each is used once, take each other's places, and those that come again and again stay. What counts are
the uses of late: from time to time all counts are halved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Generic, Protocol, TypeAlias, TypeVar

MOST = 256  # known requests
MOST_OF_A_LENGTH = 4  # that are found by the same length and the same first field
MOST_OF_A_BEGINNING = 64  # that begin with the same constant bytes
MOST_WIDTHS = 16  # of these bytes, among those with the same first field: in most requests the model's name
MOST_LENGTHS = 4096  # of messages that have matched
MOST_USES = 64  # that count


class Known(Protocol):
    """A known request, as its lists see it."""

    uses: int

    @property
    def size(self) -> int | None:
        """The length of every matching request; None if it may differ."""

    @property
    def first(self) -> bytes:
        """What every matching request begins with."""

    def matches(self, data: bytes) -> object | None:
        """None if a message does not match it."""


K = TypeVar("K", bound=Known)
Place: TypeAlias = tuple[int, bytes]
"""The length of a message and its first field: b"" if that may differ between matching messages."""


class KnownLists(Generic[K]):
    """Known requests, by length and by beginning.

    The lists are replaced, never changed: messages are looked up on several threads without a lock.

    Attributes:
        by_length: by the length and the first field of messages that matched them, the last ones first. So
            models whose requests are equally long do not take each other's places.
        any_differs: whether a known request has a first field that may differ.
        any_varies: whether the length of requests that match one may differ; if not, none is found by its
            beginning.
        all: all of them, the oldest first, with the first field of their messages.
    """

    def __init__(self) -> None:
        self.by_length: dict[Place, Sequence[K]] = {}
        self.any_differs = self.any_varies = False
        self.all: dict[K, bytes] = {}
        self._by_beginning: dict[bytes, Sequence[K]] = {}  # only those whose length may differ
        self._widths: dict[bytes, Sequence[int]] = {}  # of the beginnings, by the first field
        self._added = 0
        self._lock = Lock()

    def of_length(self, data: bytes) -> Sequence[K]:
        """The known requests that messages of this length have matched."""
        found = self.by_length.get((len(data), first_field(data)), ())
        return [*found, *self.by_length.get((len(data), b""), ())] if self.any_differs else found

    def beginning_as(self, data: bytes) -> Iterable[K]:
        """The known requests of any length that begin as a message does."""
        for width in self._widths.get(first_field(data), ()):
            yield from self._by_beginning.get(data[:width], ())

    def note_length(self, known: K, data: bytes) -> None:
        """A message has matched: the next one of this length is found by it."""
        with self._lock:
            if known in self.all:
                self._put_first(known, len(data))

    def add(self, known: K, data: bytes) -> None:
        """Adds a known request made from a message; others may be given up for it."""
        field = first_field(data)
        with self._lock:
            for each in (*self.of_length(data), *self.beginning_as(data)):
                if each in self.all and each.matches(data) is not None:  # of a model that was replaced
                    self._remove(each)
            if len(self.all) >= MOST:
                self._remove(_least_used(self.all))
            self.all[known] = field
            self._put_first(known, len(data))
            if known.size is None:
                self._add_beginning(known, field)
            self._added += 1
            if self._added % MOST == 0:
                for each in self.all:
                    each.uses = min(each.uses, MOST_USES) // 2

    def _add_beginning(self, known: K, field: bytes) -> None:
        alike = self._by_beginning.get(known.first, ())
        if len(alike) >= MOST_OF_A_BEGINNING:
            self._remove(_least_used(alike))
        widths = self._widths.get(field, ())
        if len(known.first) not in widths:
            while len(self._widths.get(field, ())) >= MOST_WIDTHS:
                others = [each for each, its in self.all.items() if its == field and each is not known]
                self._remove(_least_used([each for each in others if each.size is None]))
        self._by_beginning[known.first] = [known, *self._by_beginning.get(known.first, ())]
        self._set_widths(field)

    def _set_widths(self, field: bytes) -> None:
        """Finds the widths of the beginnings again, those of the last ones first."""
        known = [each for each, its in self.all.items() if its == field and each.size is None]
        widths = tuple(dict.fromkeys(len(each.first) for each in reversed(known)))
        if widths:
            self._widths[field] = widths
        else:
            self._widths.pop(field, None)
        self.any_varies = bool(self._widths)

    def _put_first(self, known: K, length: int) -> None:
        if len(self.by_length) >= MOST_LENGTHS:
            self.by_length = {place: [*fixed] for place, fixed in self._fixed().items()}
        place = self._place(known, length)
        others = [each for each in self.by_length.get(place, ()) if each is not known]
        same = [each for each in others if (each.size is None) == (known.size is None)]
        if len(same) >= MOST_OF_A_LENGTH:
            dropped = _least_used(same)
            others = [each for each in others if each is not dropped]
            if dropped.size is not None:
                self._remove(dropped)  # it is found by nothing else
        self.by_length[place] = [known, *others]

    def _place(self, known: K, length: int) -> Place:
        field = self.all[known]
        if known.first.startswith(field):
            return length, field
        self.any_differs = True
        return length, b""

    def _fixed(self) -> dict[Place, list[K]]:
        fixed: dict[Place, list[K]] = {}
        for each in self.all:
            if each.size is not None:
                fixed.setdefault(self._place(each, each.size), []).insert(0, each)
        return fixed

    def _remove(self, known: K) -> None:
        field = self.all.pop(known)
        self.by_length = {
            place: rest
            for place, found in self.by_length.items()
            if (rest := [each for each in found if each is not known])
        }
        if known.size is None:
            rest = [each for each in self._by_beginning.get(known.first, ()) if each is not known]
            if rest:
                self._by_beginning[known.first] = rest
            else:
                self._by_beginning.pop(known.first, None)
            self._set_widths(field)


def _least_used(known: Iterable[K]) -> K:
    return min(known, key=lambda each: each.uses)


def first_field(data: bytes) -> bytes:
    """The first field of a message, if its value has a length of one byte; always a part of its beginning."""
    return data[: 2 + data[1]] if len(data) > 1 else data
