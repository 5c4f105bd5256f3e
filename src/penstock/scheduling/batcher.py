"""Runs one model's requests in batches.

    put ── queue ── run_once ── assemble ── backend ── split ── reply

`run_once` is called by whichever thread has the time (see `runners`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.backends.backend import Backend
from penstock.errors import QueueFull, RequestError
from penstock.messages import Flush, InferRequest, Observer, Run
from penstock.scheduling.batch import Packing, Rows
from penstock.scheduling.cost import RunCost
from penstock.scheduling.delivery import Delivery, expired, gone
from penstock.scheduling.execution import Execution
from penstock.scheduling.queue import Bounds, RequestQueue

MARGIN_SECONDS = 0.005
"""How long a runner thread may take to wake up beside a busy one: Python's switch interval."""

ENOUGH_ROWS = 32
"""With as many rows a run is not to wait for more to be read: those stay where they take the least room."""

LONGEST_RETRY_SECONDS = 60.0
"""However long the queue: by then things may have changed."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How a model's requests are batched.

    Attributes:
        batched: whether requests run together at all.
        max_rows: the most rows of a batch of several requests.
        max_delay_seconds: how long a request may be held back to fill a batch; 0 for never.
        queue_rows: the most rows that may wait.
        queue_bytes: the most bytes of messages that may wait.
        runs_in_parallel: how many runs of this model may go on at the same time.
    """

    batched: bool
    max_rows: int
    max_delay_seconds: float
    queue_rows: int
    queue_bytes: int
    runs_in_parallel: int


class DynamicBatcher:
    """The queue of one model and what empties it.

    Args:
        backend: runs the batches.
        policy: how they are made up.
        cost: how long they are expected to take.
        packing: puts them together; as rows, where not given.
    """

    def __init__(
        self, backend: Backend, policy: BatchPolicy, cost: RunCost, packing: Packing | None = None
    ) -> None:
        self.policy = policy
        self._cost = cost
        self._execution = Execution(backend, packing or Rows(policy.batched), cost)
        self._observer: Observer = _Nobody()
        self._queue = RequestQueue(Bounds(policy.queue_rows, policy.queue_bytes), cost)
        self._max_rows = policy.max_rows if policy.batched else 1
        self._enough = min(self._max_rows, ENOUGH_ROWS)
        self._lock = threading.Lock()
        self._running = 0

    def tell(self, observer: Observer) -> None:
        """From now on `observer` is told how requests end."""
        self._observer = observer

    @property
    def waiting_rows(self) -> int:
        """The rows in the queue."""
        return self._queue.rows

    @property
    def waiting_bytes(self) -> int:
        """The bytes of the messages in the queue."""
        return self._queue.bytes

    def backlog(self) -> tuple[int, int]:
        """The rows that wait and the bytes of their messages, those included that cannot be run yet."""
        return self._queue.rows, self._queue.bytes

    @property
    def running(self) -> int:
        """The batches being run."""
        return self._running

    def is_full(self) -> bool:
        """Whether a whole batch waits, or of large batches as much as makes one worth its while."""
        return self._queue.rows >= self._enough

    def put(self, request: InferRequest) -> None:
        """Lets a request into the queue.

        Raises:
            QueueFull: there is no room; says when there should be.
            DeadlineExpired: its deadline has passed already.
        """
        try:
            self._queue.put(request, request.arrived)
        except QueueFull as full:
            full.retry_after_seconds = self._seconds_to_empty()
            raise

    def cancel(self, request: InferRequest) -> None:
        """Drops a request whose caller has gone. One that is running already runs on, unanswered."""
        request.cancelled = True
        if self._queue.discard(request):
            self._fail([request], gone)

    def expire(self, now: float) -> None:
        """Answers the waiting requests whose deadline has passed."""
        if self._queue.rows:
            self._fail(self._queue.expire(now), expired)

    def expected_seconds(self) -> float:
        """How long the next batch is expected to take."""
        rows = self._queue.rows
        if rows > self._max_rows:
            rows = max(self._max_rows, self._queue.next_rows())  # a larger one runs alone
        return self._cost.expect(rows)

    def due(self, now: float) -> float:
        """When the next batch is to run: `now` or before if at once, infinity if nothing waits."""
        delay = self.policy.max_delay_seconds
        # A request is held back to fill a batch, but not so long that it misses its deadline.
        spare = 2 * self.expected_seconds() + MARGIN_SECONDS if delay else 0.0
        return self._queue.due(self._max_rows, delay, spare, now)

    def wants_another_runner(self) -> bool:
        """Whether more waits than the next batch takes, and may run beside it."""
        return self._queue.rows > self._max_rows and self._running + 1 < self.policy.runs_in_parallel

    def may_run(self) -> bool:
        """Whether one more run may begin beside those going on."""
        return self._running < self.policy.runs_in_parallel

    def run_once(self, later: dict[Flush, None] | None = None) -> bool:
        """Runs the next batch, if there is one and it may run.

        Args:
            later: where given, streams send nothing by themselves; see `Delivery`.

        Returns:
            Whether something was taken from the queue.
        """
        with self._lock:
            if self._running >= self.policy.runs_in_parallel:
                return False
            self._running += 1
        delivery = Delivery(self._observer, later)
        batch: list[InferRequest] = []
        late: list[InferRequest] = []
        try:
            batch, late = self._queue.take(self._max_rows, time.monotonic())
            for request in late:
                delivery.fail(request, expired(request))
            if late:
                delivery.flush()  # the run may take long
            if batch:
                self._execution.run(batch, delivery)
        finally:
            try:
                self._ended([*batch, *late] if late else batch)
            finally:
                with self._lock:
                    self._running -= 1
        delivery.close()
        return bool(batch or late)

    def fail_all(self, error: RequestError) -> None:
        """Ends every waiting request with `error`."""
        while True:
            batch, late = self._queue.take(self._max_rows, time.monotonic())
            if not batch and not late:
                return
            self._fail([*batch, *late], lambda _: error)

    def _fail(self, requests: Sequence[InferRequest], why: Callable[[InferRequest], RequestError]) -> None:
        delivery = Delivery(self._observer)
        for request in requests:
            delivery.fail(request, why(request))
        self._ended(requests)
        delivery.close()

    def _ended(self, requests: Sequence[InferRequest]) -> None:
        """These have been answered, or dropped, and left for good: a hook."""

    def _seconds_to_empty(self) -> float:
        """How long what waits is expected to take, within reason."""
        runs = math.ceil(self._queue.rows / self._max_rows)
        seconds = self._cost.expect(self._max_rows) * runs / self.policy.runs_in_parallel
        return min(seconds, LONGEST_RETRY_SECONDS)


class _Nobody:
    """The observer of a batcher that has none yet."""

    def batch_done(self, requests: Sequence[InferRequest], run: Run, answered: float) -> None: ...

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None: ...
