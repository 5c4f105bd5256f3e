"""Runs batches and answers their requests, so that a request that fails does not affect the others.

A batch that fails is halved and run again, down to the requests on which the model fails. If a model fails on
every input, its circuit breaker opens for a while (`breaker`). A run whose callers are gone is ended early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from typing import Any

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed, RequestError
from penstock.core.request import CutReason, Flush, Observer, Request, Response, Run
from penstock.scheduling.batch_watch import BatchWatch
from penstock.scheduling.cost import RunCost
from penstock.scheduling.execution.breaker import Breaker
from penstock.scheduling.execution.failures import (
    LIMITS,
    answer_too_large,
    gone,
    model_failed,
    still_wanted,
)
from penstock.scheduling.execution.run_times import LONG_SECONDS, NOTICEABLE_SECONDS, RunTimes
from penstock.scheduling.packing.rows import OtherRows, Packing, check_rows
from penstock.scheduling.policy import Isolation
from penstock.scheduling.verification import Mismatch

LARGE_TIMES = 4
"""A run of more rows than this many full batches is large: the backend frees the memory that it took."""


class InFlightRun:
    """A run that is going on: a `penstock.backends.backend.RunControl`.

    Attributes:
        batch: the requests; empty if the model is only tried.
        started: when the run began, by `time.monotonic()`.
        is_large: see `RunControl`.
        stopped: whether the run is to end early.
        hung: whether the run has gone on for too long.
    """

    __slots__ = ("_stop", "batch", "hung", "is_large", "started", "stopped")

    def __init__(self, batch: Sequence[Request], started: float, is_large: bool = False) -> None:
        self.batch = batch
        self.started = started
        self.is_large = is_large
        self.stopped = self.hung = False
        self._stop: Callable[[], None] | None = None

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Called by the backend: `stop`, which may be called twice, ends the run."""
        self._stop = stop
        if self.stopped:  # `stop` was called first: of two threads, the second one sees what the first did
            stop()

    def stop(self) -> None:
        """Lets the run end as soon as the backend can; called by another thread."""
        self.stopped = True
        if self._stop is not None:
            self._stop()

    def is_abandoned(self, now: float) -> bool:
        """Whether no caller waits for it any more."""
        return bool(self.batch) and all(each.cancelled or each.deadline <= now for each in self.batch)


class InFlightRuns(dict[int, InFlightRun]):
    """The runs of one model that are going on, by the thread that runs; each thread has one at most.

    The threads that run write to it, another one reads it. It needs no lock, since Python does every step
    on a dictionary in one piece.
    """

    def hung_threads(self) -> list[int]:
        """The threads whose runs hang, by their identifiers."""
        return [thread for thread, run in list(self.items()) if run.hung]


