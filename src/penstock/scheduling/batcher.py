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
from penstock.errors import DeadlineExpired, Overloaded, QueueFull, RequestError
from penstock.messages import Closed, Flush, InferRequest, Observer, Run
from penstock.scheduling.batch import Packing, Rows
from penstock.scheduling.bounds import Bounds, Total
from penstock.scheduling.cost import QUICK_SECONDS, RunCost, RunCosts
from penstock.scheduling.delivery import Delivery, expired, gone
from penstock.scheduling.execution import Execution, Isolation
from penstock.scheduling.forecast import Arrivals, Runs
from penstock.scheduling.queue import RequestQueue
from penstock.scheduling.taken import Taken

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
        weight: its share of the runner threads beside other models.
        cores: how many cores a run works on.
    """

    batched: bool
    max_rows: int
    max_delay_seconds: float
    queue_rows: int
    queue_bytes: int
    runs_in_parallel: int
    weight: float = 1.0
    cores: int = 1


class DynamicBatcher:
    """The queue of one model and what empties it.

    Args:
        backend: runs the batches.
        policy: how they are made up.
        cost: how long a run is expected to take, as was measured.
        packing: puts them together; as rows, where not given.
        total: what waits before all models, which is bounded as well.
        isolation: when the model is shut off, and its runs are said to hang; never, where not given.

    Attributes:
        policy: as given.
        costs: how long runs are expected to take, as they have taken since.
        breaker: shuts the model off.
        runs: those that are going on.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        backend: Backend,
        policy: BatchPolicy,
        cost: RunCost,
        packing: Packing | None = None,
        total: Total | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self.policy = policy
        self.costs = RunCosts(cost)
        self._execution = Execution(backend, packing or Rows(policy.batched), isolation)
        self.breaker, self.runs = self._execution.breaker, self._execution.running
        self._observer: Observer = _Nobody()
        self._queue = RequestQueue(Bounds(policy.queue_rows, policy.queue_bytes), self.costs, total)
        self._max_rows = policy.max_rows if policy.batched else 1
        self._enough = min(self._max_rows, ENOUGH_ROWS)
        self._lock = threading.Lock()
        self._running = 0
        self._runs = Runs(policy.runs_in_parallel)
        self._arrivals = Arrivals() if policy.max_delay_seconds else None
        self._draining = self._held_back = False

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

    def is_busy(self) -> bool:
        """Whether anything waits or is being run."""
        with self._lock:  # a run that ends lets others into the queue first, and then is no run any more
            return self._running > 0 or self.backlog()[0] > 0

    def is_full(self) -> bool:
        """Whether a whole batch waits, or of large batches as much as makes one worth its while."""
        return self._queue.rows >= self._enough

    def put(self, request: InferRequest) -> None:
        """Lets a request into the queue.

        Raises:
            QueueFull: there is no room; says when there should be.
            Overloaded: so much is ahead of it that its answer would come too late; says when it would not.
            DeadlineExpired: its deadline has passed already, or will have before a run that goes on ends.
            Unavailable: the model is shut off; says for how long.
        """
        now = request.arrived
        busy = self._running or self._queue.rows
        if busy and now < request.deadline < math.inf and request.deadline < now + self._surely_within():
            self._check_in_time(request, now)
        if self.breaker.is_open and request.deadline > now:  # what is refused anyhow is no probe
            self.breaker.admit(now)
        try:
            self._queue.put(request, now)
        except QueueFull as full:
            full.retry_after_seconds = self._seconds_to_empty()
            if not self._make_room(request, full):
                raise
        if self._arrivals is not None:
            self._arrivals.note(request.rows, now)

    def cancel(self, request: InferRequest) -> None:
        """Drops a request whose caller has gone. One that is running already is not answered."""
        request.cancelled = True
        if self._queue.discard(request):
            self._fail([request], gone)

    def expire(self, now: float) -> None:
        """Answers the waiting requests whose deadline has passed, and looks after the runs going on."""
        self._execution.watch(now, self._observer)
        if self._queue.rows:
            self._fail(self._queue.expire(now), expired)

    def drain(self) -> None:
        """From now on nothing is held back: nothing more will come."""
        self._draining = True

    def expected_seconds(self) -> float:
        """How long the next batch is expected to take."""
        if self.costs.is_single and (waiting := self._queue.rows) <= self._max_rows:
            return self.costs.first.expect(waiting)
        rows, cost = self._queue.next_batch(self._max_rows)
        return cost.expect(rows)

    def due(self, now: float) -> float:
        """When the next batch is to run: `now` or before if at once, infinity if nothing waits.

        It is held back to be filled only where, by how requests have been coming, it will be.
        """
        rows = self._queue.rows
        if not rows:
            return math.inf
        most = min(self._max_rows, self.policy.queue_rows)
        if self._arrivals is None or self._draining or rows >= most:
            return now
        latest = self._queue.oldest() + self.policy.max_delay_seconds
        missing = most - rows
        if self._arrivals.until(missing) > latest:
            return now
        self._held_back = True
        # Not so long that anybody misses his deadline, nor more than twice as long as it should take.
        spare = 2 * self.expected_seconds() + MARGIN_SECONDS
        return min(latest, self._queue.earliest_deadline() - spare, self._arrivals.until(2 * missing))

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
        left: list[InferRequest] = []
        try:
            taken = self._queue.take(self._max_rows, time.monotonic())
            left = [*taken.batch, *taken.late] if taken.late else taken.batch
            for request in taken.late:
                delivery.fail(request, expired(request))
            if taken.late:
                delivery.flush()  # the run may take long
            if taken.batch:
                self._run(taken, delivery)
        finally:
            try:
                self._ended(left, delivery.unanswered)
            finally:
                with self._lock:
                    self._running -= 1
        delivery.close()
        return bool(left)

    def fail_all(self, error: RequestError) -> None:
        """Ends every waiting request with `error`."""
        while True:
            taken = self._queue.take(self._max_rows, time.monotonic())
            if not taken.batch and not taken.late:
                return
            self._fail([*taken.batch, *taken.late], lambda _: error)

    def _run(self, taken: Taken, delivery: Delivery) -> None:
        """Runs a batch; where that takes long, whoever comes meanwhile is to know until when."""
        cost, closed = taken.cost, self._why_closed(taken)
        seconds = cost.expect(taken.rows)
        if seconds < QUICK_SECONDS:
            self._execution.run(taken.batch, cost, delivery, closed)
            return
        end = taken.now + seconds
        self._runs.began(end)
        try:
            self._execution.run(taken.batch, cost, delivery, closed)
        finally:
            self._runs.ended(end)

    def _why_closed(self, taken: Taken) -> Closed:
        held_back, self._held_back = self._held_back, False
        if taken.closed is not Closed.FREE:
            return taken.closed
        if self._draining:
            return Closed.DRAIN
        return Closed.DELAY if held_back else Closed.FREE

    def _make_room(self, request: InferRequest, full: QueueFull) -> bool:
        """Lets a request in all the same, if others of lower priority give way to it."""
        displaced = self._queue.displace(request, request.arrived)
        if displaced:
            error = QueueFull(f"it gave way to a request of higher priority, since {full}")
            error.retry_after_seconds = full.retry_after_seconds
            self._fail(displaced, lambda _: error)
        return bool(displaced)

    def _surely_within(self) -> float:
        """In how many seconds whoever comes now will be answered whatever he is: without a closer look."""
        batches = self._queue.rows / self._max_rows + self._running
        single = self.costs.is_single
        return (batches + 2.0) * self.costs.first.expect(self._max_rows) if single else math.inf

    def _check_in_time(self, request: InferRequest, now: float) -> None:
        """Refuses what would be answered too late, by what is ahead of it.

        Raises:
            Overloaded: it would, since others wait.
            DeadlineExpired: it would, since a run goes on.
        """
        cost = self.costs.of(request.shape_key)
        if not cost.is_known:
            return
        ahead = self._queue.rows_ahead(request, now)
        seconds = self._runs.seconds_to_answer(ahead, request.rows, self._max_rows, cost, now)
        late = now + seconds - request.deadline
        if late > 0.0:
            behind = f"{ahead:.0f} rows and " if ahead >= 1 else ""
            error = (Overloaded if behind else DeadlineExpired)(
                f"the answer would be too late: behind {behind}what is being run it is expected to take "
                f"{seconds * 1000:.1f} ms, and {(request.deadline - now) * 1000:.1f} ms are left"
            )
            # When it would be in time, if nobody else came; but before a run has ended, all is as it is now.
            error.retry_after_seconds = min(max(late, cost.expect(request.rows)), LONGEST_RETRY_SECONDS)
            raise error

    def _fail(self, requests: Sequence[InferRequest], why: Callable[[InferRequest], RequestError]) -> None:
        delivery = Delivery(self._observer)
        for request in requests:
            delivery.fail(request, why(request))
        self._ended(requests, requests)
        delivery.close()

    def _ended(self, requests: Sequence[InferRequest], unanswered: Sequence[InferRequest]) -> None:
        """These have left for good, some of them without an answer: a hook."""

    def _seconds_to_empty(self) -> float:
        """How long what waits is expected to take, within reason."""
        runs = math.ceil(self._queue.rows / self._max_rows)
        seconds = self.costs.first.expect(self._max_rows) * runs / self.policy.runs_in_parallel
        return min(seconds, LONGEST_RETRY_SECONDS)


class _Nobody:
    """The observer of a batcher that has none yet."""

    def batch_done(self, requests: Sequence[InferRequest], run: Run, answered: float) -> None: ...

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None: ...

    def happened(self, event: str, **facts: object) -> None: ...
