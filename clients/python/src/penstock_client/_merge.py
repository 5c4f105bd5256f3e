"""Rows of several requests as one request, and its answer as several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, TypeAlias

import grpc

from penstock_client._errors import PenstockError
from penstock_client._messages import Batch
from penstock_client._types import Prediction
from penstock_client._wire import Template, extras, input_opened

OF_ALL = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.CANCELLED,
    }
)  # fmt: skip
"""Errors that are no single member's fault: sending the members apart would make nothing better."""

MERGED_BYTES = 1 << 20
"""Above this many bytes of inputs nothing more is merged: copying them costs more than what is saved."""

Key: TypeAlias = tuple[Any, ...]


class Member:
    """A request that may be merged with others.

    Args:
        template: all of the request that stays the same.
        batch: what it shares with those it may be merged with.
        written: its inputs, as they stand in the request.
        id: the request's.
        deadline: by the monotonic clock, in seconds; None for none.
        metadata: the request's.

    Attributes:
        waiter: who waits for the answer.
        size: the bytes of its inputs.
        key: equal for those that may be merged.
        slot: its place among what is pending.
    """

    __slots__ = (
        "batch",
        "deadline",
        "id",
        "key",
        "metadata",
        "size",
        "slot",
        "template",
        "waiter",
        "written",
    )

    def __init__(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        batch: Batch,
        written: list[bytes],
        id: str,
        deadline: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        self.template = template
        self.batch = batch
        self.written = written
        self.id = id
        self.deadline = deadline
        self.metadata = metadata
        self.key: Key = (template, batch.inputs)
        if metadata:
            self.key += (frozenset(metadata.items()),)
        self.size = sum(map(len, written))
        self.waiter: Any = None
        self.slot = 0


class Merger:
    """Requests that wait to be merged.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        self._groups: dict[Key, deque[Member]] = {}
        self.count = 0

    def add(self, member: Member) -> None:
        """Takes a request."""
        group = self._groups.get(member.key)
        if group is None:
            group = self._groups[member.key] = deque()
        group.append(member)
        self.count += 1

    def take(self) -> Iterator[list[Member]]:
        """All that wait, in groups to be merged; no group has more bytes than are worth merging."""
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
            if group:  # at the end of the line: other groups have their turn first
                self._groups[key] = group
            yield members

    def slots(self) -> set[int]:
        """The slots of all that wait."""
        return {member.slot for group in self._groups.values() for member in group}

    def drop_abandoned(self) -> list[Member]:
        """Drops the requests that nobody waits for any more, and returns them."""
        waiting = [member for group in self._groups.values() for member in group]
        self._groups, self.count = {}, 0
        for member in waiting:
            if not member.waiter.done():
                self.add(member)
        return [member for member in waiting if member.waiter.done()]


def _fits(member: Member, rows: int, size: int) -> bool:
    """Whether a request may be merged with others that have so many rows and bytes."""
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
        """The serialized fields of the request, but for its tag."""
        members = self._members
        first = members[0]
        if len(members) == 1:
            left = None if first.deadline is None else max(1e-9, first.deadline - monotonic())
            return [first.template.fields, *first.written, extras(first.id, left, first.metadata)]
        parts = [first.template.fields]
        for i, (name, number, shape) in enumerate(first.batch.inputs):
            raw = b"".join([member.written[2 * i + 1] for member in members])
            parts += (input_opened(name, number, (self._rows, *shape), len(raw)), raw)
        self._head = parts[1]
        parts.append(extras("", self._timeout(), first.metadata))
        return parts

    def split(self, outcome: Any) -> tuple[list[Member], list[Any] | None]:
        """The members, and how each of them ended; None where each is to be asked by itself."""
        if isinstance(outcome, bytes):
            try:
                outcome = self._members[0].template.read(outcome, self._head, "")
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
        """The longest that any member may still take, in seconds."""
        latest = 0.0
        for member in self._members:
            if member.deadline is None:
                return None
            latest = max(latest, member.deadline)
        return max(1e-9, latest - monotonic())
