"""Counters of requests and batches, in plain Python numbers.

An `observe` of a metrics library costs one or two microseconds. Three of them for every request would cost
more than a small model. So a batch takes one lock, and `penstock.observability.metrics` turns the
numbers into metrics when they are scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import NamedTuple

from penstock.core.errors import (
    AnswerTooLarge,
    DeadlineExpired,
    Exhausted,
    MessageTooLarge,
    Overloaded,
    QueueFull,
    RequestCancelled,
    RequestError,
    StatesTooLarge,
    TooManySequences,
    Unavailable,
)
from penstock.core.request import EVENTS, CutReason, Request, Run

SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
"""The upper bounds of the buckets of times."""

ROWS = tuple(float(2**power) for power in range(11))
"""The upper bounds of the buckets of batch rows: 1 to 1024."""

BATCH_SIZES = 256
"""The most sizes of runs that are counted separately, since callers choose the rows of their requests."""
OTHER_SIZES = 0
"""The size under which runs of further sizes are counted."""

_NO_CUTS, _NO_EVENTS = dict.fromkeys(CutReason, 0), dict.fromkeys(EVENTS, 0)

_REASONS: Mapping[type[RequestError], str] = {
    QueueFull: "queue_full",
    Overloaded: "overloaded",
    TooManySequences: "too_many_sequences",
    MessageTooLarge: "message_too_large",
    AnswerTooLarge: "answer_too_large",
    StatesTooLarge: "exhausted",
    Exhausted: "exhausted",
}


class Buckets:
    """A histogram.

    Attributes:
        bounds: the upper bounds of the buckets, included; one more bucket is above the last.
        counts: how many values fell into each bucket.
        total: the sum of the values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Buckets:
        """A copy, which does not change any more."""
        other = Buckets(self.bounds)
        other.counts, other.total = self.counts.copy(), self.total
        return other


@dataclass(slots=True)
class BatchCounts:
    """What is counted of runs of one size. Times are in seconds.

    Attributes:
        runs: how many there were.
        input_seconds: putting the requests' inputs together.
        infer_seconds: the model's runs.
        output_seconds: splitting the outputs and starting to send them.
        requests: requests that were answered.
        request_input_seconds: the sum over these requests of the `input_seconds` of their runs.
        request_infer_seconds: the sum over these requests of the `infer_seconds` of their runs.
    """

    runs: int = 0
    input_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    requests: int = 0
    request_input_seconds: float = 0.0
    request_infer_seconds: float = 0.0


@dataclass(slots=True)
class ModelCounts:
    """All that is counted for one version of one model.

    Attributes:
        rows: rows run.
        queue: seconds from arrival to the start of the run, of each answered request.
        compute: seconds of each run.
        batch_rows: rows of each run.
        answered: seconds from arrival to the answer, by RPC, of each answered request.
        failed: requests by RPC and status code that ended with an error.
        rejected: requests rejected because of a limit, by its name.
        expired: requests whose deadline passed, or could not be met.
        cancelled: requests that their caller cancelled.
        failed_seconds: from arrival to the end, of all requests that ended with an error.
        batches: runs by their rows, for up to `BATCH_SIZES` different numbers of rows.
        last_run: when the last run ended, by `time.monotonic()`; 0.0 before the first.
        cut_reasons: runs by the reason why they had no more rows.
        events: events of the model itself, by name; see `penstock.core.request.EVENTS`.
        padding: if lengths are padded, the values along the padded axis that were sent ("real") and added
            ("padding"), over all rows run.
    """

    rows: int = 0
    queue: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    compute: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    batch_rows: Buckets = field(default_factory=lambda: Buckets(ROWS))
    answered: dict[str, Buckets] = field(default_factory=dict)
    failed: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    rejected: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    expired: int = 0
    cancelled: int = 0
    failed_seconds: float = 0.0
    batches: dict[int, BatchCounts] = field(default_factory=dict)
    last_run: float = 0.0
    cut_reasons: dict[CutReason, int] = field(default_factory=_NO_CUTS.copy)
    events: dict[str, int] = field(default_factory=_NO_EVENTS.copy)
    padding: dict[str, int] = field(default_factory=dict)

    def batches_of(self, rows: int) -> BatchCounts:
        """What is counted of runs of `rows` rows."""
        if rows not in self.batches and len(self.batches) >= BATCH_SIZES:
            rows = OTHER_SIZES
        return self.batches.setdefault(rows, BatchCounts())

    def copy(self) -> ModelCounts:
        """A copy, which does not change any more: every field that can change by itself is copied as well."""
        return replace(
            self,
            queue=self.queue.copy(),
            compute=self.compute.copy(),
            batch_rows=self.batch_rows.copy(),
            answered={rpc: buckets.copy() for rpc, buckets in self.answered.items()},
            failed=self.failed.copy(),
            rejected=self.rejected.copy(),
            batches={rows: replace(batches) for rows, batches in self.batches.items()},
            cut_reasons=self.cut_reasons.copy(),
            events=self.events.copy(),
            padding=self.padding.copy(),
        )

    def add_padding(self, real: int, padding: int) -> None:
        """Counts the values of one run that were sent and added."""
        self.padding["real"] = self.padding.get("real", 0) + real
        self.padding["padding"] = self.padding.get("padding", 0) + padding


