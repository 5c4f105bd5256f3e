"""Ten minutes of failing requests while nobody reads standard error. `SECONDS=60` makes them fewer."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from penstock_client import Client, PenstockError
from server import kit
from support import zoo
from support.servers import SCRIPT, full_pipe

SECONDS = float(os.environ.get("SECONDS", "600"))
ALONE_SECONDS = 20.0
CALLERS = 4
PAUSE_SECONDS = 0.01
FULL_SECONDS = 300  # by then, more lines have been written than the queue takes
TIMES = 5
"""At most as many times as long takes the 99th percentile of a caller of another model."""
STOP_SECONDS = 15.0


class Failing:
    """Callers whose calls all fail, one after another."""

    def __init__(self, target: str) -> None:
        self.failures = 0
        self._target = target
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for each in self._threads:
            each.start()

    def _call(self) -> None:
        with Client(self._target, transport="unary", timeout=30) as client:
            while not self._over.wait(PAUSE_SECONDS):
                try:
                    client.predict("fails", {"x": np.array([[100]], np.int64)})
                except PenstockError:
                    with self._lock:
                        self.failures += 1

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join()


@contextmanager
def unread(path: Path, transport: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server whose standard error is a full pipe; gives it with its two addresses."""
    read, write = full_pipe()
    command = [str(SCRIPT), "serve", str(path), "--port", "0", "--ops-port", "0", "--transport", transport]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write, text=True)
    assert process.stdout is not None
    try:
        os.close(write)
        shown = ""
        while "operations" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        yield process, shown.split("gRPC")[1].split()[0], shown.split("operations")[1].split()[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(read)


def times(target: str, seconds: float) -> list[float]:
    """How long calls of another model take for some time, in milliseconds."""
    taken, end = [], time.monotonic() + seconds
    with Client(target, transport="unary", timeout=30) as client:
        while (began := time.monotonic()) < end:
            client.predict("identity", {"x": np.ones((1, 3), np.float32)})
            taken.append((time.monotonic() - began) * 1000)
            time.sleep(2 * PAUSE_SECONDS)
    return taken


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_failing_requests_with_a_log_that_is_not_read(tmp_path: Path, transport: str) -> None:
    path = zoo.repository(tmp_path, {"fails": zoo.fails_on(100), "identity": zoo.identity()})
    with unread(path, transport) as (process, target, ops):
        alone = times(target, ALONE_SECONDS)
        failing = Failing(target)
        beside = times(target, SECONDS)
        failing.stop()
        assert kit.get(f"{ops}/livez")[0] == 200
        dropped = kit.metric(ops, "log_dropped_total")
        again = times(target, ALONE_SECONDS)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
        ended = time.monotonic() - began
    rows = {"alone": alone, "beside": beside, "afterwards": again}
    figures = {name: np.percentile(row, (50, 99, 100)).round(2).tolist() for name, row in rows.items()}
    print(f"{transport}: {failing.failures} failures, {dropped:.0f} lines dropped, ", end="")
    print(f"end after {ended:.2f} s, exit code {code}")
    print(f"p50, p99, worst in ms: {figures}", flush=True)
    assert code == 0
    assert failing.failures > SECONDS
    assert dropped > 0 or SECONDS < FULL_SECONDS
    assert figures["beside"][1] <= TIMES * max(figures["alone"][1], figures["afterwards"][1])
