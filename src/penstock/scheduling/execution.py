"""What becomes of a batch that has been taken from the queue: it is run, and everybody in it is answered.

A batch that fails is run again in halves, those that fail in quarters, and so on, so that only those fail
that are to blame: k of n requests take about 2 k log2(n) runs. A run that nobody waits for any more is ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.backends.backend import Backend
from penstock.errors import ModelFailed
from penstock.messages import Closed, InferRequest, Observer, Run
from penstock.scheduling.batch import Packing
from penstock.scheduling.breaker import Breaker
from penstock.scheduling.cost import RunCost
from penstock.scheduling.delivery import Delivery, expired
from penstock.scheduling.running import Going, Running


@dataclass(frozen=True, slots=True)
class Isolation:
    """How others are kept from what goes wrong with a model.

    Attributes:
        failures: failed batches in a row after which it is suspected; 0 for never.
        open_seconds: how long it is left alone at first where it fails whatever it is given.
        hung_seconds: after how long a run is said to hang; 0 for never.
        works: whether it runs on input that it could run when it was loaded.
    """

    failures: int = 0
    open_seconds: float = 1.0
    hung_seconds: float = 0.0
    works: Callable[[], bool] = lambda: False


class Execution:
    """Runs the batches of one model.

    Args:
        backend: runs them.
        packing: puts them together and takes the answers apart.
        isolation: keeps others from what goes wrong.

    Attributes:
        breaker: shuts the model off.
        running: the runs that are going on.
    """

    def __init__(self, backend: Backend, packing: Packing, isolation: Isolation | None = None) -> None:
        self._backend = backend
        self._packing = packing
        isolation = isolation or Isolation()
        self._works = isolation.works
        self.breaker = Breaker(isolation.failures, isolation.open_seconds)
        self.running = Running(isolation.hung_seconds)

    def run(self, batch: Sequence[InferRequest], cost: RunCost, delivery: Delivery, closed: Closed) -> None:
        """Runs a batch and answers it; where it fails, its parts.

        Args:
            batch: the requests.
            cost: learns from it.
            delivery: answers them.
            closed: why there are not more of them.
        """
        error = self._run(batch, cost, delivery, closed)
        if error is None:
            return
        if not self._run_parts(batch, cost, error, delivery) and self.breaker.failed():
            self._suspect(delivery)

    def watch(self, now: float, observer: Observer) -> None:
        """Ends the runs that nobody waits for any more, and tells of those that hang."""
        self.running.stop_abandoned(now)
        for going in self.running.newly_hung(now):
            observer.happened("hung", seconds=round(now - going.started, 3), requests=len(going.batch))

    def _run(
        self, batch: Sequence[InferRequest], cost: RunCost, delivery: Delivery, closed: Closed
    ) -> Exception | None:
        """Runs requests together and answers them, unless the run fails: then nobody is answered yet."""
        packing = self._packing
        names = packing.wanted(batch)
        rows = batch[0].rows if len(batch) == 1 else sum([request.rows for request in batch])
        started = time.monotonic()
        going = self.running.begin(batch, started)
        try:
            inputs = packing.assemble(batch)
            assembled = time.monotonic()
            outputs = self._backend.run(names, inputs, going.stop)
            finished = time.monotonic()
            run = Run(started, assembled, finished, rows, dict(zip(names, outputs, strict=True)), closed)
            answers = packing.split(batch, run)
        except Exception as error:
            if not going.stop.asked:
                return error
            answers = None
        finally:
            self.running.end()
            if going.hung:
                _tell_returned(going, delivery)
        if answers is None:
            delivery.abandon(batch)
            delivery.happened("terminated", seconds=round(time.monotonic() - started, 3))
            return None
        cost.learn(rows, finished - started)
        if self.breaker.succeeded():
            delivery.happened("closed")
        delivery.answer(batch, answers, run)
        return None

    def _run_parts(
        self, batch: Sequence[InferRequest], cost: RunCost, error: Exception, delivery: Delivery
    ) -> bool:
        """Runs the halves of requests that failed together; one that failed alone is told so.

        Returns:
            Whether any run did not fail.
        """
        parts = batch if len(batch) > 1 else list(batch[0].apart())
        if len(parts) == 1:
            delivery.fail(parts[0], _failure(error))
            return False
        middle, any_good = len(parts) // 2, False
        for part in (parts[:middle], parts[middle:]):
            wanted = _still_wanted(part, delivery)
            if len(wanted) < len(part):
                delivery.flush()  # the run may take long
            if wanted:
                problem = self._run(wanted, cost, delivery, Closed.RETRY)
                good = problem is None or self._run_parts(wanted, cost, problem, delivery)
                any_good = any_good or good
            delivery.flush()
        return any_good

    def _suspect(self, delivery: Delivery) -> None:
        """Shuts the model off, unless it works: then what it was given is to blame."""
        going = self.running.begin((), time.monotonic())
        try:
            works = self._works()
        finally:
            self.running.end()
            if going.hung:
                _tell_returned(going, delivery)
        if not works:
            seconds = self.breaker.open(time.monotonic())
            if seconds:
                delivery.happened("opened", seconds=seconds)
        elif self.breaker.succeeded():
            delivery.happened("closed")


def _tell_returned(going: Going, delivery: Delivery) -> None:
    delivery.happened("returned", seconds=round(time.monotonic() - going.started, 3))


def _still_wanted(requests: Sequence[InferRequest], delivery: Delivery) -> list[InferRequest]:
    """Those of a batch that failed which have not been given up meanwhile; the others are told."""
    now, wanted = time.monotonic(), []
    for request in requests:
        if request.cancelled:
            delivery.drop(request)
        elif request.deadline <= now:
            delivery.fail(request, expired(request))
        else:
            wanted.append(request)
    return wanted


def _failure(error: Exception) -> ModelFailed:
    if isinstance(error, ModelFailed):
        return error
    failure = ModelFailed("the model could not be run on this request; the server's log says why")
    failure.__cause__ = error
    return failure