class ModelMetrics:
    """Counts how the requests of one version of one model end: a `penstock.core.request.Observer`.

    May be called from any thread.

    Args:
        code_of: the name of the status code that an error is answered with.
    """

    def __init__(self, code_of: Callable[[RequestError], str]) -> None:
        self._code_of = code_of
        self._kinds: dict[type[RequestError], tuple[str, str | None]] = {}
        self._lock = Lock()
        self._counts = ModelCounts()

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        """Counts a batch that was run, and its answered requests; see `penstock.core.request.Observer`."""
        started, rows = run.started, run.rows
        compute = run.finished - started
        with self._lock:
            counts = self._counts
            counts.rows += rows
            # Written out, as in `_count_answers`: it is a large part of what a single request costs.
            buckets = counts.compute
            buckets.counts[bisect_left(SECONDS, compute)] += 1
            buckets.total += compute
            buckets = counts.batch_rows
            buckets.counts[bisect_left(ROWS, rows)] += 1
            buckets.total += rows
            counts.last_run = run.finished
            counts.cut_reasons[run.cut_reason] += 1
            if run.padding is not None:
                counts.add_padding(*run.padding)
            count = self._count_answers(requests, started, compute)
            sizes = counts.batches.get(rows) or counts.batches_of(rows)
            assembling, running = run.assembled - started, run.finished - run.assembled
            sizes.runs += 1
            sizes.input_seconds += assembling
            sizes.infer_seconds += running
            sizes.output_seconds += answered - run.finished
            sizes.requests += count
            sizes.request_input_seconds += assembling * count
            sizes.request_infer_seconds += running * count

    def _count_answers(self, requests: Sequence[Request], started: float, compute: float) -> int:
        """Counts the answered requests of a run, and returns how many there are."""
        # Local names, and no calls but bisect: this loop is the cost of every request.
        queue = self._counts.queue
        queue_counts, bounds, find, rpc, total = queue.counts, SECONDS, bisect_left, None, 0
        for request in requests:
            waited, count = started - request.arrived, request.count
            total += count
            queue_counts[find(bounds, waited)] += count
            queue.total += waited * count
            if request.rpc is not rpc:
                rpc = request.rpc
                answered = self._counts.answered.get(rpc) or self._answered(rpc)
                answered_counts = answered.counts
            waited += compute
            answered_counts[find(bounds, waited)] += count
            answered.total += waited * count
        return total

    def _answered(self, rpc: str) -> Buckets:
        found = self._counts.answered[rpc] = Buckets(SECONDS)
        return found

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """Counts requests that came by `rpc` and ended with `error`."""
        kind = type(error)
        code, reason = self._kinds.get(kind) or self._kind(error)
        with self._lock:
            counts = self._counts
            counts.failed_seconds += seconds * count
            counts.failed[rpc, code] += count
            if reason is not None:
                counts.rejected[reason] += count
            elif kind is DeadlineExpired:
                counts.expired += count
            elif kind is RequestCancelled:
                counts.cancelled += count
            elif isinstance(error, Unavailable) and error.shut_off:
                counts.rejected["breaker_open"] += count  # others are counted by their codes alone

    def _kind(self, error: RequestError) -> tuple[str, str | None]:
        """The code of errors of this class, and the limit that they stand for; None for no limit."""
        kind = type(error)
        return self._kinds.setdefault(kind, (self._code_of(error), _REASONS.get(kind)))

    def on_event(self, event: str, **facts: object) -> None:
        """Counts an event of the model itself."""
        with self._lock:
            self._counts.events[event] += 1

    def counts(self) -> ModelCounts:
        """A copy of what has been counted so far."""
        with self._lock:
            return self._counts.copy()


class SequenceCounts(NamedTuple):
    """The sequences of one version of one model.

    Attributes:
        live: those that have a state, or a step that is queued or running, now.
        expired: those whose state has expired.
        evicted: those that were ended to make room for another caller's.
    """

    live: int
    expired: int
    evicted: int = 0


class CostLine(NamedTuple):
    """The expected duration of runs, for one size of shapes.

    Attributes:
        base_seconds: the part of a run that does not depend on its rows.
        row_seconds: the part of each row.
        spread: how many times longer than expected one run in twenty takes.
    """

    base_seconds: float
    row_seconds: float
    spread: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """The current state of one version of one model.

    Attributes:
        queue_rows: the rows that wait.
        queue_bytes: the bytes that wait.
        running_batches: the batches being run.
        hung_runs: those of them that hang.
        breaker_open: in how many copies the circuit breaker is open.
        sequences: its sequences, if the server keeps their states.
        costs: the expected duration of its runs, by the most elements of a row; 0 for all.
    """

    queue_rows: int = 0
    queue_bytes: int = 0
    running_batches: int = 0
    hung_runs: int = 0
    breaker_open: int = 0
    sequences: SequenceCounts | None = None
    costs: Mapping[int, CostLine] = field(default_factory=dict)

    @classmethod
    def together(cls, copies: Sequence[Gauges]) -> Gauges:
        """The gauges of several copies: their sums, and the costs of the newest."""
        sequences = [each.sequences for each in copies if each.sequences is not None]
        return cls(
            sum(each.queue_rows for each in copies),
            sum(each.queue_bytes for each in copies),
            sum(each.running_batches for each in copies),
            sum(each.hung_runs for each in copies),
            sum(each.breaker_open for each in copies),
            SequenceCounts(*map(sum, zip(*sequences, strict=True))) if sequences else None,
            copies[-1].costs,
        )


@dataclass(slots=True)
class StreamCounts:
    """What is counted of streams.

    Attributes:
        open: streams that are open now.
        messages_received: messages that were received.
        messages_sent: messages that were sent.
        requests: requests in the messages that were received.
        results: results in the messages that were sent.
    """

    open: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    requests: int = 0
    results: int = 0
