"""A worker that does not read what it is told, such as one that is stopped: the supervisor goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from threading import Thread

import pytest

from penstock.config import Config
from penstock.processes import metrics
from penstock.processes.messages import Assignment, MetricsReport, MetricsRequest
from penstock.processes.metrics import GroupMetrics
from penstock.processes.worker_process import WorkerProcess
from server import kit

MORE_THAN_FIT = 5000


def test_what_a_stopped_worker_has_no_room_for_is_dropped(tmp_path: Path) -> None:
    worker = WorkerProcess(Assignment(1, Config(), tmp_path, 1, False, "", "1", ""))
    os.kill(worker.pid, signal.SIGSTOP)

    def tell() -> None:
        for number in range(MORE_THAN_FIT):
            worker.send(MetricsRequest(number))

    telling = Thread(target=tell, daemon=True)
    telling.start()
    telling.join(kit.BOUND)
    is_blocked = telling.is_alive()
    worker.kill()
    telling.join(kit.BOUND)
    assert worker.reap() == -signal.SIGKILL
    assert not is_blocked


def test_the_page_shows_what_a_worker_said_last_also_after_a_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape asks for metrics only; what the worker said of its models and errors before it stays known."""
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", 0.05)
    model = json.dumps({"name": "m", "version": "1", "trouble": "", "batched": True, "reason": ""})
    error = {"at": 1.0, "text": "no model"}
    worker = WorkerProcess(Assignment(1, Config(), tmp_path, 1, False, "", "1", ""))
    os.kill(worker.pid, signal.SIGSTOP)
    group = GroupMetrics(tuple)
    try:
        group.add(worker)
        group.heard(worker, MetricsReport(1, (), [model], [error]))
        group.heard(worker, MetricsReport(2, ()))
        seen = group.see()
    finally:
        worker.kill()
        worker.reap()
    assert (seen.models, seen.errors) == ([model], [error])
    group.remove(worker)
    assert group.see().errors == [error]
