"""Whether batches of a model save time, as real requests show.

Whether they do is measured when a model is loaded, but with made-up requests, which may be much smaller than
real ones: of large pictures, eight often take longer together than one by one. So when a batch is verified,
its requests are also run together once more, on the same thread and as idle a machine as the runs alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

NOTED = 16
"""So many batches are looked at, the last ones."""

FEWEST = 8
"""Fewer batches decide nothing: single runs vary."""

DEARER = 1.05
"""Batches that take this many times as long as their requests alone are given up. The check at load begins to
batch at 0.9: what is just as quick either way stays as it is."""

MOST_CHEAPER = 4
"""Not given up if one batch in so many took less time than its requests alone."""

QUICK_SECONDS = 0.0005
"""Batches of requests that take less are never given up: they save the work around a run as well."""


class LiveWorth:
    """How long the last verified batches took, and how long their requests took alone."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, float]] = deque(maxlen=NOTED)

    def note(self, together: float, alone: Sequence[float]) -> str:
        """Notes a batch.

        Args:
            together: how long its requests took together, in seconds.
            alone: how long each of them took alone.

        Returns:
            Why batches are to be given up, in words; "" if they are not.
        """
        if len(alone) < 2 or sum(alone) < QUICK_SECONDS * len(alone):
            return ""
        self._noted.append((together, sum(alone)))
        if len(self._noted) < FEWEST:
            return ""
        cheaper = sum(batch < lone for batch, lone in self._noted)
        ratio = sum(batch for batch, _ in self._noted) / sum(lone for _, lone in self._noted)
        if ratio < DEARER or cheaper * MOST_CHEAPER > len(self._noted):
            return ""
        return f"together they take {ratio:.2f} times as long as one by one"
