"""Computes the results from the tally: the data for tables, pictures and JSON.

The names of the fields are those of the JSON that `penstock bench --json` prints; docs/bench.md explains
them. Times are in seconds. A value that does not apply or is not known is None.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from penstock_bench.fleet import Measured
from penstock_bench.histogram import Histogram
from penstock_bench.numerals import duration
from penstock_bench.servers import Statistics
from penstock_bench.tally import Tally, Usage

SCHEMA = 1
HISTOGRAM_BINS = 40

BUSY = 0.9
"""Above this share of busy time, the event loop could not have sent much more."""

LEAST_SECONDS = 0.25
"""The shortest time in seconds in which the busy share of a process is meaningful."""

LATE_SECONDS = 0.001
LATE_SHARE = 0.1
"""Send times are late if the 99th percentile is later than both: this, and this share of the latencies'."""

UNSENT_SHARE = 0.001
"""Tolerance in seconds for requests at the very end of the measured time."""

KEPT_UP_SHARE = 0.98
"""A server that answers less than this share of an open loop's rate does not keep up with it."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution of times."""

    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class ServerSide:
    """The server's timings: from every answer with `penstock.v1`, otherwise from its statistics."""

    queue_mean_seconds: float
    queue_p99_seconds: float | None
    compute_mean_seconds: float
    compute_p99_seconds: float | None
    average_batch_rows: float


@dataclass(frozen=True, slots=True)
class Generator:
    """The resources used by the load tool, and whether they were the limit."""

    cpu_seconds: float
    cpu_seconds_per_request: float | None
    busiest_loop_share: float
    send_lag: Quantiles | None
    limited: bool
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of load."""

    concurrency: int | None
    rate: float | None
    arrivals: str | None
    seconds: float
    requests: int
    answered: int
    failed: int
    unfinished: int
    unsent: int
    errors: dict[str, int]
    error_examples: dict[str, str]
    requests_per_second: float
    rows_per_second: float
    latency: Quantiles | None
    histogram_edges_seconds: list[float]
    histogram_counts: list[int]
    server: ServerSide | None
    generator: Generator
    interrupted: bool

    def as_json(self) -> dict[str, Any]:
        """The level as JSON has it."""
        return asdict(self)


def level(measured: Measured, statistics: Statistics | None = None) -> Level:
    """The figures of one level.

    Args:
        measured: the counts.
        statistics: the server's statistics for the same time, if its answers have no timing.
    """
    load, tally = measured.load, measured.tally
    edges, counts = tally.latency.coarse(HISTOGRAM_BINS)
    return Level(
        concurrency=load.concurrency or None,
        rate=load.rate or None,
        arrivals=load.arrivals if load.rate else None,
        seconds=tally.window_seconds,
        requests=tally.requests,
        answered=tally.ok,
        failed=tally.failed.total(),
        unfinished=tally.unfinished,
        unsent=tally.unsent,
        errors=dict(tally.failed.most_common()),
        error_examples=tally.examples,
        requests_per_second=_per(tally.answered_in_window, tally.window_seconds),
        rows_per_second=_per(tally.rows_in_window, tally.window_seconds),
        latency=quantiles(tally.latency),
        histogram_edges_seconds=edges,
        histogram_counts=counts,
        server=_server(tally, statistics),
        generator=_generator(measured),
        interrupted=measured.interrupted,
    )


def quantiles(histogram: Histogram) -> Quantiles | None:
    """The summary of a distribution; None if nothing was counted."""
    if not len(histogram):
        return None
    at = histogram.quantile
    return Quantiles(histogram.mean, histogram.min, at(0.5), at(0.9), at(0.99), at(0.999), histogram.max)


def _server(tally: Tally, statistics: Statistics | None) -> ServerSide | None:
    if tally.batches:
        return ServerSide(
            tally.queue.mean,
            tally.queue.quantile(0.99),
            tally.compute.mean,
            tally.compute.quantile(0.99),
            tally.rows / tally.batches,
        )
    if statistics is None or not statistics.requests:
        return None
    return ServerSide(
        statistics.queue_seconds / statistics.requests,
        None,
        statistics.compute_seconds / statistics.requests,
        None,
        _per(statistics.inferences, statistics.executions),
    )


def _generator(measured: Measured) -> Generator:
    tally = measured.tally
    cpu = math.fsum(usage.cpu for usage in measured.usages)
    limits = [*_busy(measured.usages), *_late(measured)]
    return Generator(
        cpu_seconds=cpu,
        cpu_seconds_per_request=cpu / tally.answered_in_window if tally.answered_in_window else None,
        busiest_loop_share=max((usage.busy for usage in measured.usages), default=0.0),
        send_lag=quantiles(tally.send_lag),
        limited=bool(limits),
        notes=[*limits, *_behind(measured)],
    )


def _busy(usages: list[Usage]) -> list[str]:
    busiest = max((usage.busy for usage in usages if usage.wall >= LEAST_SECONDS), default=0.0)
    if busiest < BUSY:
        return []
    return [
        f"a load process was busy for {min(busiest, 1):.0%} of the time: the figures show the load tool's "
        "limit, not the server's; use more --processes, on cores that the server does not need"
    ]


def _late(measured: Measured) -> list[str]:
    lag, latency = quantiles(measured.tally.send_lag), quantiles(measured.tally.latency)
    if lag is None or latency is None or measured.tally.crowded:
        return []
    if measured.tally.unsent > UNSENT_SHARE * measured.tally.requests:
        return [
            f"{measured.tally.unsent:,} requests could not be sent in time: the load tool's limit, not the "
            "server's; use more --processes or a lower --rate"
        ]
    if lag.p99 < LATE_SECONDS or lag.p99 < LATE_SHARE * latency.p99:
        return []
    return [
        f"requests were sent late, by {duration(lag.p99)} at the 99th percentile, which the latencies "
        "include: the load tool's limit, not the server's; use more --processes or a lower --rate"
    ]


def _behind(measured: Measured) -> list[str]:
    """Notes on what the server could not do in an open loop."""
    load, tally = measured.load, measured.tally
    notes = []
    answered = _per(tally.answered_in_window, tally.window_seconds)
    due, slack = load.rate * tally.window_seconds, 0.0
    if load.arrivals == "poisson":  # the number that are due is random, and so is that in flight at the end
        due = tally.requests + tally.unsent
        slack = 1 + 3 * math.sqrt(tally.latency.total / tally.window_seconds) if tally.window_seconds else 0.0
    behind = tally.answered_in_window < KEPT_UP_SHARE * due - slack
    if load.duration is not None and behind and not measured.interrupted:
        asked = _per(due, tally.window_seconds)
        notes.append(f"{answered:,.0f} of {asked:,.0f} requests a second were answered")
    if tally.crowded:
        notes.append(
            f"sending had to wait, since {load.max_in_flight:,} requests were unanswered (--max-in-flight); "
            f"{tally.unsent:,} were not sent at all"
        )
    return notes


def _per(count: float, of: float) -> float:
    return count / of if of else 0.0
