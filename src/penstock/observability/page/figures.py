"""The live figures of the page: what the metrics have grown by over the last seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from penstock.observability.families import Family

WINDOW_SECONDS = 5.0
"""The time over which rates, percentiles and batch sizes are taken."""
PERCENTILES = (0.5, 0.9, 0.99)
DIGITS = 4

Key: TypeAlias = tuple[str, str]
"""The name and the version of a model; both "" for requests that reached no model."""
Buckets: TypeAlias = Mapping[float, float]
"""How many values were at most as large as each bound."""

GAUGES = {
    "penstock_queue_rows": "waiting",
    "penstock_running_batches": "running",
    "penstock_hung_runs": "hung",
    "penstock_breaker_open": "breaker",
    "penstock_sequences": "sequences",
}
"""The gauges of models that are shown, and their names on the page."""
SERVER = {
    "penstock_calls_in_flight": "calls",
    "penstock_streams_open": "streams",
    "penstock_processes": "processes",
    "penstock_process_restarts_total": "restarts",
    "penstock_log_dropped_total": "log_dropped",
    "process_resident_memory_bytes": "memory",
}
CPU, STARTED = "process_cpu_seconds_total", "process_start_time_seconds"


@dataclass(slots=True)
class Totals:
    """What one model has counted.

    Attributes:
        answered: requests that were answered.
        failed: requests that ended with an error.
        rows: rows run.
        seconds: the time from arrival to the answer of all answered requests.
        batches: the rows of batches.
        gauges: the current values, by their names on the page.
    """

    answered: float = 0.0
    failed: float = 0.0
    rows: float = 0.0
    seconds: dict[float, float] = field(default_factory=dict)
    batches: dict[float, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Look:
    """The metrics at one moment.

    Attributes:
        at: when, by any clock in seconds.
        models: what each model has counted.
        server: the current values of the server itself, by their names on the page.
        cpu: the CPU time that it has taken, in seconds.
    """

    at: float
    models: dict[Key, Totals] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0


def look(families: Iterable[Family], at: float) -> Look:
    """Reads what the page shows from the metrics.

    Args:
        families: all metrics.
        at: the time.
    """
    found = Look(at)
    for family in families:
        for name, labels, value in family.samples:
            if name in SERVER:
                found.server[SERVER[name]] = found.server.get(SERVER[name], 0.0) + value
            elif name == CPU:
                found.cpu += value
            elif name == STARTED:  # of several processes, the one that has served for longest
                found.server["started"] = min(found.server.get("started", math.inf), value)
            elif name.startswith("penstock_"):
                _count(found, name, dict(labels), value)
    return found


def _count(found: Look, name: str, labels: Mapping[str, str], value: float) -> None:
    """Adds one sample of a model's metrics."""
    if "model" not in labels:
        return
    totals = found.models.setdefault((labels["model"], labels["version"]), Totals())
    if name in GAUGES:
        totals.gauges[GAUGES[name]] = value
    elif name == "penstock_requests_total":
        if labels["code"] == "OK":
            totals.answered += value
        else:
            totals.failed += value
    elif name == "penstock_rows_total":
        totals.rows += value
    elif name in ("penstock_request_seconds_bucket", "penstock_batch_rows_bucket"):
        buckets = totals.batches if name == "penstock_batch_rows_bucket" else totals.seconds
        bound = float(labels["le"].replace("+Inf", "inf"))
        buckets[bound] = buckets.get(bound, 0.0) + value


class Figures:
    """Compares looks at the metrics with earlier ones."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()

    def update(self, new: Look) -> dict[str, Any]:
        """Takes the newest look.

        Returns:
            The figures as JSON has them: those of the server, and `models` with those of each. What is
            counted over time is left out after a first look.
        """
        looks = self._looks
        while looks and not 0 < new.at - looks[0].at <= WINDOW_SECONDS * 1.5:
            looks.popleft()
        while len(looks) > 1 and new.at - looks[1].at >= WINDOW_SECONDS:
            looks.popleft()
        before = looks[0] if looks else None
        looks.append(new)
        models = [
            {"name": name, "version": version, **_model(totals, before, (name, version), new.at)}
            for (name, version), totals in sorted(new.models.items())
            if name
        ]
        figures: dict[str, Any] = {**new.server, **_whole(new, before), "models": models}
        if before is not None:
            figures["cpu"] = _short(max(new.cpu - before.cpu, 0.0) / (new.at - before.at))
        return figures


def _whole(new: Look, before: Look | None) -> dict[str, Any]:
    """All models together, and the requests that reached none."""
    if before is None:
        return {}
    known = [(totals, before.models.get(key, Totals())) for key, totals in new.models.items()]
    seconds = new.at - before.at
    grown: dict[float, float] = {}
    for now, then in known:
        for bound, count in _growth(now.seconds, then.seconds).items():
            grown[bound] = grown.get(bound, 0.0) + count
    answered = sum(max(now.answered - then.answered, 0.0) for now, then in known)
    failed = sum(max(now.failed - then.failed, 0.0) for now, then in known)
    return {
        "rate": _short((answered + failed) / seconds),
        "errors": _short(failed / seconds),
        "latency": _percentiles(grown),
    }


def _model(now: Totals, before: Look | None, key: Key, at: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        **now.gauges,
        "answered": now.answered,
        "failed": now.failed,
        "sizes_all": sizes(now.batches),
    }
    if before is None:
        return figures
    then, seconds = before.models.get(key, Totals()), at - before.at
    batches, rows = _growth(now.batches, then.batches), max(now.rows - then.rows, 0.0)
    failed, answered = max(now.failed - then.failed, 0.0), max(now.answered - then.answered, 0.0)
    runs = batches.get(math.inf, 0.0)
    return {
        **figures,
        "rate": _short((answered + failed) / seconds),
        "errors": _short(failed / seconds),
        "rows": _short(rows / seconds),
        "latency": _percentiles(_growth(now.seconds, then.seconds)),
        "batch": _short(rows / runs) if runs else None,
        "sizes": sizes(batches),
    }


def _growth(now: Buckets, then: Buckets) -> dict[float, float]:
    """By how much the buckets have grown; not less than nothing, where a counter began anew."""
    return {bound: max(count - then.get(bound, 0.0), 0.0) for bound, count in now.items()}


def _percentiles(buckets: Buckets) -> list[float] | None:
    """The percentiles in seconds; None if there is no value."""
    if not buckets.get(math.inf):
        return None
    return [_short(percentile(buckets, share)) for share in PERCENTILES]


def percentile(buckets: Buckets, share: float) -> float:
    """The value that this share of all values does not exceed, estimated within its bucket.

    Args:
        buckets: with at least one value.
        share: from 0 to 1.

    Returns:
        The estimate; the largest bound for what lies above it.
    """
    wanted, below, lower = buckets[math.inf] * share, 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count >= wanted and count > below:
            if math.isinf(bound):
                break
            return lower + (bound - lower) * (wanted - below) / (count - below)
        below = count
        lower = bound if math.isfinite(bound) else lower
    return lower


def sizes(buckets: Buckets) -> list[Sequence[float | None]]:
    """The batches of each size: the largest number of rows, None for those above all, and how many."""
    found: list[Sequence[float | None]] = []
    below = 0.0
    for bound in sorted(buckets):
        if buckets[bound] > below:
            found.append((bound if math.isfinite(bound) else None, buckets[bound] - below))
        below = max(below, buckets[bound])
    return found


def _short(value: float) -> float:
    """A number of few digits."""
    return float(f"{value:.{DIGITS}g}")
