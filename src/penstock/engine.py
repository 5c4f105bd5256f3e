"""The entry point of all requests: routes and queues them, watches deadlines, and drains at shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.core.errors import RequestError, Unavailable
from penstock.core.request import Request
from penstock.models.model import Model
from penstock.scheduling.runners import Runners
from penstock.traffic.router import Router

SWEEP_SECONDS = 0.02  # how late a waiting request may learn that its deadline has passed
REST_SECONDS, SWEEPS_BEFORE_REST = 0.5, 50
"""After this number of sweeps that found nothing to do, they are made less often, until a request comes: 50 a
second take an idle server about one percent of a core."""


class Held(Protocol):
    """Requests that were accepted, and are submitted when there is room for their answers."""

    def is_empty(self) -> bool:
        """Whether there are none."""

    def expire(self, now: float) -> None:
        """Ends those whose deadline has passed, or which no caller waits for any more."""

    def fail_all(self, error: RequestError) -> None:
        """Ends all with an error."""

    def tidy(self, now: float) -> None:
        """Gives memory back that answers have left behind."""


class Engine:
    """Accepts requests for models, and answers all of them before the server stops.

    Args:
        router: finds a model by name and version.
        runners: run the batches.
        models: returns all models that are loaded now.
        on_hung: called with the names of the models that hang, whenever these change.

    Attributes:
        router: as given.
        route: the model that answers, by name and version; see `Router.find`.
        submit: accepts a request for a model's batcher; see `Runners.submit`.
        hung: the names of the models that hang: a run of theirs takes far too long.
        held: the requests that are submitted later; None if there are no such ones.
    """

    def __init__(
        self,
        router: Router,
        runners: Runners,
        models: Callable[[], Sequence[Model]],
        on_hung: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        self.router = router
        self.route = router.find
        self.submit = runners.submit
        self._runners = runners
        self._models = models
        self._on_hung = on_hung
        self.hung: frozenset[str] = frozenset()
        self.held: Held | None = None
        self._stopping = False
        self._woken = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="penstock-sweeper", daemon=True)

    def start(self) -> None:
        """Starts the thread that watches deadlines and runs."""
        self._sweeper.start()

    def wake(self) -> None:
        """Something waits: deadlines are watched closely again."""
        self._runners.on_accepted = None
        self._woken.set()

    def cancel(self, model: Model, request: Request) -> None:
        """Drops a request, since no caller waits for its answer any more."""
        model.batcher.cancel(request)
        self._wake(model)

    def withdraw(self, model: Model) -> Sequence[Request]:
        """Takes the requests that wait out of a model's queue; the caller submits them later.

        Steps of sequences are left where they are.
        """
        return model.batcher.withdraw() if model.sequences is None else ()

    def replace(self, model: Model, request: Request, kept: Request, dropped: Request) -> bool:
        """Replaces a waiting request by a part of it, and cancels the other part.

        Args:
            model: the model that it waits for; one without a state.
            request: the request.
            kept: the part that waits in its place.
            dropped: the part that is cancelled.

        Returns:
            Whether the request was waiting; if not, nothing was done.
        """
        replaced = model.batcher.replace(request, kept, dropped)
        if replaced:
            self._runners.notify(model.batcher)
        return replaced

    def takes_calls(self) -> bool:
        """Whether the calling thread is one that takes calls, and must not be held up."""
        return self._runners.takes_calls()

    def join(self, wake: Callable[[], None]) -> Callable[[], bool]:
        """Makes the calling thread one that makes short runs itself; see `Runners.join`."""
        return self._runners.join(wake)

    def leave(self) -> None:
        """The calling thread, which had joined, makes no more runs."""
        self._runners.leave()

    def flush_soon(self) -> None:
        """On a thread that takes calls, what waits for it is done before further events."""
        self._runners.flush_soon()

    def take_turns(self, turn: Callable[[], bool]) -> None:
        """Takes the turns of work on a message; see `Runners.take_turns`."""
        self._runners.take_turns(turn)

    def release(self, owner: object) -> None:
        """Drops the states of the sequences that began on a stream which has ended."""
        for model in self._models():
            if model.sequences is not None:
                model.sequences.release(owner)

    def drain(self, seconds: float) -> bool:
        """Rejects further requests, and waits up to `seconds` until all accepted ones are answered.

        Returns:
            Whether all were. Requests that still wait then are answered with UNAVAILABLE.
        """
        self._runners.draining = True
        end = time.monotonic() + seconds
        for model in self._models():
            model.batcher.drain()
            self._runners.notify(model.batcher)
        while (busy := self._busy()) and time.monotonic() < end:
            time.sleep(0.002)
        error = Unavailable("the server stopped before the request was run")
        if self.held is not None:
            self.held.fail_all(error)
        for model in self._models():
            model.batcher.fail_all(error)
        return not busy

    def stop(self) -> None:
        """Stops the thread that watches deadlines and runs."""
        self._stopping = True
        self._woken.set()
        if self._sweeper.is_alive():
            self._sweeper.join()

    def _wake(self, model: Model) -> None:
        """Notifies the runners if a step of a sequence may run now, since the one before it was dropped."""
        if model.sequences is not None and model.sequences.has_runnable_step():
            self._runners.notify(model.batcher)

    def _is_idle(self) -> bool:
        return not self._runners.draining and not self._busy()

    def _busy(self) -> bool:
        if self.held is not None and not self.held.is_empty():
            return True
        return any(model.batcher.is_busy() for model in self._models())

    def _sweep(self) -> None:
        idle_sweeps = 0
        while True:
            resting = self._runners.on_accepted is not None
            if self._woken.wait(REST_SECONDS if resting else SWEEP_SECONDS):
                idle_sweeps = 0  # so that calls that come one by one do not wake this thread each time
                self._woken.clear()
            if self._stopping:
                return
            if idle_sweeps >= SWEEPS_BEFORE_REST:
                self._runners.on_accepted = self.wake  # before looking: what comes then ends the rest
            idle_sweeps += 1
            if self._sweep_once(time.monotonic()):
                idle_sweeps, self._runners.on_accepted = 0, None

    def _sweep_once(self, now: float) -> bool:
        """Looks for deadlines that have passed and for runs that hang; returns whether any may come."""
        watched = [model for model in self._models() if model.batcher.is_watched()]
        for model in watched:
            self._guarded(self._expire, model, now)
        anything = bool(watched)
        if self.held is not None:
            if not self.held.is_empty():
                anything = True
                self._guarded(self.held.expire, now)
            self._guarded(self.held.tidy, now)
        self._guarded(self._look_for_hung, watched)
        verifier = self._runners.verifier
        if verifier.has_work():
            anything = True
            self._guarded(verifier.look, self._is_idle)
        return anything

    def _expire(self, model: Model, now: float) -> None:
        model.batcher.expire(now)
        self._wake(model)

    def _look_for_hung(self, watched: Sequence[Model]) -> None:
        hung = frozenset(model.name for model in watched if model.is_hung)
        if hung != self.hung:
            self.hung = hung
            self._on_hung(hung)

    def _guarded(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:  # the thread must keep watching deadlines
            self._runners.failed(error)
