"""Runs one model's requests in batches.

    put ── queue ── run_once ── assemble ── backend ── split ── reply

`run_once` is called by whichever thread has the time (see `runners`). A batch that fails is run again,
each request alone, so that only those fail that are to blame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.backends.backend import Backend
from penstock.errors import DeadlineExpired, ModelFailed, RequestCancelled, RequestError
from penstock.messages import Flush, InferRequest, InferResponse, Observer, Run
from penstock.scheduling.batch import assemble, split, wanted_outputs
from penstock.scheduling.cost import RunCost
from penstock.scheduling.queue import RequestQueue
from penstock.tensors import Array


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How a model's requests are batched.

    Attributes:
        batched: whether requests run together at all.
        max_rows: the most rows of a batch of several requests.
        max_delay_seconds: how long a request may be held back to fill a batch; 0 for never.
        queue_rows: the most rows that may wait.
        runs_in_parallel: how many runs of this model may go on at the same time.
    """

    batched: bool
    max_rows: int
    max_delay_seconds: float
    queue_rows: int
    runs_in_parallel: int


class DynamicBatcher:
    """The queue of one model and what empties it.

    Args:
        backend: runs the batches.
        policy: how they are made up.
        cost: how long they are expected to take.
    """

    def __init__(self, backend: Backend, policy: BatchPolicy, cost: RunCost) -> None:
        self.policy = policy
        self._backend = backend
        self._cost = cost
        self._observer: Observer = _Nobody()
        self._queue = RequestQueue(policy.queue_rows)
        self._max_rows = policy.max_rows if policy.batched else 1
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
    def running(self) -> int:
        """The batches being run."""
        return self._running

    def put(self, request: InferRequest) -> None:
        """Lets a request into the queue.

        Raises:
            QueueFull: there is no room.
            DeadlineExpired: its deadline has passed already.
        """
        self._queue.put(request, request.arrived)

    def cancel(self, request: InferRequest) -> None:
        """Drops a request whose caller has gone. One that is running already runs on, unanswered."""
        request.cancelled = True
        if self._queue.discard(request):
            self._fail(request, _gone(request))

    def expire(self, now: float) -> None:
        """Answers the waiting requests whose deadline has passed."""
        if self._queue.rows:
            self._fail_expired(self._queue.expire(now))

    def expected_seconds(self) -> float:
        """How long the next batch is expected to take."""
        rows = self._queue.rows
        return self._cost.expect(min(rows, self._max_rows) if self.policy.batched else max(rows, 1))

    def due(self, now: float) -> float:
        """When the next batch is to run: `now` or before if at once, infinity if nothing waits."""
        return self._queue.due(self._max_rows, self.policy.max_delay_seconds, now)

    def wants_another_runner(self) -> bool:
        """Whether more waits than the next batch takes, and may run beside it."""
        return self._queue.rows > self._max_rows and self._running + 1 < self.policy.runs_in_parallel

    def may_run(self) -> bool:
        """Whether one more run may begin beside those going on."""
        return self._running < self.policy.runs_in_parallel

    def run_once(self) -> bool:
        """Runs the next batch, if there is one and it may run.

        Returns:
            Whether something was taken from the queue.
        """
        with self._lock:
            if self._running >= self.policy.runs_in_parallel:
                return False
            self._running += 1
        try:
            batch, expired = self._queue.take(self._max_rows, time.monotonic())
            if expired:
                self._fail_expired(expired)
            if batch:
                self._run(batch)
        finally:
            with self._lock:
                self._running -= 1
        return bool(batch or expired)

    def fail_all(self, error: RequestError) -> None:
        """Ends every waiting request with `error`."""
        while True:
            batch, expired = self._queue.take(self._max_rows, time.monotonic())
            if not batch and not expired:
                return
            for request in (*batch, *expired):
                self._fail(request, error)

    def _run(self, batch: list[InferRequest]) -> None:
        """Runs a batch and answers it; where it fails, each of its requests alone."""
        names = wanted_outputs(batch)
        rows = sum([request.rows for request in batch])
        started = time.monotonic()
        try:
            outputs = self._backend.run(names, assemble(batch))
            finished = time.monotonic()
            parts = self._parts(batch, rows, names, outputs)
        except Exception as error:
            self._run_apart(batch, error)
            return
        self._cost.learn(rows, finished - started)
        self._answer(batch, parts, Run(started, finished, rows))
        self._observer.batch_done([r for r in batch if not r.cancelled], rows, started, finished)

    def _run_apart(self, batch: list[InferRequest], error: Exception) -> None:
        if len(batch) > 1:
            for request in batch:
                self._run([request])
        elif isinstance(error, ModelFailed):
            self._fail(batch[0], error)
        else:
            failure = ModelFailed("the model could not be run on this request; the server's log says why")
            failure.__cause__ = error
            self._fail(batch[0], failure)

    def _parts(
        self, batch: Sequence[InferRequest], rows: int, names: Sequence[str], outputs: Sequence[Array]
    ) -> list[dict[str, Array]]:
        """Every request's share of the outputs."""
        if not self.policy.batched:
            return [dict(zip(names, outputs, strict=True))]
        _check_rows(rows, names, outputs)
        return list(split(batch, names, outputs))

    def _answer(self, batch: Sequence[InferRequest], parts: Iterable[dict[str, Array]], run: Run) -> None:
        """Hands every request its part, and then lets streams send what has gathered."""
        flushes: dict[Flush, None] = {}
        for request, part in zip(batch, parts, strict=True):
            if request.cancelled:
                self._observer.failed(request.rpc, _gone(request))
                continue
            flush = request.reply(InferResponse(part, run))
            if flush is not None:
                flushes[flush] = None
        for flush in flushes:
            flush()

    def _fail_expired(self, expired: Iterable[InferRequest]) -> None:
        for request in expired:
            waited = time.monotonic() - request.arrived
            self._fail(request, DeadlineExpired(f"the deadline passed after {waited:.3f} s in the queue"))

    def _fail(self, request: InferRequest, error: RequestError) -> None:
        flush = request.reply(error)
        if flush is not None:
            flush()
        self._observer.failed(request.rpc, error)


class _Nobody:
    """The observer of a batcher that has none yet."""

    def batch_done(
        self, requests: Sequence[InferRequest], rows: int, started: float, finished: float
    ) -> None: ...

    def failed(self, rpc: str, error: RequestError) -> None: ...


def _gone(request: InferRequest) -> RequestError:
    """The error of a request whose call has ended: it timed out, or its caller went away."""
    if time.monotonic() >= request.deadline:
        return DeadlineExpired("the deadline passed before the answer was ready")
    return RequestCancelled("the caller went away before the answer was ready")


def _check_rows(rows: int, names: Sequence[str], outputs: Sequence[Array]) -> None:
    """Makes sure that the answer can be taken apart.

    Raises:
        ModelFailed: an output has not one entry a row, whatever the graph declares.
    """
    for name, output in zip(names, outputs, strict=True):
        if not output.shape or output.shape[0] != rows:
            raise ModelFailed(f"output {name} came with shape {list(output.shape)} for {rows} rows")
