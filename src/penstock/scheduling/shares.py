"""Who holds how much of a queue, while so much waits that one caller could keep out the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.messages import InferRequest
from penstock.scheduling.bounds import Bounds

REFUSED_SECONDS = 1.0
"""For so long a caller that was refused counts among those that the room is shared by: else one that fills
whatever becomes free would keep the others out for ever."""
MOST_REFUSED = 1024


class Shares:
    """Equal shares of a queue's room for all callers that have something there or have just been refused.

    Nobody is refused for his share while he is alone, or while he holds nothing.

    Args:
        bounds: the room.
        waiting: what waits already.
    """

    def __init__(self, bounds: Bounds, waiting: Iterable[InferRequest]) -> None:
        self._bounds = bounds
        self._held: dict[object, _Share] = {}
        self._callers: dict[InferRequest, object] = {}  # a call that is over cannot say any more whose it was
        self._refused: dict[object, float] = {}
        for request in waiting:
            self.add(request, request.sender)

    def add(self, request: InferRequest, caller: object) -> None:
        """A request has been let in."""
        self._callers[request] = caller
        held = self._held.setdefault(caller, _Share())
        held.rows += request.rows or 1
        held.bytes += request.size

    def remove(self, request: InferRequest) -> None:
        """A request has left."""
        caller = self._callers.pop(request)
        held = self._held[caller]
        held.rows -= request.rows or 1
        held.bytes -= request.size
        if not held.rows:
            del self._held[caller]

    def check(self, request: InferRequest, caller: object, now: float) -> None:
        """Makes sure that a request is within its caller's share.

        Raises:
            QueueFull: it is not.
        """
        held = self._held.get(caller)
        if held is None:
            return
        among = len(self._held) + sum(each not in self._held for each in self._recently_refused(now))
        if among > 1:
            share = Bounds(self._bounds.rows // among, self._bounds.bytes // among)
            share.check(f"this caller's share among {among} is", held, request.rows or 1, request.size)

    def refused(self, caller: object, now: float) -> None:
        """A request was refused for want of room."""
        if len(self._refused) < MOST_REFUSED:
            self._refused[caller] = now + REFUSED_SECONDS

    def _recently_refused(self, now: float) -> Mapping[object, float]:
        if self._refused:
            self._refused = {caller: until for caller, until in self._refused.items() if until > now}
        return self._refused


class _Share:
    """What one caller has in the queue."""

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.rows = self.bytes = 0
