"""Collects the metrics of all workers for one answer to `/metrics`, and what the page shows."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Condition, Lock
from typing import Any

from penstock.observability.families import Family
from penstock.observability.metrics import process_families, render
from penstock.observability.page.errors import MOST_ENTRIES, Entry
from penstock.page import Seen
from penstock.processes.merging import merged, merged_errors, merged_models, summed
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
        self._known: dict[WorkerProcess, MetricsReport] = {}  # what each sent last
        self._unheard: set[WorkerProcess] = set()  # of those that were asked, the ones that have not answered
        self._asked = 0
        self._ended: dict[int, _Families] = defaultdict(tuple)  # by number, of all workers that had it
        self._past_errors: deque[Mapping[str, Any]] = deque(maxlen=MOST_ENTRIES)  # of workers that have ended

    def add(self, worker: WorkerProcess) -> None:
        """From now on this worker takes calls."""
        with self._changed:
            self._known[worker] = MetricsReport(0, ())

    def heard(self, worker: WorkerProcess, report: MetricsReport) -> None:
        """Takes the metrics that a worker has sent."""
        with self._changed:
            known = self._known.get(worker)
            if known is not None:
                if not report.models:  # it was asked for its metrics only
                    report = replace(report, models=known.models, errors=known.errors)
                self._known[worker] = report
            if report.number == self._asked:
                self._unheard.discard(worker)
                self._changed.notify_all()

    def remove(self, worker: WorkerProcess) -> None:
        """This worker has ended."""
        with self._changed:
            left = self._known.pop(worker, None)
            if left is not None:
                self._ended[worker.number] = summed(self._ended[worker.number], left.families)
                self._past_errors.extend(reversed(left.errors))
            self._unheard.discard(worker)
            self._changed.notify_all()

    def crashed(self, words: str) -> None:
        """A worker has ended unexpectedly: a line for the recent errors."""
        now = time.time()
        entry = Entry(now, now, "", "", "", "PROCESS_ENDED", words, 1)
        with self._changed:
            self._past_errors.append(entry.fields())

    def render(self, accept_header: str = "") -> tuple[str, bytes]:
        """All metrics as text; see `penstock.observability.metrics.Metrics.render`."""
        with self._scraping:
            return render(self._merged(self._ask_all()), accept_header)

    def see(self) -> Seen:
        """What the page shows of all workers together."""
        with self._scraping:
            reports = self._ask_all(for_page=True)
            with self._changed:
                past = list(reversed(self._past_errors))
            models = merged_models([each.models for _, each in reports])
            errors = merged_errors([past, *[each.errors for _, each in reports]], MOST_ENTRIES)
            return Seen(self._merged(reports), models, errors)

    def _merged(self, reports: list[tuple[int, MetricsReport]]) -> _Families:
        with self._changed:
            sources = [(str(number), families) for number, families in self._ended.items()]
        sources += [(str(number), report.families) for number, report in reports]
        return merged([("", self._own()), (SUPERVISOR, process_families()), *sources])

    def _ask_all(self, for_page: bool = False) -> list[tuple[int, MetricsReport]]:
        """The newest report of each worker, with the worker's number."""
        end = time.monotonic() + ANSWER_SECONDS
        with self._changed:
            self._asked += 1
            self._unheard = set(self._known)
            workers, request = tuple(self._known), MetricsRequest(self._asked, for_page)
        for worker in workers:
            worker.send(request)
        with self._changed:
            self._changed.wait_for(lambda: not self._unheard, end - time.monotonic())
            return [(worker.number, report) for worker, report in self._known.items()]
