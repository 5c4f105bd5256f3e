"""Fair share: divides a nearly full queue equally among callers, so that no caller can block the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from penstock.core.errors import QueueFull
from penstock.core.request import Request
from penstock.scheduling.queue.limits import QueueLimits

RECENT_SECONDS = 1.0
"""How long a caller gets a share after its last request, accepted or not. Otherwise a caller that fills the
queue as soon as a place becomes free would block the others for ever."""
AT_ONCE = 1024
"""The most callers that are looked at to be forgotten, each time one comes, which takes 0.6 ms. A caller is
looked at once in `RECENT_SECONDS`, so usually there are few."""


class FairShare:
    """Equal shares of a queue's limits for all callers whose requests wait there or have just arrived.

    A caller is not limited to its share while it is the only caller, or while nothing of it waits.

    Args:
        limits: the limits of the queue.
        waiting: the requests that wait already.
    """

    def __init__(self, limits: QueueLimits, waiting: Iterable[Request]) -> None:
        self._limits = limits
        self._held: dict[object, _Share] = {}
        self._callers: dict[Request, object] = {}  # a call that is over cannot tell its caller any more
        self._recent: OrderedDict[object, float] = OrderedDict()  # when each caller came last, in that order
        for request in waiting:
            self.add(request, request.sender)

    def add(self, request: Request, caller: object) -> None:
        """A request has been added to the queue."""
        self._came(caller, request.arrived)
        self._callers[request] = caller
        held = self._held.setdefault(caller, _Share())
        held.rows += request.rows or 1
        held.bytes += request.size

    def remove(self, request: Request) -> None:
        """A request has left the queue."""
        caller = self._callers.pop(request)
        held = self._held[caller]
        held.rows -= request.rows or 1
        held.bytes -= request.size
        if not held.rows:
            del self._held[caller]

    def why_full(self, request: Request, caller: object, now: float) -> QueueFull | None:
        """Why a request that has just arrived is not within its caller's share; None if it is."""
        recent = self._recent
        recent[caller] = now
        recent.move_to_end(caller)
        if next(iter(recent.values())) < now - RECENT_SECONDS:
            self._forget(now)
        held = self._held.get(caller)
        if held is None:
            return None
        among = len(recent)
        if among == 1:
            return None
        share = QueueLimits(self._limits.rows // among, self._limits.bytes // among)
        where = f"this caller's fair share of the queue (1 of {among} callers) is used up"
        return share.why_full(where, held, request.rows or 1, request.size)

    def holds(self, request: Request, caller: object) -> bool:
        """Whether a waiting request is this caller's."""
        return self._callers.get(request) == caller

    def _came(self, caller: object, now: float) -> None:
        self._recent[caller] = now
        self._recent.move_to_end(caller)

    def _forget(self, now: float) -> None:
        """Forgets callers that came last longer ago than `RECENT_SECONDS`, unless something of them waits."""
        recent = self._recent
        for _ in range(AT_ONCE):
            caller, when = next(iter(recent.items()))  # there is always the one that has just come
            if when >= now - RECENT_SECONDS:
                return
            if caller in self._held:
                self._came(caller, now)
            else:
                del recent[caller]


class _Share:
    """How much of one caller waits."""

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.rows = self.bytes = 0
