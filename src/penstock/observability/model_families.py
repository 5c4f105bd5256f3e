"""The metrics of models: turns counters into metric families of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from penstock.observability.counters import Buckets, Gauges, ModelCounts

_MODEL = ("model", "version")
_RPC = (*_MODEL, "rpc")
_Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One version of one model at the time of a scrape.

    Attributes:
        labels: its name and version.
        counts: what has been counted.
        info: the labels of `penstock_model_info`.
        gauges: its current state.
    """

    labels: tuple[str, str]
    counts: ModelCounts
    info: dict[str, str]
    gauges: Gauges


def model_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """The metrics that only served models have."""
    info = InfoMetricFamily("penstock_model", "The versions that are loaded.", labels=_MODEL)
    for model in models:
        info.add_metric(model.labels, model.info)
    yield info
    yield from _gauge_families(models)
    yield from _batch_families(models)
    yield from _time_families(models)
    yield from _event_families(models)
    yield from _sequence_families(models)
    yield from _cost_families(models)


def _gauge_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    for name, text in (
        ("queue_rows", "Rows that wait."),
        ("queue_bytes", "Bytes that wait."),
        ("running_batches", "Batches being run."),
        ("hung_runs", "Runs that hang."),
        ("breaker_open", "Whether the circuit breaker rejects requests."),
    ):
        yield _gauge(name, text, [(each.labels, getattr(each.gauges, name)) for each in models])


def _batch_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    yield _counter("rows", "Rows run.", _MODEL, [(each.labels, each.counts.rows) for each in models])
    yield _counter(
        "batches", "Batches run.", _MODEL, [(each.labels, sum(each.counts.compute.counts)) for each in models]
    )
    yield _counter(
        "batches_closed",
        "Batches run, by cut reason.",
        (*_MODEL, "reason"),
        [
            ((*m.labels, reason.value), number)
            for m in models
            for reason, number in m.counts.cut_reasons.items()
        ],
    )
    yield _histogram(
        "batch_rows", "Rows of batches.", _MODEL, [(m.labels, m.counts.batch_rows) for m in models]
    )
    yield _counter(
        "padding_elements",
        "Values along the axis that is padded, over all rows run: received and added values.",
        (*_MODEL, "kind"),
        [((*m.labels, kind), number) for m in models for kind, number in m.counts.padding.items()],
    )


def _time_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    yield _histogram(
        "queue_seconds",
        "From arrival to the start of the model's run, of answered requests.",
        _MODEL,
        [(each.labels, each.counts.queue) for each in models],
    )
    yield _histogram(
        "compute_seconds",
        "The model's run, of batches.",
        _MODEL,
        [(m.labels, m.counts.compute) for m in models],
    )
    yield _histogram(
        "request_seconds",
        "From arrival to the answer, of answered requests.",
        _RPC,
        [((*m.labels, rpc), times) for m in models for rpc, times in m.counts.answered.items()],
    )


def _event_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """Events of the models themselves, such as hanging runs."""
    yield _counter(
        "batch_mismatch",
        "Batches in which requests affected each other; the model's requests run alone since.",
        _MODEL,
        [(each.labels, each.counts.events["mismatch"]) for each in models],
    )
    yield _counter(
        "model_events",
        "Events of the models themselves.",
        (*_MODEL, "event"),
        [((*m.labels, event), number) for m in models for event, number in m.counts.events.items()],
    )


def _sequence_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """The metrics that only models with a state have."""
    sequences = [(each.labels, each.gauges.sequences) for each in models if each.gauges.sequences is not None]
    yield _gauge(
        "sequences", "Sequences that have a state.", [(labels, each.live) for labels, each in sequences]
    )
    yield _counter(
        "sequences_expired",
        "Sequences whose state expired.",
        _MODEL,
        [(labels, each.expired) for labels, each in sequences],
    )
    yield _counter(
        "sequences_evicted",
        "Sequences that were ended to make room for those of another caller.",
        _MODEL,
        [(labels, each.evicted) for labels, each in sequences],
    )


def _cost_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """The expected duration of runs: a base and an amount per row, by the elements of a row."""
    lines = [
        ((*model.labels, str(size)), line) for model in models for size, line in model.gauges.costs.items()
    ]
    names = (*_MODEL, "elements")
    for name, text in (
        ("base_seconds", "Expected cost of a run without its rows."),
        ("row_seconds", "Expected cost of each further row."),
        ("spread", "How many times longer than expected one run in twenty takes."),
    ):
        yield _gauge(f"run_{name}", text, [(labels, getattr(line, name)) for labels, line in lines], names)


def outcome_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """How requests ended, those that reached no model included."""
    ends = [
        ((*model.labels, rpc, "OK"), sum(times.counts))
        for model in models
        for rpc, times in model.counts.answered.items()
    ]
    ends += [((*m.labels, *rpc_code), number) for m in models for rpc_code, number in m.counts.failed.items()]
    yield _counter("requests", "Requests that have ended, by status code.", (*_RPC, "code"), ends)
    yield _counter(
        "rejected",
        "Requests rejected because of a limit.",
        (*_MODEL, "reason"),
        [((*m.labels, reason), number) for m in models for reason, number in m.counts.rejected.items()],
    )
    expired = [(each.labels, each.counts.expired) for each in models]
    yield _counter("expired", "Requests whose deadline passed, or could not be met.", _MODEL, expired)
    cancelled = [(each.labels, each.counts.cancelled) for each in models]
    yield _counter("cancelled", "Requests that their caller cancelled.", _MODEL, cancelled)


def _gauge(name: str, text: str, samples: Sequence[tuple[_Labels, float]], names: _Labels = _MODEL) -> Metric:
    family = GaugeMetricFamily(f"penstock_{name}", text, labels=names)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _counter(name: str, text: str, names: _Labels, samples: Sequence[tuple[_Labels, float]]) -> Metric:
    family = CounterMetricFamily(f"penstock_{name}", text, labels=names)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, text: str, names: _Labels, samples: Sequence[tuple[_Labels, Buckets]]) -> Metric:
    family = HistogramMetricFamily(f"penstock_{name}", text, labels=names)
    for labels, buckets in samples:
        edges = [*map(floatToGoString, buckets.bounds), "+Inf"]
        cumulative = accumulate(buckets.counts)
        family.add_metric(labels, list(zip(edges, cumulative, strict=True)), buckets.total)
    return family
