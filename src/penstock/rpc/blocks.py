"""Finds the requests in a stream's message, and those among them that look alike."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from penstock.rpc import wire
from penstock.rpc.templates import Template, Templates, equal_rows
from penstock.tensors import Array
from penstock_proto.v1 import prediction_pb2 as pb

LEAST = 4  # requests in a block: fewer are quicker one by one
MOST = 256  # that are compared at once: where they differ, the comparing was for nothing
REQUESTS = wire.key(pb.PredictStreamRequest.REQUESTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)[0]

Found: TypeAlias = tuple[bytes | Array, Template | None]
"""A request's bytes, and what it looks like; or those of several that look alike, uint8 [count, bytes]."""


def requests_in(data: bytes, templates: Templates) -> list[Found] | None:
    """The requests in a PredictStreamRequest, in order.

    Returns:
        None where there is anything else in the message, or it is none.
    """
    found: list[Found] = []
    start, end = 0, len(data)
    try:
        while start < end:
            if data[start] != REQUESTS:
                return None
            length, first = wire.read_varint(data, start + 1)
            stop = first + length
            message = data[first:stop]
            template = templates.find(message)
            alike = _alike(data, start, first, stop, template) if template else None
            if alike is None:
                found.append((message, template))
                start = stop
            else:
                found.append((alike, template))
                start += len(alike) * (stop - start)
    except ValueError:
        return None
    return found if start == end else None


def _alike(data: bytes, start: int, first: int, stop: int, template: Template) -> Array | None:
    """The requests from one on that look like it; None where there are too few.

    Args:
        data: the message.
        start: where the one begins.
        first: where its own bytes begin, after key and length.
        stop: where it ends.
        template: what it looks like.
    """
    size = stop - start
    most = min((len(data) - start) // size, MOST)
    if most < LEAST or not template.may_be_many or not data.startswith(data[start:first], stop):
        return None
    if not template.is_like(data[stop + first - start : stop + size]):
        return None
    rows = np.frombuffer(data, np.uint8, most * size, start).reshape(most, size)
    count = equal_rows(rows[:, : first - start])
    count = template.count_alike(rows[:count, first - start :])
    return rows[:count, first - start :] if count >= LEAST else None