class Responder:
    """Answers requests and tells the observer how they ended.

    Neither replies nor observers should raise. If one does, all others are called all the same, and `close`
    raises the first exception.

    Args:
        observer: is called for each batch, failure and event.
        gathered: if given, collects the flushes of streams, which its owner then calls.
        most: the bytes of the largest answer; a larger one is an error of its request.

    Attributes:
        unanswered: the requests that ended without an answer.
        flushes: what lets streams send, until it is called.
        error: the first exception of a reply, a flush or the observer.
    """

    __slots__ = ("_gathered", "_most", "_observer", "error", "flushes", "unanswered")

    def __init__(
        self, observer: Observer, gathered: dict[Flush, None] | None = None, most: int = 2**31 - 1
    ) -> None:
        self._observer = observer
        self._gathered = gathered
        self._most = most
        self.flushes: dict[Flush, None] = {}
        self.error: Exception | None = None
        self.unanswered: list[Request] = []

    def answer(self, batch: Sequence[Request], responses: Sequence[Response], run: Run) -> None:
        """Gives every request of a batch its response, and then lets streams send what has gathered."""
        answered = []
        size = 0
        for array in run.outputs.values():
            size += array.nbytes
        for request, response in zip(batch, responses, strict=True):
            if request.cancelled:
                self.drop(request)
                continue
            deadline = request.deadline  # a response that is too late is an error, as if it had not been run
            if deadline != math.inf and deadline < time.monotonic():
                self.fail(request, gone(request))
                continue
            if size > self._most and response.nbytes > self._most * request.count:
                self.fail(request, answer_too_large(response.nbytes // request.count, self._most))
                continue
            try:
                flush = request.reply(response)
            except Exception as error:
                self._keep(error)
                self.fail(request, ModelFailed("the answer could not be sent; see the server's log"))
                continue
            answered.append(request)
            if flush is not None:
                self.flushes[flush] = None
        if self.flushes:
            self.flush()
        try:
            self._observer.batch_done(answered, run, time.monotonic())
        except Exception as error:
            self._keep(error)

    def fail(self, request: Request, error: RequestError) -> None:
        """Ends a request with an error; streams send it with the next `flush`."""
        flush = self._call(request.reply, error)
        if flush is not None:
            self.flushes[flush] = None
        self._count_failure(request, error)

    def drop(self, request: Request) -> None:
        """Ends a request that no caller waits for any more: only the observer is called."""
        self._count_failure(request, gone(request))

    def on_event(self, event: str, **facts: object) -> None:
        """Tells the observer of an event of the model itself; see `penstock.core.request.Observer`."""
        self._call(partial(self._observer.on_event, event, **facts))

    def flush(self) -> None:
        """Lets streams send what has gathered, each once."""
        flushes, self.flushes = self.flushes, {}
        if self._gathered is not None:
            self._gathered.update(flushes)
            return
        for flush in flushes:
            self._call(flush)

    def close(self) -> None:
        """Flushes, and raises the first exception of a reply, a flush or the observer, if there was one."""
        if self.flushes:
            self.flush()
        if self.error is not None:
            raise self.error

    def _count_failure(self, request: Request, error: RequestError) -> None:
        self.unanswered.append(request)
        seconds = time.monotonic() - request.arrived
        self._call(self._observer.failed, request.rpc, error, request.count, seconds)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            self._keep(error)
            return None

    def _keep(self, error: Exception) -> None:
        self.error = self.error or error


class Execution:
    """Runs the batches of one model.

    Args:
        backend: runs the model.
        packing: puts requests together into one run and splits its outputs into their responses.
        isolation: limits the effect of failures.
        max_rows: the most rows of a batch of several requests.

    Attributes:
        breaker: the model's circuit breaker.
        in_flight: the runs that are going on.
        on_mixing: called if a batch shows that its requests affect each other; must call `run_alone`.
    """

    def __init__(
        self, backend: Backend, packing: Packing, isolation: Isolation | None = None, max_rows: int = 1
    ) -> None:
        self.on_mixing: Callable[[Mismatch], None] = lambda _: self.run_alone()
        self._watch: BatchWatch | None = None
        self._until_offered = math.inf  # how many more batches are run until one is offered to `_watch`
        self._backend = backend
        self._packing = packing
        isolation = isolation or Isolation()
        self._works = isolation.works
        self._hung_seconds = isolation.hung_seconds
        self._large_rows = LARGE_TIMES * max_rows
        self.breaker = Breaker(isolation.failures, isolation.open_seconds)
        self.in_flight, self.times = InFlightRuns(), RunTimes()

    def watch_batches(self, watch: BatchWatch) -> None:
        """Offers some of the batches that are answered to `watch`."""
        self._watch, self._until_offered = watch, 0.0

    def run_alone(self) -> None:
        """From now on, no requests run together. Batches that have been taken are run in their parts."""
        self._packing = self._packing.alone()
        watch, self._watch, self._until_offered = self._watch, None, math.inf
        if watch is not None:
            watch.end()

    def run(
        self, batch: Sequence[Request], cost: RunCost, responder: Responder, cut_reason: CutReason
    ) -> None:
        """Runs a batch and answers it. If it fails, its parts are run.

        Args:
            batch: the requests.
            cost: learns from the run.
            responder: answers them.
            cut_reason: why the batch has no more requests.
        """
        error = self._run(batch, cost, responder, cut_reason)
        if error is None:
            return
        any_good = self._run_parts(batch, cost, error, responder)
        if not any_good and not isinstance(error, LIMITS) and self.breaker.failed():
            self._suspect(responder)

    def watch(self, now: float, observer: Observer) -> None:
        """Stops the runs that no caller waits for any more, and reports those that hang, each once."""
        runs = list(self.in_flight.values())
        for run in runs:
            if not run.stopped and run.is_abandoned(now):
                run.stop()
        for run in runs:
            if self._hung_seconds and not run.hung and now - run.started > self._hung_seconds:
                run.hung = True
                observer.on_event("hung", seconds=round(now - run.started, 3), requests=len(run.batch))

    def _run(
        self, batch: Sequence[Request], cost: RunCost, responder: Responder, cut_reason: CutReason
    ) -> Exception | None:
        """Runs requests together and answers them; if the run fails, they are not answered yet."""
        # long: one run, from its inputs to its answers
        packing, first = self._packing, batch[0]
        is_packed = len(batch) > 1 or packing.packs_single
        names = packing.wanted(batch) if is_packed else first.outputs
        rows = first.rows if len(batch) == 1 else sum([request.rows for request in batch])
        started = time.monotonic()
        in_flight = InFlightRun(batch, started, rows > self._large_rows)
        thread = get_ident()
        self.in_flight[thread] = in_flight
        try:
            inputs = packing.assemble(batch) if is_packed else first.inputs
            assembled = time.monotonic()
            if assembled - started > NOTICEABLE_SECONDS or cut_reason is CutReason.RETRY:
                self.times.cpu_before[thread] = time.thread_time()
            try:
                outputs = self._backend.run(names, inputs, in_flight)
            finally:
                finished = time.monotonic()
                self.times.took[thread] = seconds = finished - assembled
                if seconds > LONG_SECONDS:  # for short runs, reading this clock takes too long
                    self.times.cpu_after[thread] = time.thread_time()
            run = Run(started, assembled, finished, rows, dict(zip(names, outputs, strict=True)), cut_reason)
            responses = packing.split(batch, run) if is_packed else _response_of_one(first, packing, run)
        except Exception as error:
            if not in_flight.stopped:
                return error
            responses = None
        finally:
            del self.in_flight[thread]
            if in_flight.hung:
                responder.on_event("returned", seconds=round(time.monotonic() - in_flight.started, 3))
        if responses is None:
            self._abandon(batch, started, responder)
            return None
        cost.learn(rows, finished - started, outputs)
        if self.breaker.failures_in_row and self.breaker.succeeded():
            responder.on_event("closed")
        responder.answer(batch, responses, run)
        if is_packed or first.count > 1:
            self._until_offered -= 1.0
            if self._until_offered <= 0.0 and (watch := self._watch) is not None:
                all_outputs = dict(zip(names, outputs, strict=True))
                self._until_offered = watch.offer(batch, packing, responses, all_outputs)
        return None

    def _abandon(self, batch: Sequence[Request], started: float, responder: Responder) -> None:
        """Ends the requests of a run that was stopped; a stream may still ask for those that are too late."""
        for request in batch:
            if request.cancelled:
                responder.drop(request)
            else:
                responder.fail(request, gone(request))
        responder.on_event("terminated", seconds=round(time.monotonic() - started, 3))

    def _run_parts(
        self, batch: Sequence[Request], cost: RunCost, error: Exception, responder: Responder
    ) -> bool:
        """Runs the halves of requests that failed together; a request that failed alone ends with the error.

        If the outputs do not have one entry for each row, every request runs alone, from now on.

        Returns:
            Whether any run succeeded.
        """
        if isinstance(error, OtherRows):
            self.on_mixing(Mismatch(error.output, str(error)))
            batch = still_wanted(batch, responder)
            again = self._run(batch, cost, responder, CutReason.RETRY) if batch else None
            if again is None:
                return True
            error = again
        parts = batch if len(batch) > 1 else list(batch[0].split())
        if len(parts) == 1 and parts[0] is batch[0]:  # one request may be left of several
            responder.fail(parts[0], model_failed(error))
            return False
        middle, any_good = len(parts) // 2, False
        for part in (parts[:middle], parts[middle:]):
            wanted = still_wanted(part, responder)
            if len(wanted) < len(part):
                responder.flush()  # the run may take long
            if wanted:
                problem = self._run(wanted, cost, responder, CutReason.RETRY)
                good = problem is None or self._run_parts(wanted, cost, problem, responder)
                any_good = any_good or good
            responder.flush()
        return any_good

    def _suspect(self, responder: Responder) -> None:
        """Opens the circuit breaker, unless the model works on known input: then the requests are wrong."""
        thread = get_ident()
        in_flight = self.in_flight[thread] = InFlightRun((), time.monotonic())
        try:
            works = self._works()
        finally:
            del self.in_flight[thread]
            if in_flight.hung:
                responder.on_event("returned", seconds=round(time.monotonic() - in_flight.started, 3))
        if not works:
            seconds = self.breaker.open(time.monotonic())
            if seconds:
                responder.on_event("opened", seconds=seconds)
        elif self.breaker.succeeded():
            responder.on_event("closed")


def _response_of_one(request: Request, packing: Packing, run: Run) -> Sequence[Response]:
    """The response to a request that was run alone and as it came."""
    waited = run.started - request.arrived
    if not packing.batched:
        return (Response(run, request.outputs, waited),)
    rows = run.rows
    for output in run.outputs.values():
        if not output.ndim or len(output) != rows:
            check_rows(run)
    return (Response(run, request.outputs, waited, 0, rows),)
