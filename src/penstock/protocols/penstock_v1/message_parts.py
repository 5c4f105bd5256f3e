"""Finds the requests in a message of a stream, and those among them that are answered together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from penstock.core import wire
from penstock.protocols.fast_path.alike import Alike, alike, are_near, equal_rows
from penstock.protocols.fast_path.known_requests import Found, KnownRequests
from penstock_proto.v1 import prediction_pb2 as pb

LEAST = 4  # requests in a micro-batch: fewer are faster one by one
MOST = 256  # requests compared at once: limits the wasted work if they differ
REQUESTS = wire.key(pb.PredictStreamRequest.REQUESTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0]
CANCEL = wire.key(pb.PredictStreamRequest.CANCEL_FIELD_NUMBER, wire.VARINT)[0]
CANCEL_PACKED = wire.key(pb.PredictStreamRequest.CANCEL_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0]
TAG_BITS = 2**64 - 1

FoundPart: TypeAlias = tuple[bytes | Alike, Found | None]
"""A request's bytes, and its known request with what was found; or several requests that are alike."""


def requests_in(
    data: bytes, known_requests: KnownRequests, cancelled: set[int] | None = None
) -> Iterator[FoundPart | None]:
    """The requests in a PredictStreamRequest, in order; None for each field with tags to be cancelled.

    Args:
        data: the message.
        known_requests: the known requests.
        cancelled: if given, the tags to be cancelled are added to it.

    Raises:
        ValueError: the message contains anything else, or cannot be parsed here.
    """
    following: Found | None = None
    start, end = 0, len(data)
    while start < end:
        field = data[start]
        if field == REQUESTS:
            length, first = wire.read_varint(data, start + 1)
            stop = first + length
            message = data[first:stop]
            known = following or known_requests.find(message)
            following = None
            if known and data.startswith(known[0].pattern.first, stop + first - start):
                following = _following(data, start, first, stop, known)
            many = None
            if known and following and are_near(known, following):
                many = _alike(data, start, first, stop, known)
                following = following if many is None else None
            yield message if many is None else many, known
            start = stop if many is None else start + many.count * (stop - start)
        elif cancelled is not None and field in (CANCEL, CANCEL_PACKED):
            start = _read_cancelled(data, start, cancelled)
            yield None
        else:
            raise ValueError("a field is not known here")
    if start != end:
        raise ValueError("a field ends after the message")


def all_alike(data: bytes, first: int, stop: int, known_requests: KnownRequests, most: int) -> Alike | None:
    """The requests of a PredictStreamRequest, if nothing else is in it and all are alike.

    Args:
        data: the message.
        first: where the bytes of its first request begin, after key and length.
        stop: where they end.
        known_requests: the known requests.
        most: the most requests that are looked at.

    Returns:
        None if they are not, or if they are fewer than `LEAST` or more than `most`.
    """
    count, rest = divmod(len(data), stop)
    if rest or not LEAST <= count <= most or not data.startswith(data[:first], stop):
        return None
    found = known_requests.find(data[first:stop])
    if found is None or not found[0].may_be_many or not data.startswith(found[0].pattern.first, stop + first):
        return None
    many = _alike(data, 0, first, stop, found)
    return many if many is not None and many.count == count else None


def _read_cancelled(data: bytes, start: int, cancelled: set[int]) -> int:
    """Reads the tags of a field `cancel`, and returns its end."""
    value, first = wire.read_varint(data, start + 1)
    if data[start] == CANCEL:
        cancelled.add(value & TAG_BITS)
        return first
    if value > MOST:
        raise ValueError("protobuf itself reads many tags faster")
    stop = first + value
    while first < stop:
        tag, first = wire.read_varint(data, first)
        cancelled.add(tag & TAG_BITS)
    if first != stop:
        raise ValueError("a number ends after its field")
    return stop


def _following(data: bytes, start: int, first: int, stop: int, found: Found) -> Found | None:
    """What is found in the next request, if it and enough others behind it may be alike; see `_alike`."""
    size = stop - start
    if not found[0].may_be_many or start + LEAST * size > len(data):
        return None
    head = data[start:first]
    for place in range(stop, stop + (LEAST - 1) * size, size):
        if not data.startswith(head, place):
            return None
    return found[0].matches(data[stop + first - start : stop + size])


def _alike(data: bytes, start: int, first: int, stop: int, found: Found) -> Alike | None:
    """The requests from one on that are alike; None if there are too few.

    Args:
        data: the message.
        start: where the first one begins.
        first: where its own bytes begin, after key and length.
        stop: where it ends.
        found: the known request that it matches, and what was found in it.
    """
    size = stop - start
    most = min((len(data) - start) // size, MOST)
    rows = np.frombuffer(data, np.uint8, most * size, start).reshape(most, size)
    count = equal_rows(rows[:, : first - start])
    many = alike(found, rows[:count, first - start :])
    return many if many.count >= LEAST else None
