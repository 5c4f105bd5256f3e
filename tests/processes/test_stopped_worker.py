"""A worker that does not read what it is told, such as one that is stopped: the supervisor goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Thread

from penstock.config import Config
from penstock.processes.messages import Assignment, MetricsRequest
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
