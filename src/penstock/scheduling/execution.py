"""What becomes of a batch that has been taken from the queue: it is run, and everybody in it is answered.

A batch that fails is run again, each request alone, so that only those fail that are to blame.
"""

from __future__ import annotations

import time

from penstock.backends.backend import Backend
from penstock.errors import ModelFailed
from penstock.messages import Closed, InferRequest, Run
from penstock.scheduling.batch import Packing
from penstock.scheduling.cost import RunCosts
from penstock.scheduling.delivery import Delivery, expired


class Execution:
    """Runs the batches of one model.

    Args:
        backend: runs them.
        packing: puts them together and takes the answers apart.
        costs: learn from them.
    """

    def __init__(self, backend: Backend, packing: Packing, costs: RunCosts) -> None:
        self._backend = backend
        self._packing = packing
        self._costs = costs

    def run(self, batch: list[InferRequest], delivery: Delivery, closed: Closed = Closed.RETRY) -> None:
        """Runs a batch and answers it; where it fails, each of its requests alone.

        Args:
            batch: the requests.
            delivery: answers them.
            closed: why there are not more of them.
        """
        packing = self._packing
        names = packing.wanted(batch)
        rows = batch[0].rows if len(batch) == 1 else sum([request.rows for request in batch])
        started = time.monotonic()
        try:
            inputs = packing.assemble(batch)
            assembled = time.monotonic()
            outputs = self._backend.run(names, inputs)
            finished = time.monotonic()
            run = Run(started, assembled, finished, rows, dict(zip(names, outputs, strict=True)), closed)
            answers = packing.split(batch, run)
        except Exception as error:
            self._run_apart(batch, error, delivery)
            return
        self._costs.of(batch[0].shape_key).learn(rows, finished - started)
        delivery.answer(batch, answers, run)

    def _run_apart(self, batch: list[InferRequest], error: Exception, delivery: Delivery) -> None:
        if len(batch) > 1 or batch[0].count > 1:
            for request in batch:
                for each in request.apart():
                    self._run_alone(each, delivery)
        elif isinstance(error, ModelFailed):
            delivery.fail(batch[0], error)
        else:
            failure = ModelFailed("the model could not be run on this request; the server's log says why")
            failure.__cause__ = error
            delivery.fail(batch[0], failure)

    def _run_alone(self, request: InferRequest, delivery: Delivery) -> None:
        """Runs a request of a batch that failed, unless it has been given up meanwhile."""
        if request.cancelled:
            delivery.drop(request)
        elif request.deadline <= time.monotonic():
            delivery.fail(request, expired(request))
        else:
            self.run([request], delivery)
        delivery.flush()
