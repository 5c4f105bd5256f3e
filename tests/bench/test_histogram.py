"""Distributions of times: as numpy finds them, in constant memory."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest

from penstock_bench.histogram import HIGHEST_SECONDS, LOWEST_SECONDS, Histogram


def of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.fixture
def times() -> list[float]:
    return np.random.default_rng(0).lognormal(-6, 1.5, 20_000).tolist()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_quantiles_are_those_of_the_values(times: list[float], share: float) -> None:
    expected = np.quantile(times, share, method="inverted_cdf")
    assert of(times).quantile(share) == pytest.approx(expected, rel=0.002)


def test_count_sum_and_extremes_are_exact(times: list[float]) -> None:
    histogram = of(times)
    assert (len(histogram), histogram.min, histogram.max) == (len(times), min(times), max(times))
    assert histogram.total == pytest.approx(math.fsum(times), rel=1e-12)
    assert histogram.mean == pytest.approx(np.mean(times), rel=1e-12)


def test_merged_is_as_counted_together(times: list[float]) -> None:
    merged = of(times[:7000])
    merged.merge(pickle.loads(pickle.dumps(of(times[7000:]))))
    together = of(times)
    assert [merged.quantile(q) for q in (0.1, 0.5, 0.999)] == [
        together.quantile(q) for q in (0.1, 0.5, 0.999)
    ]
    assert (len(merged), merged.max) == (len(together), together.max)


def test_nothing_has_no_figures() -> None:
    empty = Histogram()
    assert len(empty) == 0
    assert all(math.isnan(value) for value in (empty.mean, empty.min, empty.max, empty.quantile(0.5)))
    assert empty.coarse(10) == ([], [])


def test_times_out_of_range_are_counted() -> None:
    histogram = of([0.0, LOWEST_SECONDS / 10, HIGHEST_SECONDS * 10])
    assert len(histogram) == 3
    assert histogram.quantile(1) == pytest.approx(HIGHEST_SECONDS, rel=0.01)
    assert histogram.max == HIGHEST_SECONDS * 10


@pytest.mark.parametrize("bins", [1, 7, 40])
def test_few_bins_hold_all(times: list[float], bins: int) -> None:
    edges, counts = of(times).coarse(bins)
    assert len(edges) == len(counts) + 1 <= bins + 1
    assert sum(counts) == len(times)
    assert edges[0] <= min(times) * 1.003
    assert edges[-1] >= max(times)
    assert counts[0] == pytest.approx(sum(edges[0] <= each < edges[1] for each in times), abs=1)
    ratios = [after / before for before, after in pairwise(edges)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


def test_memory_does_not_grow(times: list[float]) -> None:
    few, many = of(times[:100]), of(times)
    assert len(pickle.dumps(many)) == pytest.approx(len(pickle.dumps(few)), rel=0.01)
