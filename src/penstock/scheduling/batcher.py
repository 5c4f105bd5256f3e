"""The dynamic batcher: queues one model's requests and runs them in batches.

    put ── queue ── run_once ── assemble ── backend ── split ── reply

`run_once` is called by the polling thread or by a runner thread (see `runners`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

from penstock.backends.backend import Backend
from penstock.core.errors import QueueFull, RequestError
from penstock.core.observers import SilentObserver
from penstock.core.request import CutReason, Flush, Observer, Request
from penstock.scheduling.batch_watch import BatchWatch
from penstock.scheduling.cost import QUICK_SECONDS, RunCost, RunCosts
from penstock.scheduling.estimates import Arrivals, WaitEstimate
from penstock.scheduling.execution.execution import Execution, Responder
from penstock.scheduling.execution.failures import LONGEST_RETRY_SECONDS, expired, gone, too_late
from penstock.scheduling.packing.rows import Packing, Rows
from penstock.scheduling.policy import BatchPolicy, Isolation
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.queue.queue import BatchBuilder, RequestQueue
from penstock.scheduling.verification import NO_VERIFIER, Mismatch, Verifier

MARGIN_SECONDS = 0.005
"""How long a runner thread may take to wake up beside a busy one: Python's switch interval."""

ENOUGH_ROWS = 32
"""With this many rows, a run does not wait for more messages to be read: unread they take least memory."""


