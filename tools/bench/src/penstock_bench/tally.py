"""The tally: counts and times of one level of load in one process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock_bench.histogram import Histogram


class Outcome(NamedTuple):
    """The outcome of one request.

    Attributes:
        code: the name of the gRPC status; "" for an answer.
        detail: the text of the error.
        queue_seconds: the time in the server's queue, from the server; -1 if it is not reported.
        compute_seconds: the run time of the batch, from the server.
        batch_rows: the rows of that batch; 0 if they are not reported.
    """

    code: str = ""
    detail: str = ""
    queue_seconds: float = -1.0
    compute_seconds: float = -1.0
    batch_rows: int = 0


@dataclass(slots=True)
class Usage:
    """The resources that a process has used.

    Attributes:
        wall: seconds of a monotonic clock.
        cpu: CPU seconds of all its threads.
        loop_cpu: CPU seconds of the thread that runs the event loop.
        loop_waiting: seconds in which that thread was ready but had no core; 0 if unknown.
    """

    wall: float = 0.0
    cpu: float = 0.0
    loop_cpu: float = 0.0
    loop_waiting: float = 0.0

    def since(self, start: Usage) -> Usage:
        """The resources used since `start`."""
        return Usage(
            self.wall - start.wall,
            self.cpu - start.cpu,
            self.loop_cpu - start.loop_cpu,
            self.loop_waiting - start.loop_waiting,
        )

    @property
    def busy(self) -> float:
        """The share of the time in which the event loop ran or was ready to run; 1 means never idle."""
        return (self.loop_cpu + self.loop_waiting) / self.wall if self.wall > 0 else 0.0


@dataclass(slots=True)
class Tally:
    """The counts and times of the requests whose intended send time is in the measured time.

    Attributes:
        ok: requests that were answered.
        failed: requests that ended with an error, by the name of the status.
        examples: the text of the first error of every status.
        unfinished: requests without an outcome when the run was interrupted.
        unsent: open loop: requests that were due in the measured time but could not be sent in it.
        rows: the rows of the answered requests.
        batches: the number of runs at the server: a row in a batch of four counts as a quarter of a run.
        answered_in_window: answers within the measured time, also to requests sent before it.
        rows_in_window: the rows of these.
        window_seconds: the length of the measured time.
        latency: from the intended send time to the answer, of answered requests.
        send_lag: from the intended to the real send time.
        queue: times in the queue, from the server.
        compute: run times, from the server.
        usage: the resources that the process used in the measured time.
        crowded: whether sending ever paused because too many requests were unanswered.
    """

    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unfinished: int = 0
    unsent: int = 0
    rows: int = 0
    batches: float = 0.0
    answered_in_window: int = 0
    rows_in_window: int = 0
    window_seconds: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    send_lag: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    usage: Usage = field(default_factory=Usage)
    crowded: bool = False

    @property
    def requests(self) -> int:
        """All measured requests."""
        return self.ok + self.failed.total() + self.unfinished

    def answered(self, seconds: float, rows: int, outcome: Outcome) -> None:
        """Counts an answer.

        Args:
            seconds: its latency.
            rows: the rows of its request.
            outcome: the outcome.
        """
        self.ok += 1
        self.rows += rows
        self.latency.add(seconds)
        if outcome.batch_rows:
            self.batches += rows / max(outcome.batch_rows, rows)
            self.queue.add(outcome.queue_seconds)
            self.compute.add(outcome.compute_seconds)

    def missed(self, code: str, detail: str, count: int = 1) -> None:
        """Counts requests that ended with an error."""
        self.failed[code] += count
        self.examples.setdefault(code, detail)

    def merge(self, other: Tally) -> None:
        """Adds the tally of another process for the same time; `usage` is not changed."""
        for name in ("ok", "unfinished", "unsent", "rows", "batches", "answered_in_window", "rows_in_window"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed.update(other.failed)
        self.examples = {**other.examples, **self.examples}
        self.window_seconds = max(self.window_seconds, other.window_seconds)
        for name in ("latency", "send_lag", "queue", "compute"):
            getattr(self, name).merge(getattr(other, name))
        self.crowded = self.crowded or other.crowded
