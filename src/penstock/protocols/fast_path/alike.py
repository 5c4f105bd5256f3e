"""Matching requests of equal length, one behind another: they are compared and read together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from penstock.core import wire
from penstock.core.tensors import Array
from penstock.protocols.fast_path import reading
from penstock.protocols.fast_path.known_requests import Found, KnownRequest
from penstock.protocols.fast_path.pattern import Places
from penstock.protocols.fast_path.spans import NOWHERE, Range

CONTINUES = np.uint8(0x80)  # the bit of all bytes of a varint but the last
TIMEOUT_SHARE = 1 / 128
"""How far the timeouts of requests that run as one may differ from the first one's, of its timeout."""
LARGEST_SECONDS = 0.01
"""How far at most."""


class Alike:
    """Requests that match the same known request, have equal lengths and nearly equal timeouts.

    Args:
        known: the known request that they match.
        places: the places of the spans in each of them.
        messages: their bytes, uint8 [count, bytes of each].
        seconds: their timeouts, the shortest one counts for all; infinity for none.

    Attributes:
        known, messages, seconds: as given.
        count: how many there are.
        tags: their encoded tags, uint8 [count, bytes of each].
        ids: the bytes of their ids, uint8 [count, bytes of each].
    """

    __slots__ = ("_places", "count", "ids", "known", "messages", "seconds", "tags")

    def __init__(self, known: KnownRequest, places: Places, messages: Array, seconds: float) -> None:
        self.known = known
        self.messages = messages
        self.count = len(messages)
        self.seconds = seconds
        self._places = places
        self.tags = _columns(messages, NOWHERE if known.tag is None else places[known.tag])
        self.ids = _columns(messages, NOWHERE if known.id is None else places[known.id])

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, stop: int) -> Alike:
        """The requests at these places among them."""
        if start == 0 and stop >= self.count:
            return self
        return Alike(self.known, self._places, self.messages[start:stop], self.seconds)

    def inputs(self) -> Mapping[str, Array]:
        """Their inputs, in new arrays."""
        return self.known.all_inputs_of(self.messages, self._places)


def are_near(found: Found, other: Found) -> bool:
    """Whether the spans of two requests have the same places, and their timeouts are nearly equal."""
    seconds, others = found[3], other[3]
    return found[4] == other[4] and (
        seconds == others or abs(seconds - others) <= min(seconds * TIMEOUT_SHARE, LARGEST_SECONDS)
    )


def alike(found: Found, messages: Array) -> Alike:
    """The first of several messages that are alike.

    Args:
        found: what was found in the first one.
        messages: uint8 [count, bytes of each].
    """
    known, _, _, seconds, places = found
    position = 0
    for start, end in (*places, (messages.shape[1], 0)):
        if position < start and (equal := equal_rows(messages[:, position:start])) < len(messages):
            messages = messages[:equal]
        position = end
    if known.tag is not None:
        messages = messages[: equal_rows(_columns(messages, places[known.tag]) & CONTINUES)]
    for number in known.plain_texts:
        messages = messages[: _ascii_rows(_columns(messages, places[number]))]
    if known.timeout is not None and not _are_equal(columns := _columns(messages, places[known.timeout])):
        timeouts = _timeouts(columns)
        allowed = min(seconds * TIMEOUT_SHARE, LARGEST_SECONDS) if seconds < math.inf else 0.0
        near = (timeouts >= seconds - allowed) & (timeouts <= seconds + allowed)
        messages = messages[: _first_count(near)]
        seconds = float(timeouts[: len(messages)].min(initial=seconds))
    return Alike(known, places, messages, seconds)


def _timeouts(columns: Array) -> Array:
    """The timeouts of several Durations in seconds, float64 [count]; shorter if some are encoded otherwise.

    Args:
        columns: their contents, uint8 [count, bytes of each]. The first one has been read before.
    """
    first = columns[0].tobytes()
    keys, start = [], 0
    while start < len(first):  # a key, and then a number
        keys.append((start, first[start]))
        start += 1
        while first[start] > wire.LAST_BYTE:
            start += 1
        start += 1
    same, digits, weights = _duration(tuple(keys), len(first))
    columns = columns[: equal_rows(columns & same)]
    seconds: Array = (columns & digits).astype(np.float64) @ weights
    if not seconds.all():
        seconds[seconds == 0] = math.inf
    return seconds


@lru_cache(256)
def _duration(keys: tuple[tuple[int, int], ...], size: int) -> tuple[Array, Array, Array]:
    """How to read the contents of Durations of one form.

    Args:
        keys: the places of the keys, and the keys.
        size: the number of bytes.

    Returns:
        For each byte: the bits that are equal in all, uint8; those of a number, uint8; and their weights in
        seconds, float64.
    """
    same, digits = np.full(size, CONTINUES, np.uint8), np.full(size, 0x7F, np.uint8)
    weights = np.zeros(size)
    ends = [*[place for place, _ in keys[1:]], size]
    for (place, key), end in zip(keys, ends, strict=True):
        unit = 1.0 if key == reading.SECONDS_KEY else 1e-9
        same[place], digits[place] = 0xFF, 0
        weights[place + 1 : end] = [unit * 2.0 ** (7 * n) for n in range(end - place - 1)]
        if key == reading.NANOS_KEY:  # they are below 2**31: the further bits are those of the first one, 0
            same[place + 5 : end] |= np.uint8(0x78)
            same[place + 6 : end] = 0xFF
    return same, digits, weights


def _ascii_rows(columns: Array) -> int:
    """How many rows, counted from the first, are ASCII."""
    if columns.tobytes().isascii():
        return len(columns)
    return _first_count(columns.max(axis=1) <= wire.LAST_BYTE)


def _first_count(good: Array) -> int:
    """How many of the first values are true."""
    return len(good) if good.all() else int((~good).argmax())


def _are_equal(rows: Array) -> bool:
    """Whether all rows of a matrix are equal; true of no rows at all."""
    return rows.tobytes() == rows[:1].tobytes() * len(rows)


def equal_rows(rows: Array) -> int:
    """How many rows of a matrix, counted from the first, are equal."""
    if _are_equal(rows):
        return len(rows)
    return int((rows != rows[0]).any(axis=1).argmax())


def _columns(messages: Array, place: Range) -> Array:
    start, end = place
    return messages[:, start:end]
