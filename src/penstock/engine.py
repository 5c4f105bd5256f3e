"""The core's front: finds the model, lets requests in, and empties the house when the server stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from penstock.errors import RequestError, Unavailable
from penstock.messages import InferRequest
from penstock.models.model import Model
from penstock.routing import Router
from penstock.scheduling.runners import Runners

SWEEP_SECONDS = 0.02  # how late a waiting request may learn that its deadline has passed


class Engine:
    """Takes requests for models.

    Args:
        router: knows the models by name and version.
        runners: run their batches.
        models: all models there are, now.
        tell_hung: told of the names of the models that hang, whenever these change.

    Attributes:
        hung: the names of the models that hang: those of which any run goes on for far too long.
    """

    def __init__(
        self,
        router: Router,
        runners: Runners,
        models: Callable[[], Sequence[Model]],
        tell_hung: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        self.route = router.find
        self._runners = runners
        self._models = models
        self._tell_hung = tell_hung
        self.hung: frozenset[str] = frozenset()
        self._draining = False
        self._stopped = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="penstock-sweeper", daemon=True)

    def start(self) -> None:
        """Begins to watch deadlines and runs."""
        self._sweeper.start()

    def submit(self, model: Model, request: InferRequest) -> None:
        """Takes a request, which from now on gets exactly one answer or error by its `reply`.

        Returns at once. A refusal, too, comes by `reply`.
        """
        try:
            if self._draining:
                raise Unavailable("the server is stopping and takes no new requests")
            model.batcher.put(request)
        except RequestError as error:
            model.observer.failed(request.rpc, error, request.count, time.monotonic() - request.arrived)
            flush = request.reply(error)
            if flush is not None:
                flush()
        else:
            self._runners.touch(model.batcher)

    def cancel(self, model: Model, request: InferRequest) -> None:
        """Drops a request that nobody waits for any more."""
        model.batcher.cancel(request)
        self._wake(model)

    def release(self, owner: object) -> None:
        """Drops the states of the sequences that began on a stream which has ended."""
        for model in self._models():
            if model.sequences is not None:
                model.sequences.release(owner)

    def drain(self, seconds: float) -> bool:
        """Takes nothing more, and waits up to `seconds` until all that was taken is answered.

        Returns:
            Whether all was. What was not is answered with UNAVAILABLE where it still waits.
        """
        self._draining = True
        end = time.monotonic() + seconds
        for model in self._models():
            model.batcher.drain()
            self._runners.touch(model.batcher)
        while (busy := self._busy()) and time.monotonic() < end:
            time.sleep(0.002)
        for model in self._models():
            model.batcher.fail_all(Unavailable("the server stopped before the request's turn came"))
        return not busy

    def stop(self) -> None:
        """Stops watching."""
        self._stopped.set()
        if self._sweeper.is_alive():
            self._sweeper.join()

    def _wake(self, model: Model) -> None:
        """Has the steps run whose turn has come because of what was dropped."""
        if model.sequences is not None and model.sequences.wants_a_look():
            self._runners.touch(model.batcher)

    def _busy(self) -> bool:
        return any(model.batcher.is_busy() for model in self._models())

    def _sweep(self) -> None:
        while not self._stopped.wait(SWEEP_SECONDS):
            now = time.monotonic()
            for model in self._models():
                self._guarded(self._expire, model, now)
            self._guarded(self._look_for_hung)

    def _expire(self, model: Model, now: float) -> None:
        model.batcher.expire(now)
        self._wake(model)

    def _look_for_hung(self) -> None:
        hung = frozenset(model.name for model in self._models() if model.is_hung)
        if hung != self.hung:
            self.hung = hung
            self._tell_hung(hung)

    def _guarded(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:  # deadlines are to be watched on
            self._runners.failed(error)
