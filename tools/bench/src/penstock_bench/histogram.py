"""Histograms of times in constant memory, for runs of any length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

LOWEST_SECONDS = 1e-7
HIGHEST_SECONDS = 1e4
GROWTH = 1.0025
"""How much wider each bin is than the one before: a quantile is exact to about an eighth of a percent."""

_LOG_GROWTH = math.log(GROWTH)
_BINS = math.ceil(math.log(HIGHEST_SECONDS / LOWEST_SECONDS) / _LOG_GROWTH) + 1
_WAITING = 4096


class Histogram:
    """Counts of times in bins whose width grows with the time; count, sum and extremes are exact.

    Times are in seconds. Those outside of 0.1 µs to 10,000 s are counted in the outermost bins.
    """

    __slots__ = ("_counts", "_largest", "_smallest", "_sum", "_waiting")

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._waiting: list[float] = []
        self._sum = 0.0
        self._smallest = math.inf
        self._largest = -math.inf

    def add(self, seconds: float) -> None:
        """Counts one time; times are buffered, and sorted into bins by the thousand."""
        self._waiting.append(seconds)
        if len(self._waiting) >= _WAITING:
            self._flush()

    def merge(self, other: Histogram) -> None:
        """Counts everything that another histogram has counted."""
        other._flush()
        self._counts += other._counts
        self._sum += other._sum
        self._smallest = min(self._smallest, other._smallest)
        self._largest = max(self._largest, other._largest)

    def __len__(self) -> int:
        self._flush()
        return int(self._counts.sum())

    @property
    def total(self) -> float:
        """The sum of all times."""
        self._flush()
        return self._sum

    @property
    def mean(self) -> float:
        """The mean time; NaN if nothing was counted."""
        return self.total / len(self) if len(self) else math.nan

    @property
    def min(self) -> float:
        """The shortest time; NaN if nothing was counted."""
        return self._smallest if len(self) else math.nan

    @property
    def max(self) -> float:
        """The longest time; NaN if nothing was counted."""
        return self._largest if len(self) else math.nan

    def quantile(self, share: float) -> float:
        """The quantile: at least this share of all times is not above it; NaN if nothing was counted.

        Args:
            share: from 0 to 1.
        """
        count = len(self)
        if not count:
            return math.nan
        rank = max(1, math.ceil(share * count))
        found = int(np.searchsorted(np.cumsum(self._counts), rank))
        middle = LOWEST_SECONDS * GROWTH ** (found + 0.5)
        return float(min(max(middle, self._smallest), self._largest))

    def coarse(self, bins: int) -> tuple[list[float], list[int]]:
        """The same in few bins, of equal width on a logarithmic axis, from the shortest to the longest time.

        Args:
            bins: their number; fewer if the times are close together.

        Returns:
            The edges in seconds, one more than bins, and the counts; both empty if nothing was counted.
        """
        held = np.flatnonzero(self._counts) if len(self) else np.empty(0, np.int64)
        if not held.size:
            return [], []
        first, last = int(held[0]), int(held[-1]) + 1
        width = max(1, math.ceil((last - first) / bins))
        starts = np.arange(first, last, width)
        counts = np.add.reduceat(self._counts[:last], starts)
        edges = LOWEST_SECONDS * GROWTH ** np.append(starts, starts[-1] + width).astype(float)
        return edges.tolist(), counts.tolist()

    def _flush(self) -> None:
        if not self._waiting:
            return
        values = np.array(self._waiting)
        self._waiting.clear()
        self._sum += float(values.sum())
        self._smallest = min(self._smallest, float(values.min()))
        self._largest = max(self._largest, float(values.max()))
        logs = np.log(np.maximum(values, LOWEST_SECONDS) / LOWEST_SECONDS)
        places = np.minimum((logs / _LOG_GROWTH).astype(np.int64), _BINS - 1)
        self._counts += np.bincount(places, minlength=_BINS)

    def __getstate__(self) -> dict[str, Any]:
        self._flush()
        return {name: getattr(self, name) for name in self.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
