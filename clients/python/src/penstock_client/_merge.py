"""Merges the rows of several requests into one request, and splits its answer (`merge_rows`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, TypeAlias

import grpc

from penstock_client._errors import PenstockError
from penstock_client._messages import Batch
from penstock_client._types import Prediction
from penstock_client._wire import KnownRequest, extras, input_opened

OF_ALL = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.CANCELLED,
    }
)  # fmt: skip
"""Errors that no single member causes: sending the members separately would not help."""

MERGED_BYTES = 1 << 20
"""Most bytes of inputs in a merged request: above this, copying costs more than merging saves."""

Key: TypeAlias = tuple[Any, ...]


class Member:
    """A request that may be merged with others.

    Args:
        known: the part of the request that stays the same.
        batch: what it must have in common with requests that it is merged with.
        written: its encoded inputs.
        id: of the request.
        deadline: that the request carries, by the monotonic clock, in seconds; None for none.
        metadata: of the request.

    Attributes:
        waiter: the object on which the caller waits for the answer.
        size: the size of its inputs in bytes.
        key: equal for requests that may be merged.
        slot: its place among the pending requests.
    """

    __slots__ = (
        "batch",
        "deadline",
        "id",
        "key",
        "known",
        "metadata",
        "size",
        "slot",
        "waiter",
        "written",
    )

    def __init__(  # noqa: PLR0913 - the fields of a request
        self,
        known: KnownRequest,
        batch: Batch,
        written: list[bytes],
        id: str,
        deadline: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        self.known = known
        self.batch = batch
        self.written = written
        self.id = id
        self.deadline = deadline
        self.metadata = metadata
        self.key: Key = (known, batch.inputs)
        if metadata:
            self.key += (frozenset(metadata.items()),)
        self.size = sum(map(len, written))
        self.waiter: Any = None
        self.slot = 0


class Merger:
    """Requests that wait to be merged.

    Attributes:
        count: their number.
    """

    def __init__(self) -> None:
        self._groups: dict[Key, deque[Member]] = {}
        self.count = 0

    def add(self, member: Member) -> None:
        """Adds a request."""
        group = self._groups.get(member.key)
        if group is None:
            group = self._groups[member.key] = deque()
        group.append(member)
        self.count += 1

    def take(self) -> Iterator[list[Member]]:
        """All waiting requests, in groups to be merged; no group is above the limit on bytes."""
        while self._groups:
            key, group = next(iter(self._groups.items()))
            members: list[Member] = []
            rows = size = 0
            while group and (not members or _fits(group[0], rows, size)):
                member = group.popleft()
                members.append(member)
                rows += member.batch.rows
                size += member.size
            self.count -= len(members)
            del self._groups[key]
            if group:  # at the end of the queue: other groups come first
                self._groups[key] = group
            yield members

    def slots(self) -> set[int]:
        """The slots of all waiting requests."""
        return {member.slot for group in self._groups.values() for member in group}

    def drop_abandoned(self) -> list[Member]:
        """Drops the requests whose callers have stopped waiting, and returns them."""
        waiting = [member for group in self._groups.values() for member in group]
        self._groups, self.count = {}, 0
        for member in waiting:
            if not member.waiter.done():
                self.add(member)
        return [member for member in waiting if member.waiter.done()]


def _fits(member: Member, rows: int, size: int) -> bool:
    """Whether a request may be merged with others that have this many rows and bytes."""
    batch = member.batch
    return rows + batch.rows <= batch.most_rows and size + member.size <= MERGED_BYTES


class Merged:
    """Several requests as one; or just one.

    Args:
        members: the requests, all with the same key.
    """

    __slots__ = ("_head", "_members", "_rows")

    def __init__(self, members: list[Member]) -> None:
        self._members = members
        self._rows = sum([member.batch.rows for member in members])
        self._head = b""

    def parts(self) -> list[bytes]:
        """The serialized fields of the request, without its tag."""
        members = self._members
        first = members[0]
        if len(members) == 1:
            left = None if first.deadline is None else max(1e-9, first.deadline - monotonic())
            return [first.known.fields, *first.written, extras(first.id, left, first.metadata)]
        parts = [first.known.fields]
        for i, (name, number, shape) in enumerate(first.batch.inputs):
            raw = b"".join([member.written[2 * i + 1] for member in members])
            parts += (input_opened(name, number, (self._rows, *shape), len(raw)), raw)
        self._head = parts[1]
        parts.append(extras("", self._timeout(), first.metadata))
        return parts

    def split(self, outcome: Any) -> tuple[list[Member], list[Any] | None]:
        """The members with their outcomes; None if each must be sent separately."""
        if isinstance(outcome, bytes):
            try:
                outcome = self._members[0].known.read(outcome, self._head, "")
            except PenstockError as unreadable:
                outcome = unreadable
        if isinstance(outcome, Prediction):
            arrays = outcome.outputs.values()
            if all(array.ndim and len(array) == self._rows for array in arrays):
                return self._members, self._shares(outcome)
        elif outcome.status in OF_ALL:
            return self._members, [outcome.again() for _ in self._members]
        return self._members, None

    def slots(self) -> set[int]:
        """The slots of the members."""
        return {member.slot for member in self._members}

    def _shares(self, whole: Prediction) -> list[Prediction]:
        shares, start = [], 0
        items = list(whole.outputs.items())
        for member in self._members:
            stop = start + member.batch.rows
            arrays = {name: array[start:stop] for name, array in items}
            shares.append(Prediction(whole.model, whole.version, member.id, arrays, whole.said))
            start = stop
        return shares

    def _timeout(self) -> float | None:
        """The longest remaining time of any member, in seconds."""
        latest = 0.0
        for member in self._members:
            if member.deadline is None:
                return None
            latest = max(latest, member.deadline)
        return max(1e-9, latest - monotonic())
