"""One answer to `/metrics` for all workers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from threading import Condition, Lock

from penstock.processes.merging import merged, summed
from penstock.processes.messages import Ask, Counts
from penstock.processes.worker_process import WorkerProcess
from penstock.telemetry.families import Family
from penstock.telemetry.metrics import process_families, render

ANSWER_SECONDS = 2.0  # for a worker to tell its metrics; then its last ones count
SUPERVISOR = "supervisor"

_Families = tuple[Family, ...]


class GroupMetrics:
    """Asks the workers for their metrics whenever somebody looks, and keeps what those counted that ended.

    Nothing that was shown once is taken back: the last counts known of a worker that ends stay. One that ends
    in good order tells its last; of one that crashes, what it counted after somebody last looked is lost.

    Args:
        own: the metrics of the group itself.
    """

    def __init__(self, own: Callable[[], _Families]) -> None:
        self._own = own
        self._scraping = Lock()
        self._changed = Condition()
        self._known: dict[WorkerProcess, _Families] = {}  # what each said last
        self._unheard: set[WorkerProcess] = set()  # of those that were asked
        self._asked = 0
        self._ended: dict[int, _Families] = defaultdict(tuple)  # what all with this number counted together

    def add(self, worker: WorkerProcess) -> None:
        """This worker takes calls now."""
        with self._changed:
            self._known[worker] = ()

    def heard(self, worker: WorkerProcess, counts: Counts) -> None:
        """A worker has told its metrics."""
        with self._changed:
            if worker in self._known:
                self._known[worker] = counts.families
            if counts.number == self._asked:
                self._unheard.discard(worker)
                self._changed.notify_all()

    def remove(self, worker: WorkerProcess) -> None:
        """This worker has ended."""
        with self._changed:
            left = self._known.pop(worker, ())
            self._ended[worker.number] = summed(self._ended[worker.number], left)
            self._unheard.discard(worker)
            self._changed.notify_all()

    def render(self, accept_header: str = "") -> tuple[str, bytes]:
        """All metrics as text; see `penstock.telemetry.metrics.Metrics.render`."""
        with self._scraping:
            self._ask_all()
            with self._changed:
                sources = [(str(number), families) for number, families in self._ended.items()]
                sources += [(str(worker.number), families) for worker, families in self._known.items()]
        supervisor = [("", self._own()), (SUPERVISOR, process_families())]
        return render(merged([*supervisor, *sources]), accept_header)

    def _ask_all(self) -> None:
        end = time.monotonic() + ANSWER_SECONDS
        with self._changed:
            self._asked += 1
            self._unheard = set(self._known)
            workers, question = tuple(self._known), Ask(self._asked)
        for worker in workers:
            worker.send(question)
        with self._changed:
            self._changed.wait_for(lambda: not self._unheard, end - time.monotonic())