class DynamicBatcher:
    """The queue of one model, and the runs that empty it.

    Args:
        backend: runs the batches.
        policy: how requests are batched.
        cost: how long a run is expected to take, as measured at load.
        packing: puts requests together into runs; as rows, if not given.
        total: what waits for all models, which is limited as well.
        isolation: when the circuit breaker opens, and when runs count as hanging; never, if not given.

    Attributes:
        policy: as given; no longer batched once requests were found to affect each other.
        on_alone: called once every request runs alone, with the reason and whether later starts follow it.
        may_be_inline: whether quick runs may be made by the threads that take calls.
        observer: called when requests end.
        costs: how long runs are expected to take; learns from every run.
        breaker: the model's circuit breaker.
        in_flight: the runs that are going on.
        times: how long the last runs took.
        rejecting: whether the last request was rejected: the next one is asked about with `why_rejected`.
    """

    _has_steps = False

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        backend: Backend,
        policy: BatchPolicy,
        cost: RunCost,
        packing: Packing | None = None,
        total: QueueTotal | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self.policy = policy
        self.may_be_inline = policy.inline
        self.costs = RunCosts(cost)
        self._max_rows = policy.max_rows if policy.batched else 1
        self._full_rows = min(self._max_rows, ENOUGH_ROWS)
        isolation = isolation or Isolation()
        self._execution = Execution(backend, packing or Rows(policy.batched), isolation, self._max_rows)
        self.breaker, self.in_flight = self._execution.breaker, self._execution.in_flight
        self.times = self._execution.times
        self._execution.on_mixing = self.found_mixing
        self.on_alone: Callable[[str, bool], None] = lambda _, __: None
        self._backend, self._verifier = backend, NO_VERIFIER
        self.observer: Observer = SilentObserver()
        limits = QueueLimits(policy.queue_rows, policy.queue_bytes)
        self._queue = RequestQueue(limits, self.costs, total)
        self._lock = threading.Lock()
        self._running_batches, self.rejecting = 0, False
        self._recorded = isolation.recorded
        self._wait_estimate = WaitEstimate(policy.runs_in_parallel)
        self._arrivals = Arrivals() if policy.max_delay_seconds else None
        self._draining = self._held_back = False

    def verify(self, verifier: Verifier, watch: BatchWatch | None) -> None:
        """Has batches verified as `watch` says, if it is given. To be called before the first request.

        Args:
            verifier: verifies the batches of all models. It is interrupted by runs of this model.
            watch: keeps some of this model's batches for it.
        """
        self._verifier = verifier
        if watch is not None and self.policy.batched:
            self._execution.watch_batches(watch)

    def found_mixing(self, found: Mismatch) -> None:
        """A batch changed an answer: every request runs alone, those that wait included. On any thread."""
        if self._run_alone(found.reason, is_lasting=True):
            facts = {} if found.difference is None else {"difference": found.difference}
            self.observer.on_event("mismatch", output=found.output, reason=found.reason, **facts)

    def found_dearer(self, reason: str) -> None:
        """As `found_mixing`, until the next start only: batches of these requests take longer."""
        if self._run_alone(reason, is_lasting=False):
            self.observer.on_event("dearer", reason=reason)

    def _run_alone(self, reason: str, is_lasting: bool) -> bool:
        """Lets every request run alone; false if all did before."""
        with self._lock:
            if not self.policy.batched:
                return False
            self.policy = replace(self.policy, batched=False, max_delay_seconds=0.0)
            self._max_rows = self._full_rows = 1
            self._execution.run_alone()
        self.on_alone(reason, is_lasting)  # last: what arrives then need not fit a batch
        return True

    def verifying(self, runs: int) -> None:
        """Records that so many runs of the model are made for verification now."""
        with self._lock:
            self._recorded.value = self._running_batches + runs

    @property
    def waiting_rows(self) -> int:
        """The rows in the queue."""
        return self._queue.rows

    @property
    def waiting_bytes(self) -> int:
        """The bytes of the messages in the queue."""
        return self._queue.bytes

    @property
    def running_batches(self) -> int:
        """The batches that are being run."""
        return self._running_batches

    def backlog(self) -> tuple[int, int]:
        """The rows that wait and the bytes of their messages, including those that cannot be run yet."""
        return self._queue.rows, self._queue.bytes

    def is_busy(self) -> bool:
        """Whether anything waits or is being run."""
        with self._lock:  # a run that ends adds what follows it to the queue before it stops counting
            return self._running_batches > 0 or self.backlog()[0] > 0

    def is_watched(self) -> bool:
        """Whether a call of `expire` may find something."""
        return self._running_batches > 0 or self._queue.rows > 0

    def is_full(self) -> bool:
        """Whether a full batch waits, or at least `ENOUGH_ROWS` rows."""
        return self._queue.rows >= self._full_rows

    def put(self, request: Request) -> None:
        """Puts a request into the queue.

        Raises:
            QueueFull: the queue is full; says when to try again.
            Overloaded: its answer would be too late because of requests ahead of it; says when to try again.
            DeadlineExpired: its deadline has passed, or will have passed before a run that is going on ends.
            Unavailable: the circuit breaker is open; says for how long.
        """
        now = request.arrived
        busy = self._running_batches or self._queue.rows
        if busy and now < request.deadline < math.inf and (late := self._why_late(request, now)) is not None:
            raise copy(late)  # others share it
        if self.breaker.is_open and request.deadline > now:  # a request that is late anyway cannot be a probe
            self.breaker.admit(now)
        try:
            self._queue.put(request, now)
        except QueueFull as full:
            full.retry_after_seconds = self._seconds_to_empty()
            if not self._make_room(request, full):
                raise
        if self._arrivals is not None:
            self._arrivals.note(request.rows, now)

    def why_rejected(self, request: Request) -> RequestError | None:
        """Why `put` would reject a request, which needs no inputs yet; None if it might take it."""
        now, error = request.arrived, None
        if (self._running_batches or self._queue.rows) and now < request.deadline < math.inf:
            error = self._why_late(request, now)
        if error is None and self.breaker.is_open and request.deadline > now:
            error = self.breaker.why_rejected(now)
        if error is None:
            error = self._queue.why_rejected(request, now)
            if isinstance(error, QueueFull) and error.retry_after_seconds is None:
                error.retry_after_seconds = self._seconds_to_empty()
        self.rejecting = error is not None
        return error

    def reject(self, request: Request, error: RequestError) -> None:
        """Gives a request that does not wait an error for its answer."""
        self.rejecting = True
        self.observer.failed(request.rpc, error, request.count, time.monotonic() - request.arrived)
        if (flush := request.reply(error)) is not None:
            flush()

    def cancel(self, request: Request) -> None:
        """Drops a request whose caller has gone. If it is already part of a run, it is not answered."""
        request.cancelled = True
        if self._queue.discard(request):
            self._fail([request], gone)

    def withdraw(self) -> Sequence[Request]:
        """Takes all requests out of the queue, in the order of their arrival. They come again later."""
        return sorted(self._queue.expire(math.inf), key=lambda each: each.arrived)

    def replace(self, request: Request, kept: Request, dropped: Request) -> bool:
        """Replaces a waiting request by a part of it, and cancels the other part.

        Returns:
            Whether the request was waiting; one that has been taken already is left as it is.
        """
        with self._lock:  # so that the model is never seen idle between the two
            if not self._queue.discard(request):
                return False
            self._queue.add_held(kept)
        self._fail([dropped], gone)
        return True

    def expire(self, now: float) -> None:
        """Ends the waiting requests whose deadline has passed, and watches the runs that are going on."""
        self._execution.watch(now, self.observer)
        if self._queue.rows:
            self._fail(self._queue.expire(now), expired)

    def drain(self) -> None:
        """From now on no request is held back to fill a batch, since no more requests will come."""
        self._draining = True

    def expected_seconds(self) -> float:
        """How long the next batch is expected to take."""
        if self.costs.is_single and (waiting := self._queue.rows) <= self._max_rows:
            return self.costs.first.expect(waiting)
        rows, cost = self._queue.next_batch(self._max_rows)
        return cost.expect(rows)

    def measured_seconds(self) -> float:
        """The same in new memory; infinity if no run of about this size was measured: then it is a guess."""
        costs = self.costs
        if costs.is_single and (waiting := self._queue.rows) <= self._max_rows:
            return costs.first.expect_in_new_memory(waiting)
        rows, cost = self._queue.next_batch(self._max_rows)
        if rows > max(self._max_rows, cost.most_rows) or not costs.is_measured(cost):
            return math.inf
        return cost.expect_in_new_memory(rows)

    def overran(self, seconds: float, expected: float) -> None:
        """A run took far longer than expected: from now on none is made by a thread that takes calls."""
        if self.may_be_inline:
            self.may_be_inline = False
            self.observer.on_event("overran", seconds=round(seconds, 4), expected_seconds=round(expected, 6))

    def due(self, now: float) -> float:
        """When the next batch is to run: `now` or earlier if at once, infinity if nothing waits.

        A batch is held back only if requests arrive so fast that waiting is expected to fill it.
        """
        rows = self._queue.rows
        if not rows:
            return math.inf
        most = min(self._max_rows, self.policy.queue_rows, self.costs.first.rows_in_memory)
        if self._arrivals is None or self._draining or rows >= most:
            return now
        latest = self._queue.oldest() + self.policy.max_delay_seconds
        missing = most - rows
        if self._arrivals.until(missing) > latest:
            return now
        self._held_back = True
        # Not so long that a request misses its deadline, nor more than twice as long as filling should take.
        spare = 2 * self.expected_seconds() + MARGIN_SECONDS
        return min(latest, self._queue.earliest_deadline - spare, self._arrivals.until(2 * missing))

    def wants_another_runner(self) -> bool:
        """Whether more rows wait than the next batch takes, and one more run is allowed at the same time."""
        rows, most = self._queue.rows, self._max_rows
        if rows <= 1 or self._running_batches + 1 >= self.policy.runs_in_parallel:
            return False
        return rows > most or rows > self._queue.next_batch(most)[1].rows_in_memory

    def may_run(self) -> bool:
        """Whether one more run may start beside those that are going on."""
        return self._running_batches < self.policy.runs_in_parallel

    def run_once(self, gathered: dict[Flush, None] | None = None) -> bool:
        """Runs the next batch, if there is one and it may run.

        Args:
            gathered: if given, collects the flushes of streams; see `Responder`.

        Returns:
            Whether something was taken from the queue.
        """
        policy = self.policy
        with self._lock:
            if self._running_batches >= policy.runs_in_parallel:
                return False
            self._recorded.value = self._running_batches = self._running_batches + 1
        if self._verifier.active:
            self._verifier.interrupt()
        responder = Responder(self.observer, gathered, policy.max_answer_bytes)
        taken: list[Request] = []
        try:
            next_batch = self._queue.take(self._max_rows, time.monotonic())
            late = next_batch.late
            taken = [*next_batch.batch, *late] if late else next_batch.batch
            if late:
                for request in late:
                    responder.fail(request, expired(request))
                responder.flush()  # the run may take long
            if next_batch.batch:
                self._run(next_batch, responder)
        finally:
            try:
                if self._has_steps:
                    self._ended(taken, responder.unanswered)
            finally:
                with self._lock:
                    self._recorded.value = self._running_batches = self._running_batches - 1
        if responder.flushes or responder.error is not None:
            responder.close()
        return bool(taken)

    def fail_all(self, error: RequestError) -> None:
        """Ends every waiting request with `error`."""
        while (taken := self._queue.take(self._max_rows, time.monotonic())).batch or taken.late:
            self._fail([*taken.batch, *taken.late], lambda _: error)

    def _run(self, next_batch: BatchBuilder, responder: Responder) -> None:
        """Runs a batch. If it is expected to take long, the wait estimate of later requests includes it."""
        batch, cost, cut_reason = next_batch.batch, next_batch.cost, next_batch.cut_reason
        held_back, self._held_back = self._held_back, False
        if cut_reason is CutReason.FREE:
            cut_reason = CutReason.DRAIN if self._draining else CutReason.DELAY if held_back else cut_reason
        seconds = cost.expect(next_batch.rows)
        if seconds < QUICK_SECONDS:
            self._execution.run(batch, cost, responder, cut_reason)
        else:
            estimate = self._wait_estimate
            end = next_batch.now + seconds * estimate.turn_factor
            estimate.run_started(end)
            try:
                self._execution.run(batch, cost, responder, cut_reason)
                estimate.learn(seconds, time.monotonic() - next_batch.now)
            finally:
                estimate.run_ended(end)
        if next_batch.is_first_run:
            self.costs.note_run(batch[0].shape_key)

    def _make_room(self, request: Request, full: QueueFull) -> bool:
        """Puts a request into the full queue, if requests of lower priority can be taken out for it."""
        displaced = self._queue.displace(request, request.arrived)
        if displaced:
            error = QueueFull(f"removed from the queue for a request of higher priority: {full}")
            error.retry_after_seconds = full.retry_after_seconds
            self._fail(displaced, lambda _: error)
        return bool(displaced)

    def _why_late(self, request: Request, now: float) -> RequestError | None:
        """Why a request cannot be answered in time after what is ahead of it; None if it can."""
        if self.costs.is_single:  # most have more time than the wait could take
            batches = self._queue.rows / self._max_rows + self._running_batches + 2.0
            if request.deadline >= now + batches * self.costs.first.expect(self._max_rows):
                return None
        cost = self.costs.of(request.shape_key)
        if not cost.is_known:
            return None
        ahead, head = self._queue.ahead(request, now)
        seconds = self._wait_estimate.seconds_to_answer(
            ahead, request.rows, self._max_rows, cost, now, head, request.deadline
        )
        return too_late(request, now, seconds, ahead, cost)

    def _fail(self, requests: Sequence[Request], why: Callable[[Request], RequestError]) -> None:
        responder = Responder(self.observer)
        for request in requests:
            responder.fail(request, why(request))
        if self._has_steps:
            self._ended(requests, requests)
        responder.close()

    def _ended(self, requests: Sequence[Request], unanswered: Sequence[Request]) -> None:
        """Called for a subclass with `_has_steps`: these requests have ended, some without an answer."""

    def _seconds_to_empty(self) -> float:
        """How long it takes to run all waiting requests, at most `LONGEST_RETRY_SECONDS`."""
        seconds = math.ceil(self._queue.rows / self._max_rows) * self.costs.first.expect(self._max_rows)
        return min(seconds / self.policy.runs_in_parallel, LONGEST_RETRY_SECONDS)
