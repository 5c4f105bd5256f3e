"""The live figures: rates, percentiles and batch sizes, computed from the metrics themselves."""

from __future__ import annotations

import random
from bisect import bisect_left
from typing import Any

import pytest

from penstock.core.errors import ModelFailed, NotFound
from penstock.core.request import Request, Run
from penstock.observability.counters import SECONDS, Gauges, ModelMetrics
from penstock.observability.metrics import Metrics
from penstock.observability.page.figures import Figures, look, percentile, sizes


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda error: "INTERNAL")


@pytest.fixture
def counts(metrics: Metrics) -> ModelMetrics:
    return metrics.model("m", "1", lambda: Gauges(queue_rows=7, running_batches=2))


def answer(counts: ModelMetrics, seconds: float, requests: int, rpc: str = "Predict") -> None:
    made = [Request({}, [], 1, None, rpc, 0.0) for _ in range(requests)]
    counts.batch_done(made, Run(0.0, 0.0, seconds, requests, {}), seconds)


class Page:
    """The figures of a server, as they are seen at some times."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._figures = Figures()

    def at(self, seconds: float) -> dict[str, Any]:
        return self._figures.update(look(self._metrics.families(), seconds))


def test_what_has_grown_is_what_is_shown(metrics: Metrics, counts: ModelMetrics) -> None:
    answer(counts, 9.0, 50)  # before anybody watched
    page = Page(metrics)
    first = page.at(100.0)
    assert "rate" not in first
    assert "rate" not in first["models"][0]
    assert first["models"][0]["answered"] == 50
    answer(counts, 0.002, 8)
    answer(counts, 0.004, 2, "PredictStream")
    counts.failed("Predict", ModelFailed("no"), 10)
    metrics.failed("Predict", NotFound("no model"))
    shown = page.at(102.0)
    [model] = shown["models"]
    assert (model["name"], model["version"]) == ("m", "1")
    assert (model["rate"], model["errors"], model["rows"], model["batch"]) == (10.0, 5.0, 5.0, 5.0)
    assert (model["waiting"], model["running"]) == (7, 2)
    assert (shown["rate"], shown["errors"]) == (10.5, 5.5)  # and the request that reached no model
    assert model["sizes"] == [(2.0, 1.0), (8.0, 1.0)]
    low, _, high = model["latency"]
    assert 0.001 <= low <= 0.0025 <= high <= 0.005
    assert shown["latency"] == model["latency"]
    assert shown["memory"] > 0
    assert shown["cpu"] >= 0


def test_old_growth_is_forgotten(metrics: Metrics, counts: ModelMetrics) -> None:
    page = Page(metrics)
    for second in range(4):
        page.at(second)
    answer(counts, 0.001, 10)
    assert [page.at(second)["models"][0]["rate"] for second in range(4, 12)] == [
        2.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert page.at(12)["models"][0]["latency"] is None
    # Nobody watched for a while: the pause is not averaged over.
    answer(counts, 0.001, 10)
    assert "rate" not in page.at(60)


def test_a_model_that_came_anew_has_no_negative_rate(metrics: Metrics, counts: ModelMetrics) -> None:
    answer(counts, 0.001, 100)
    page = Page(metrics)
    page.at(0.0)
    metrics.forget("m", "1")
    answer(metrics.model("m", "1", Gauges), 0.001, 1)
    [model] = page.at(1.0)["models"]
    assert model["rate"] == 0.0
    assert model["latency"] is None


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_percentile_lies_in_the_bucket_of_the_true_one(share: float) -> None:
    random.seed(5)
    values = sorted(random.lognormvariate(-6, 1.5) for _ in range(997))
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in (*SECONDS, float("inf"))}
    true = values[max(round(share * len(values)) - 1, 0)]
    found = percentile(buckets, share)
    place = bisect_left(SECONDS, true)
    assert (SECONDS[place - 1] if place else 0.0) <= found <= SECONDS[place]


def test_what_is_above_all_bounds_is_the_largest_bound() -> None:
    assert percentile({1.0: 0.0, 10.0: 0.0, float("inf"): 4.0}, 0.5) == 10.0
    assert percentile({1.0: 4.0, 10.0: 4.0, float("inf"): 4.0}, 0.99) == pytest.approx(0.99)
    assert sizes({1.0: 3.0, 2.0: 3.0, float("inf"): 5.0}) == [(1.0, 3.0), (None, 2.0)]
