"""Verifies batches of live traffic: runs some of their requests again, alone, and compares the answers.

Whether the rows of a batch affect each other is checked when a model is loaded, but on generated values only.
So of the batches that are answered, a few are kept. While the server has nothing else to do, their requests
are run alone, one by one. If the answers differ by more than rounding explains, the model's requests run
alone from then on.

    answered ── one in a thousand is kept ── the server is idle ── run alone ── compared ── dropped

Verification delays no caller. It has a thread of its own, which works only while no request of any model
waits or runs. A run of any batch interrupts it, and it may take at most `SHARE` of the time.

A server may never be idle. So a batch of an unproven model, whose graph does not show that its rows keep
apart, waits no longer than `LONGEST_WAIT`. After that it is verified beside other runs, on the same thread
and in the same share of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array

SHARE = 0.01
"""The most of the time that verification takes: wall time, multiplied by the cores of a run."""

LONGEST_WAIT = 0.1
"""For how many seconds a kept batch of an unproven model waits for idle time."""

SAVED_SECONDS = 0.02
"""The most unused time that is saved. A run that takes longer is made up for by a longer pause after it."""

KEPT_BYTES = 16 * 2**20
"""The most bytes of a kept batch: the inputs of the requests that are to be run alone, and all outputs."""

ALL_KEPT_BYTES = 64 * 2**20
"""The most bytes of the kept batches of all models."""

Outputs = Mapping[str, Array]


class Mismatch(NamedTuple):
    """Answers of a batch that differ from those of the same requests alone.

    Attributes:
        output: the output that differs.
        reason: what was found, in words.
        difference: by how much, relative to the largest value at the same place; None if that has no meaning,
            such as for text or another shape.
        place: the place of the request among those that were compared.
    """

    output: str
    reason: str
    difference: float | None = None
    place: int = 0


Compare = Callable[[Sequence[Outputs], Sequence[Outputs]], Mismatch | None]
"""Compares the outputs of requests that ran together with those of the same requests alone; None if they
agree."""


class Kept(Protocol):
    """A model that has kept a batch."""

    @property
    def unproven(self) -> bool:
        """Whether the model's graph does not show that rows keep apart."""

    def verify(self) -> None:
        """Verifies the batch, and drops it.

        Raises:
            Postponed: there is other work, or no time is left. The batch is still kept.
        """


class _KeptBatch(NamedTuple):
    """How many bytes a kept batch has, and since when it is kept, by the verifier's clock."""

    size: int
    since: float


class Postponed(Exception):
    """There is other work, or no time is left."""


class Interrupted(Postponed):
    """A run was ended early, since there is other work."""


class _Run:
    """The run that is made for verification: a `penstock.backends.backend.RunControl`."""

    is_large = False

    def __init__(self) -> None:
        self.stopped = False
        self._stop: Callable[[], None] | None = None

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Called by the backend: `stop` ends the run."""
        self._stop = stop
        if self.stopped:
            stop()

    def stop(self) -> None:
        """Lets the run end as soon as the backend can; called by another thread."""
        self.stopped = True
        if self._stop is not None:
            self._stop()


class Verifier:
    """Verifies the kept batches of all models, on a thread of its own.

    Args:
        failed: called with an exception that verification has raised.
        clock: gives the time in seconds.

    Attributes:
        failed: as given.
        clock: as given.
        active: whether it works at the moment. Then whatever begins a run calls `interrupt` first.
        spent_seconds: how long it has worked so far, multiplied by the cores of the runs.
    """

    def __init__(
        self,
        failed: Callable[[BaseException], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active = False
        self.spent_seconds = 0.0
        self.failed, self.clock = failed, clock
        self._started = clock()
        self._lock = threading.Lock()
        self._forfeited = 0.0  # the time that was neither used nor saved
        self._run: _Run | None = None
        self._interrupted = False
        self._kept: dict[Kept, _KeptBatch] = {}
        self._is_idle: Callable[[], bool] = lambda: False
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._serve, name="penstock-verifier", daemon=True)
        self._thread.start()

    def stop(self, seconds: float | None) -> bool:
        """Ends the thread; waits up to `seconds` for that, if given, and says whether it has ended."""
        self._stopping = True
        self.interrupt()
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def has_work(self) -> bool:
        """Whether anything is kept for it."""
        return bool(self._kept)

    def look(self, is_idle: Callable[[], bool]) -> None:
        """Lets the thread work if something is kept, time is left, and the server is idle or a batch overdue.

        Called every few milliseconds.

        Args:
            is_idle: whether no request of any model waits or runs.
        """
        if self.has_work() and self.seconds_left() > 0.0 and (is_idle() or self._overdue()):
            self._is_idle = is_idle
            self._wake.set()

    def work(self) -> None:
        """Verifies what is kept, until other work arrives or no time is left; then what is overdue."""
        self._interrupted = False
        self.active = True  # before looking: a run that begins now either is seen here, or sees this
        try:
            for model in tuple(self._kept):
                self._check_free()
                if not self._is_idle():
                    break
                model.verify()
        except Postponed:
            pass
        finally:
            self.active = False
        self._work_beside_others()

    def _work_beside_others(self) -> None:
        """Verifies what has waited for too long. No run interrupts this, since `active` is false."""
        self._interrupted = False
        try:
            for model in self._overdue():
                self._check_free()
                model.verify()
        except Postponed:
            pass

    def interrupt(self) -> None:
        """Ends the run that is made for verification, since there is other work. Returns at once."""
        self.active = False
        self._interrupted = True
        run = self._run
        if run is not None:
            run.stop()

    def run(self, backend: Backend, names: Sequence[str], inputs: Outputs, cores: int) -> Sequence[Array]:
        """Runs one request alone, unless there is other work.

        Raises:
            Postponed: there is, or no time is left.
            ModelFailed: the model failed.
        """
        run = self._run = _Run()
        started = self.clock()
        try:
            self._check_free()
            return backend.run(names, inputs, run)
        except ModelFailed:
            if run.stopped:
                raise Interrupted from None
            raise
        finally:
            self._run = None
            self.spend((self.clock() - started) * cores)

    def spend(self, seconds: float) -> None:
        """Adds time that verification has used."""
        self.spent_seconds += seconds

    def seconds_left(self) -> float:
        """How long verification may work now; negative after a run that took long."""
        with self._lock:
            left = (self.clock() - self._started) * SHARE - self._forfeited - self.spent_seconds
            if left > SAVED_SECONDS:
                self._forfeited += left - SAVED_SECONDS
                return SAVED_SECONDS
            return left

    def room(self, model: Kept) -> int:
        """How many bytes a model may keep now."""
        others = sum([kept.size for each, kept in tuple(self._kept.items()) if each is not model])
        return min(KEPT_BYTES, ALL_KEPT_BYTES - others)

    def has_kept(self, model: Kept, size: int) -> None:
        """Notes how many bytes of batches a model keeps; 0 once it has dropped them."""
        if size:
            self._kept[model] = _KeptBatch(size, self.clock())
        else:
            self._kept.pop(model, None)

    def _overdue(self) -> Sequence[Kept]:
        """The unproven models whose batch has waited for too long, the longest wait first."""
        before = self.clock() - LONGEST_WAIT
        return [each for each, kept in tuple(self._kept.items()) if each.unproven and kept.since <= before]

    def _check_free(self) -> None:
        if self._interrupted or self._stopping or self.seconds_left() <= 0.0:
            raise Postponed

    def _serve(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.work()
            except Exception as error:  # the thread goes on with other batches
                self.failed(error)


NO_VERIFIER = Verifier()
"""A verifier that never works."""
