"""Collects the metrics of all workers for one answer to `/metrics`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from threading import Condition, Lock

from penstock.observability.families import Family
from penstock.observability.metrics import process_families, render
from penstock.processes.merging import merged, summed
from penstock.processes.messages import MetricsReport, MetricsRequest
from penstock.processes.worker_process import WorkerProcess

ANSWER_SECONDS = 2.0  # for a worker to send its metrics; after that, those it sent last are used
SUPERVISOR = "supervisor"

_Families = tuple[Family, ...]


class GroupMetrics:
    """Asks the workers for their metrics at every scrape, and keeps the counts of workers that have ended.

    Counters never go back: the last counts known of a worker that ends stay. A worker that ends in good order
    sends its last counts. Of one that crashes, what it counted since the last scrape is lost.

    Args:
        own: the metrics of the group itself.
    """

    def __init__(self, own: Callable[[], _Families]) -> None:
        self._own = own
        self._scraping = Lock()
        self._changed = Condition()
        self._known: dict[WorkerProcess, _Families] = {}  # what each sent last
        self._unheard: set[WorkerProcess] = set()  # of those that were asked, the ones that have not answered
        self._asked = 0
        self._ended: dict[int, _Families] = defaultdict(tuple)  # by number, of all workers that had it

    def add(self, worker: WorkerProcess) -> None:
        """From now on this worker takes calls."""
        with self._changed:
            self._known[worker] = ()

    def heard(self, worker: WorkerProcess, report: MetricsReport) -> None:
        """Takes the metrics that a worker has sent."""
        with self._changed:
            if worker in self._known:
                self._known[worker] = report.families
            if report.number == self._asked:
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
        """All metrics as text; see `penstock.observability.metrics.Metrics.render`."""
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
            workers, request = tuple(self._known), MetricsRequest(self._asked)
        for worker in workers:
            worker.send(request)
        with self._changed:
            self._changed.wait_for(lambda: not self._unheard, end - time.monotonic())
