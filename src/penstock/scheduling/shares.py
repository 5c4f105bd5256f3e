"""Who holds how much of a queue, while so much waits that one caller could keep out the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from penstock.messages import InferRequest
from penstock.scheduling.bounds import Bounds

RECENT_SECONDS = 1.0
"""For so long a caller counts among those that share the room, let in or not: else one that fills whatever
becomes free would keep the others out for ever."""
AT_ONCE = 8  # callers looked at for whether they can be forgotten, whenever one comes


class Shares:
    """Equal shares of a queue's room for all callers that have something there or have just come.

    Nobody is refused for his share while he is alone, or while he holds nothing.

    Args:
        bounds: the room.
        waiting: what waits already.
    """

    def __init__(self, bounds: Bounds, waiting: Iterable[InferRequest]) -> None:
        self._bounds = bounds
        self._held: dict[object, _Share] = {}
        self._callers: dict[InferRequest, object] = {}  # a call that is over cannot say any more whose it was
        self._recent: OrderedDict[object, float] = OrderedDict()  # when each came last, in that order
        for request in waiting:
            self.add(request, request.sender)

    def add(self, request: InferRequest, caller: object) -> None:
        """A request has been let in."""
        self._came(caller, request.arrived)
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
        self._came(caller, now)
        held = self._held.get(caller)
        if held is None:
            return
        self._forget(now - RECENT_SECONDS)
        among = len(self._recent)
        if among > 1:
            share = Bounds(self._bounds.rows // among, self._bounds.bytes // among)
            share.check(f"this caller's share among {among} is", held, request.rows or 1, request.size)

    def holds(self, request: InferRequest, caller: object) -> bool:
        """Whether a request that waits is this caller's."""
        return self._callers.get(request) == caller

    def _came(self, caller: object, now: float) -> None:
        self._recent[caller] = now
        self._recent.move_to_end(caller)

    def _forget(self, before: float) -> None:
        """Forgets who came last before a time, unless he has something waiting."""
        recent = self._recent
        for caller, when in tuple(islice(recent.items(), AT_ONCE)):
            if when >= before:
                return
            if caller in self._held:
                recent.move_to_end(caller)
            else:
                del recent[caller]


class _Share:
    """What one caller has in the queue."""

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.rows = self.bytes = 0
